"""The check behind every sim: without rounding and clipping it equals the float model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras

from keras_edgeq.errors import SimMismatchError
from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.graph.rebuild import infer, replay
from keras_edgeq.prepare.float32 import computes_float32
from keras_edgeq.sim.beside import Beside, Floats
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.sim.unrounded import Unrounded

# Differences relative to the largest number of a tensor: of one operation on the same input, and of
# a whole model whose sums were taken in another order, or in half precision.
LOCAL, WHOLE, HALF = 1e-4, 1e-3, 0.1
LEAST = 1e-6
# Float noise may decide a comparison, a rounding or a sign inside the user's model the other way.
SHARE = 5e-4
INTEGER_SHARE = 0.1


class Gap(NamedTuple):
    """Where two tensors differ most.

    Args:
        share: of the elements that differ by more than float noise.
        distance: the largest difference, relative to the largest number.
        wanted: the float model's number there.
        got: the other one.
    """

    share: float
    distance: float
    wanted: float
    got: float


def check_identity(floats: Floats, sim: QuantSim, model: tf_keras.Model | None = None) -> float:
    """Raise unless a sim with grids that neither round nor clip computes its float model.

    Every quantized tensor and every output is compared, each operation on the float model's own
    input, so that a difference is found where it is made. Grids keep scales, so wrong units show.

    Args:
        floats: the float model with the layers of the sim, on a few samples.
        sim: calibrated or not; it is not changed.
        model: the user's model, which the float model was made from, if available.

    Returns:
        The largest difference, relative to the largest number of its tensor.

    Raises:
        SimMismatchError: names the first tensor that differs, with both values.
    """
    prepared, inputs = floats.model, floats.samples
    names: list[str] = []

    def compare(inputs):
        rows: list[Any] = []
        names.clear()

        def add(name, wanted, got, noise=LOCAL):
            names.append(name)
            rows.append(_gap(wanted, got, noise))

        own = floats.outputs
        if model is not None:
            noise = WHOLE if _is_float32(model) else HALF
            for name, wanted, got in zip(
                model.output_names, _outputs(model, inputs), own, strict=True
            ):
                add(f"{name}/prepared", wanted, got, noise)
        outputs = Beside(floats, sim).walk(
            Unrounded(sim), lambda name, wanted, got: add(name, wanted, got, LOCAL)
        )
        for name, wanted, got in zip(sim.output_names, own, tf.nest.flatten(outputs), strict=True):
            add(name, wanted, got)
        return tf.stack(rows)

    gaps = _gaps(compare, inputs, prepared if model is None else model)
    wrong = [name for name, gap in zip(names, gaps, strict=True) if gap.share > 0.0]
    if wrong:
        first = next(i for i, gap in enumerate(gaps) if gap.share > 0.0)
        if names[first].endswith("/prepared") and model is not None:
            raise _rewritten(model, prepared, inputs, names[first], gaps[first])
        raise _mismatch(sim.name, names[first], gaps[first], len(wrong))
    return max((gap.distance for gap in gaps), default=0.0)


def check_equal(model: tf_keras.Model, other: tf_keras.Model, inputs: Sequence[Any]) -> None:
    """Raise unless a float model that was made from another one computes the same.

    Raises:
        SimMismatchError: names the first layer that differs, with both values.
    """

    def compare(inputs):
        pairs = zip(_outputs(model, inputs), _outputs(other, inputs), strict=True)
        noise = WHOLE if _is_float32(model) else HALF
        return tf.stack([_gap(wanted, got, noise) for wanted, got in pairs])

    for name, gap in zip(model.output_names, _gaps(compare, inputs, model), strict=True):
        if gap.share > 0.0:
            raise _rewritten(model, other, inputs, name, gap)


def _gaps(compare: Any, inputs: Sequence[Any], model: tf_keras.Model) -> list[Gap]:
    with kept_states(model):
        # Not traced: for one batch a trace takes ten times as long as the operations.
        rows = compare([tf.constant(part) for part in inputs])
    return [Gap(*map(float, row)) for row in rows.numpy()]


def _outputs(model: tf_keras.Model, inputs: Sequence[Any]) -> list[Any]:
    structure = keras_compat.structured_inputs(model)
    return tf.nest.flatten(model(tf.nest.pack_sequence_as(structure, inputs), training=False))


def _gap(wanted: Any, got: Any, noise: float) -> Any:
    """Return a `Gap` as a tensor; its share is 0 where only float noise differs."""
    allowed = SHARE if wanted.dtype.is_floating else INTEGER_SHARE
    if wanted.shape.rank != got.shape.rank or not wanted.shape.is_compatible_with(got.shape):
        return tf.constant([1.0, np.inf, np.nan, np.nan])
    wanted, got = (tf.reshape(tf.cast(t, tf.float32), [-1]) for t in (wanted, got))
    same = tf.logical_or(
        tf.equal(wanted, got), tf.logical_and(tf.math.is_nan(wanted), tf.math.is_nan(got))
    )
    distance = tf.where(same, 0.0, tf.abs(wanted - got))
    distance = tf.where(tf.math.is_nan(distance), np.inf, distance)
    finite = tf.where(tf.math.is_finite(wanted), tf.abs(wanted), 0.0)
    most = tf.maximum(tf.reduce_max(tf.concat([finite, [0.0]], 0)), LEAST / noise)
    share = tf.reduce_mean(tf.cast(distance > noise * most, tf.float32))
    at = tf.argmax(distance)
    return tf.stack([
        tf.where(share > allowed, share, 0.0), distance[at] / most, wanted[at], got[at],
    ])  # fmt: skip


def _is_float32(model: tf_keras.Model) -> bool:
    return all(
        _is_float32(layer) if isinstance(layer, tf_keras.Model) else computes_float32(layer)
        for layer in model.layers
    )


@contextmanager
def kept_states(model: tf_keras.Model) -> Iterator[None]:
    """Let stateful layers begin at zero, and give them the states back that they had."""
    layers = [layer for layer in keras_compat.all_layers(model) if getattr(layer, "states", None)]
    kept = [[(state, state.numpy()) for state in tf.nest.flatten(layer.states)
             if isinstance(state, tf.Variable)] for layer in layers]  # fmt: skip
    try:
        for states in kept:
            for variable, _ in states:
                variable.assign(tf.zeros_like(variable))
        yield
    finally:
        for states in kept:
            for variable, value in states:
                variable.assign(value)


def _rewritten(model, prepared, inputs, output: str, gap: Gap) -> SimMismatchError:
    """Return the error for a model that was rewritten into something else."""
    wanted, got = _by_layer(model, inputs), _by_layer(prepared, inputs)
    for name, value in wanted.items():
        parts = [own for own in got if own == name or own.startswith(f"{name}/")]
        if not parts:
            continue
        if value.shape != got[parts[-1]].shape:
            found = Gap(1.0, np.inf, np.nan, np.nan)
        else:
            found = Gap(*map(float, _gap(value, got[parts[-1]], HALF)))
        if found.share > 0.0:
            return _mismatch(model.name, name, found, 1)
    return _mismatch(model.name, output.removesuffix("/prepared"), gap, 1)


def _mismatch(model: str, name: str, gap: Gap, count: int) -> SimMismatchError:
    more = f" and {count - 1} tensors behind it" if count > 1 else ""
    return SimMismatchError(
        f"The sim of {model!r} would not compute what the model does: at {name!r}{more} the model "
        f"has {gap.wanted:.6g} where the sim, with grids that do not round, has {gap.got:.6g}. "
        "This is a fault of keras_edgeq, not of the model; please report it with model.to_json(). "
        f'Until it is fixed, leave the layer float, precision={{"{name}": "FP32"}}, or pass '
        "check=False if you know better.",
        name,
        gap.wanted,
        gap.got,
    )


def _by_layer(model: tf_keras.Model, inputs: Sequence[Any], path: str = "") -> dict[str, Any]:
    """Return what each layer makes in its last call, by its path, in topological order.

    Layers in front of a batch norm are left out: folded, they make another tensor.
    """
    made: dict[str, Any] = {}
    graph = LayerGraph.of(model)
    norms = tf_keras.layers.BatchNormalization
    folded = {
        node.layer.name
        for node in graph.nodes
        for ref in node.outputs
        if any(isinstance(reader.layer, norms) for reader in graph.consumers(ref))
    }

    def on_call(call, args, kwargs):
        name = f"{path}{call.layer.name}"
        if keras_compat.is_graph_model(call.layer):
            flat = keras_compat.flat_inputs(call.layer, args[0])
            made.update(_by_layer(call.layer, flat, f"{name}/"))
        outputs = infer(call.layer, args, kwargs)
        if call.layer.name not in folded:
            made[name] = tf.nest.flatten(outputs)[0]
        return outputs

    replay(model, list(inputs), on_call)
    return made
