"""Compare a sim with its float model: at its outputs, and what each tensor adds or inherits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_edgeq.graph.rebuild import infer
from keras_edgeq.numerics.metrics import agreement, ratio_db, sqnr_db
from keras_edgeq.sim.beside import Beside, Floats
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.sim.reference import float_form
from keras_edgeq.sim.strip import stripped
from keras_edgeq.spec.fidelity import Fidelity, OutputFidelity, TensorError

Watch = Callable[[str, Any, Any], None]


def measure_fidelity(
    sim: QuantSim, floats: Floats, on_data: bool = True, watch: Watch | None = None
) -> Fidelity:
    """Compare a sim with its float model, output by output and tensor by tensor.

    Args:
        sim: a calibrated sim; it is not changed.
        floats: its float model on a few samples; all tensors of one batch are held.
        on_data: False if they are random.
        watch: called with `(tensor, float value, the sim's value)` of each quantized tensor, both
            made from float.
    """
    beside = Beside(floats, sim)
    forced: dict[str, Any] = {}
    sums: dict[str, list[float]] = {}

    def add(name, wanted, got):
        own = forced.pop(name)
        errors = (own - wanted, got - own, got - wanted)
        powers = [wanted, *errors]
        sums[name] = [float(tf.reduce_sum(tf.square(part))) for part in powers]

    def on_call(call, args, kwargs):
        return infer(call.layer, args, kwargs)

    def keep(name, wanted, got):
        forced[name] = got
        if watch is not None:
            watch(name, wanted, got)

    beside.walk(on_call, keep)
    outputs = beside.walk(on_call, add, forced=False)
    return Fidelity(
        samples=len(floats.samples[0]),
        on_data=on_data,
        outputs=compare_outputs(sim.output_names, floats.outputs, tf.nest.flatten(outputs)),
        tensors=tuple(
            TensorError(name, *(ratio_db(signal, noise) for noise in noises))
            for name, (signal, *noises) in sums.items()
        ),
    )


def float_tensors(sim: QuantSim, samples: Sequence[np.ndarray]) -> Floats:
    """Return the tensors of the float model that a sim stands for."""
    return Floats(stripped(float_form(sim)), samples)


def compare_outputs(
    names: Sequence[str], wanted: Sequence[Any], got: Sequence[Any]
) -> tuple[OutputFidelity, ...]:
    """Return how close outputs are; outputs that are not real numbers are left out."""
    return tuple(
        OutputFidelity(name, sqnr_db(a, b), _agreement(np.asarray(a), np.asarray(b)))
        for name, a, b in zip(names, wanted, got, strict=True)
        if np.asarray(a).dtype.kind == "f" and np.size(a)
    )


def _agreement(a: np.ndarray, b: np.ndarray) -> float | None:
    return agreement(a, b) if a.ndim == 2 and a.shape[1] > 1 else None
