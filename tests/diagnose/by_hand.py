"""A diagnosis made by hand, of a network of any depth and with any names."""

import numpy as np

from keras_edgeq.diagnose.diagnosis import Diagnosis
from keras_edgeq.diagnose.finding import Finding, Trial
from keras_edgeq.diagnose.remedy import Remedy
from keras_edgeq.diagnose.rows import (
    FloatLayer,
    GraphLayer,
    Switch,
    TensorDiagnosis,
    WeightDiagnosis,
)
from keras_edgeq.spec.fidelity import OutputFidelity

HOSTILE = "</script><b>\"&'{{$x}}"


def diagnosis(names, model="model", skip=3):
    """Return a diagnosis of a chain, in which every layer `skip` back is read as well."""
    graph = tuple(
        GraphLayer(name, "Conv2D", _reads(names, i, skip), (name,), 1000)
        for i, name in enumerate(names)
    )
    tensors = tuple(_tensor(name, i) for i, name in enumerate(names))
    return Diagnosis(
        model=model,
        profile="litert_int8",
        samples=4,
        outputs=(OutputFidelity(names[-1], 21.0, 75.0),),
        score=0.5,
        float_score=0.75,
        weight_bytes=4096,
        float_bytes=16384,
        macs=1000 * len(names),
        tensors=tensors,
        weights=tuple(_weights(name, i) for i, name in enumerate(names)),
        floats=(FloatLayer(names[-1], "Conv2D", f"{names[-1]} was asked to be", 1000),),
        graph=graph,
        findings=(_finding(names[1], names[0]), _finding(names[0], names[0])),
        runs=(),
        files=(),
        not_measured=(names[-1],),
        passes=3.0,
        seconds=1.0,
        remedy_seconds=2.0,
    )


def _reads(names, i, skip):
    return tuple(names[j] for j in dict.fromkeys((i - 1, i - skip)) if 0 <= j < i)


def _tensor(name, i):
    own = (5.0, 15.0, 25.0, 35.0, 45.0, float("inf"), float("nan"))[i % 7]
    return TensorDiagnosis(
        name, name, "Conv2D", name, "int8", own, 30.0, own, 0.99, {"activation rounding": 0.1},
        -1.0, 2.0, -0.5, 1.5, 0.125, 0.01, Switch(40.0, 22.0, 0.01 * (i % 50)), 8,
        histogram=(1, 0, 30, 2), histogram_ends=(-1.0, 2.0), dead=(1,) if i == 2 else (),
    )  # fmt: skip


def _weights(name, i):
    low = -np.linspace(0.1, 1.0, 8, dtype=np.float32)
    after = None if i % 2 else low / 2
    return WeightDiagnosis(
        name, "Conv2D", "int8", bool(i % 2), 40.0, {"weight rounding": 0.1}, low, -low, after,
        None if after is None else -after, 4.0, 20.0, 0, 100.0, 200.0, 2.0**31,
        Switch(50.0, 21.5, 0.005),
    )  # fmt: skip


def _finding(name, other):
    remedy = Remedy("precision", {"layer": name, "precision": "W8A16"})
    trials = (
        Trial(remedy, 25.0, 4.0, 0.6, 0.1, 64, 1.5),
        Trial(Remedy("equalize"), failed=f"{other} cannot"),
    )
    return Finding(
        name, name, "activation rounding", f"{name} keeps 5 dB.", 0.9, 4.0, name == other,
        f"Look at {name}.", (remedy,), trials,
    )  # fmt: skip
