"""Fold batch norms into the layers around them, where that is exact."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tf_keras

from keras_edgeq.errors import UnsupportedModelError
from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.graph.rebuild import Edits, clone, edited
from keras_edgeq.ops import channel_map, op_of
from keras_edgeq.ops.channel_map import ChannelMap
from keras_edgeq.ops.plain import BATCH_NORM
from keras_edgeq.ops.table import is_linear, sees_all

L = tf_keras.layers


@dataclass(frozen=True, eq=False)
class Fold:
    """New weights of a layer that swallows a batch norm behind it, or in front of it."""

    batch_norm: tf_keras.layers.Layer
    channels: ChannelMap
    kernel: np.ndarray
    bias: np.ndarray
    behind: bool

    @property
    def layer(self) -> tf_keras.layers.Layer:
        """The layer that swallows it."""
        return self.channels.layer


def fold_batch_norms(model: tf_keras.Model) -> tf_keras.Model:
    """Return an equal model with batch norms folded into neighbouring weights.

    Backward into Conv1D/2D/3D, their transposes, depthwise convolutions, Dense and EinsumDense
    (linear, read by the batch norm alone; shared layers when every call is followed by the same
    batch norm). Forward into those of them that add no padding and are not transposed, also behind
    Flatten. Statistics are those of inference. Other batch norms stay.

    Args:
        model: a functional model; it is not changed.

    Returns:
        The folded model; the same object when there was nothing to fold.
    """
    return fold_and_name(model)[0]


def fold_and_name(model: tf_keras.Model) -> tuple[tf_keras.Model, dict[str, str]]:
    """Return what `fold_batch_norms` does, and the batch norm whose output a layer makes now."""
    made: dict[str, str] = {}
    while folds := find_folds(LayerGraph.of(model)):
        made |= made_by(folds)
        model = edited(model, fold_edits(folds))
    return model, made


def scale_and_offset(layer: tf_keras.layers.Layer) -> tuple[np.ndarray, np.ndarray]:
    """Return the inference form of a batch norm, `x * scale + offset`, in float64."""
    mean, variance = np.float64(layer.moving_mean), np.float64(layer.moving_variance)
    if np.any(variance + layer.epsilon <= 0.0):
        raise UnsupportedModelError(
            f"Batch norm {layer.name!r} has a moving variance of {variance.min():g}; a variance is "
            "not negative."
        )
    scale = 1.0 / np.sqrt(variance + layer.epsilon)
    if layer.scale:
        scale = scale * np.float64(layer.gamma)
    offset = -mean * scale
    return scale, offset + np.float64(layer.beta) if layer.center else offset


def batch_norms_behind(model: tf_keras.Model) -> dict[str, str]:
    """Return the batch norms that fold into the layer in front of them -> that layer."""
    graph = LayerGraph.of(model)
    found = {}
    for layer in model.layers:
        if op_of(layer) is BATCH_NORM and on_last_axis(layer, graph.calls_of(layer)[0].shapes[0]):
            fold = _backward(graph, layer)
            if fold is not None:
                found[layer.name] = fold.layer.name
    return found


def made_by(folds: Iterable[Fold]) -> dict[str, str]:
    """Return the layers that make the output of a batch norm behind them -> that batch norm."""
    return {fold.layer.name: fold.batch_norm.name for fold in folds if fold.behind}


def find_folds(graph: LayerGraph, apart: Container[str] = frozenset()) -> list[Fold]:
    """Return folds that do not touch each other's layers.

    Args:
        graph: of the model.
        apart: names of layers that nothing folds into.
    """
    folds: list[Fold] = []
    taken: set[int] = set()
    for node in graph.nodes:
        layer = node.layer
        if op_of(layer) is not BATCH_NORM or not on_last_axis(layer, node.shapes[0]):
            continue
        ways = (_backward(graph, layer), _forward(graph, node))
        fold = next((way for way in ways if way and way.layer.name not in apart), None)
        if fold and not {id(layer), id(fold.layer)} & taken:
            taken |= {id(layer), id(fold.layer)}
            folds.append(fold)
    return folds


def _backward(graph: LayerGraph, batch_norm) -> Fold | None:
    calls = graph.calls_of(batch_norm)
    layers = {id(graph.producer(c.inputs[0]).layer) for c in calls}
    layer = graph.producer(calls[0].inputs[0]).layer
    channels = channel_map(layer)
    if len(layers) != 1 or not channels or channels.outputs is None or not is_linear(layer):
        return None
    readers = [graph.only_consumer(call.outputs[0]) for call in graph.calls_of(layer)]
    if any(reader is None or reader.layer is not batch_norm for reader in readers):
        return None
    scale, offset = scale_and_offset(batch_norm)
    kernel = channels.values() * scale[channels.outputs]
    return Fold(batch_norm, channels, kernel, channels.bias() * scale + offset, True)


def _forward(graph: LayerGraph, node) -> Fold | None:
    reader = graph.only_consumer(node.outputs[0])
    repeat = 1
    if reader is not None and type(reader.layer) is L.Flatten:
        channels, flat = node.shapes[0][-1], reader.shapes[0][-1]
        repeat = flat // channels if flat else 0
        reader = graph.only_consumer(reader.outputs[0])
    if reader is None or not repeat or len(graph.calls_of(node.layer)) != 1:
        return None
    layer, channels = reader.layer, channel_map(reader.layer)
    if not channels or not sees_all(layer) or len(graph.calls_of(layer)) != 1:
        return None
    scale, offset = (np.tile(v, repeat) for v in scale_and_offset(node.layer))
    if channels.input_count != scale.size:
        return None
    bias = channels.bias() + channels.sums(offset)
    return Fold(node.layer, channels, channels.values() * scale[channels.inputs], bias, False)


def fold_edits(folds: Iterable[Fold]) -> Edits:
    """Return the layers with their new weights, and the batch norms as nothing."""
    edits: Edits = {}
    for fold in folds:
        weights = [fold.kernel.astype(np.float32), fold.bias.astype(np.float32)]
        edits[id(fold.layer)] = clone(fold.layer, **fold.channels.with_bias, weights=weights)
        edits[id(fold.batch_norm)] = lambda x, **_: x
    return edits


def on_last_axis(layer: Any, shape: tuple) -> bool:
    """Tell whether a batch norm has numbers per channel of the last axis."""
    axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0]
    return axis in (-1, len(shape) - 1)
