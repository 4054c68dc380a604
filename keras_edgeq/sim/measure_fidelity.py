"""Compare a sim with its float model: at its outputs, and what each tensor adds or inherits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from keras_edgeq.graph.rebuild import infer
from keras_edgeq.numerics.metrics import agreement, ratio_db, sqnr_db
from keras_edgeq.sim.beside import Beside
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.sim.reference import float_form
from keras_edgeq.sim.strip import stripped
from keras_edgeq.spec.fidelity import Fidelity, OutputFidelity, TensorError

Watch = Callable[[str, Any, Any], None]


def measure_fidelity(
    sim: QuantSim,
    samples: Sequence[np.ndarray],
    on_data: bool = True,
    prepared: tf_keras.Model | None = None,
    watch: Watch | None = None,
) -> Fidelity:
    """Compare a sim with its float model, output by output and tensor by tensor.

    Args:
        sim: a calibrated sim; it is not changed.
        samples: a few, in the order of the model's inputs; all tensors of one batch are held.
        on_data: False where they are random.
        prepared: the float model with the sim's layers; None takes it out of the sim.
        watch: called with `(tensor, float value, the sim's value)` of each quantized tensor, both
            made from float.
    """
    floats_of = stripped(float_form(sim)) if prepared is None else prepared
    beside = Beside(floats_of, sim)
    inputs = [tf.constant(part) for part in samples]
    floats = beside.floats(inputs)
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

    beside.walk(inputs, floats, on_call, keep)
    outputs = beside.walk(inputs, floats, on_call, add, forced=False)
    wanted = [floats[id(symbol)] for symbol in floats_of.outputs]
    return Fidelity(
        samples=len(samples[0]),
        on_data=on_data,
        outputs=compare_outputs(sim.output_names, wanted, tf.nest.flatten(outputs)),
        tensors=tuple(
            TensorError(name, *(ratio_db(signal, noise) for noise in noises))
            for name, (signal, *noises) in sums.items()
        ),
    )


def compare_outputs(
    names: Sequence[str], wanted: Sequence[Any], got: Sequence[Any]
) -> tuple[OutputFidelity, ...]:
    """Return how close outputs are; those that are no real numbers are left out."""
    return tuple(
        OutputFidelity(name, sqnr_db(a, b), _agreement(np.asarray(a), np.asarray(b)))
        for name, a, b in zip(names, wanted, got, strict=True)
        if np.asarray(a).dtype.kind == "f" and np.size(a)
    )


def _agreement(a: np.ndarray, b: np.ndarray) -> float | None:
    return agreement(a, b) if a.ndim == 2 and a.shape[1] > 1 else None
