"""Fold batch norms into the layers around them, where that is exact."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

import numpy as np
import tf_keras

from keras_edgeq.errors import UnsupportedModelError
from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.graph.rebuild import clone, rebuild
from keras_edgeq.layers.layer_traits import WeightTrait, activation_name, op_type, weight_trait
from keras_edgeq.prepare.affine import affine, can_be_affine

L = tf_keras.layers
BACKWARD = {
    *("Conv1D", "Conv2D", "Conv3D", "ConvTranspose1D", "ConvTranspose2D", "ConvTranspose3D"),
    *("DepthwiseConv1D", "DepthwiseConv2D", "Dense"),
}
FORWARD = {"Conv1D", "Conv2D", "Conv3D", "DepthwiseConv1D", "DepthwiseConv2D", "Dense"}


@dataclass(frozen=True, eq=False)
class Fold:
    """New weights of a layer that swallows a batch norm behind it, or in front of it."""

    batch_norm: tf_keras.layers.Layer
    layer: tf_keras.layers.Layer
    kernel: np.ndarray
    bias: np.ndarray
    behind: bool


def fold_batch_norms(model: tf_keras.Model) -> tf_keras.Model:
    """Return an equal model with batch norms folded into neighbouring weights.

    Backward into Conv1D/2D/3D, their transposes, depthwise convolutions and Dense (linear, read by
    the batch norm alone; shared layers when every call is followed by the same batch norm).
    Forward into a convolution without padding, a depthwise one, or Dense, also behind Flatten.
    Statistics are those of inference. Other batch norms stay.

    Args:
        model: a functional model; it is not changed.

    Returns:
        The folded model; the same object when there was nothing to fold.
    """
    return fold_and_name(model)[0]


def fold_and_name(
    model: tf_keras.Model, behind: bool = True
) -> tuple[tf_keras.Model, dict[str, str]]:
    """Return what `fold_batch_norms` does, and the batch norm whose output a layer makes now.

    Without `behind`, batch norms that fold into the layer in front of them stay.
    """
    made: dict[str, str] = {}
    while folds := _find(LayerGraph(model), behind):
        made.update({fold.layer.name: fold.batch_norm.name for fold in folds if fold.behind})
        model = _apply(model, folds)
    return model, made


def batch_norms_to_affine(
    model: tf_keras.Model, keep: Container[str] = frozenset()
) -> tf_keras.Model:
    """Return the model with the remaining batch norms, but for some, as 1x1 depthwise convolutions.

    Args:
        model: what `fold_and_name` made; it is not changed.
        keep: names of batch norms that stay.
    """
    graph, replacements = LayerGraph(model), {}
    for layer in model.layers:
        shapes = [call.shapes[0] for call in graph.calls_of(layer)]
        if (
            op_type(layer) == "BatchNorm"
            and layer.name not in keep
            and all(_last_axis(layer, shape) and can_be_affine(shape) for shape in shapes)
        ):
            replacements[id(layer)] = affine(layer.name, *scale_and_offset(layer), layer.trainable)
    if not replacements:
        return model

    def on_layer(layer):
        function = replacements.get(id(layer))
        return None if function is None else lambda x, **_: function(x)

    return rebuild(model, on_layer)


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
    graph = LayerGraph(model)
    found = {}
    for layer in model.layers:
        if op_type(layer) == "BatchNorm" and _last_axis(layer, graph.calls_of(layer)[0].shapes[0]):
            fold = _backward(graph, layer)
            if fold is not None:
                found[layer.name] = fold.layer.name
    return found


def _find(graph: LayerGraph, behind: bool) -> list[Fold]:
    """Return folds that do not touch each other's layers."""
    folds, taken = [], set()
    for node in graph.nodes:
        layer = node.layer
        if op_type(layer) != "BatchNorm" or not _last_axis(layer, node.shapes[0]):
            continue
        fold = _backward(graph, layer) or _forward(graph, node)
        if fold and fold.behind and not behind:
            continue
        if fold and not {id(layer), id(fold.layer)} & taken:
            taken |= {id(layer), id(fold.layer)}
            folds.append(fold)
    return folds


def _backward(graph: LayerGraph, batch_norm) -> Fold | None:
    calls = graph.calls_of(batch_norm)
    layers = {id(graph.producer(c.inputs[0]).layer) for c in calls}
    layer = graph.producer(calls[0].inputs[0]).layer
    if len(layers) != 1 or op_type(layer) not in BACKWARD or not _channels_last(layer):
        return None
    if activation_name(layer.activation) != "linear":
        return None
    readers = [graph.only_consumer(call.outputs[0]) for call in graph.calls_of(layer)]
    if any(reader is None or reader.layer is not batch_norm for reader in readers):
        return None
    scale, offset = scale_and_offset(batch_norm)
    kernel, bias = _weights(layer, scale.size)
    factor = scale.reshape(per_channel_shape(layer))
    return Fold(batch_norm, layer, kernel * factor, bias * scale + offset, True)


def per_channel_shape(layer: tf_keras.layers.Layer) -> list[int]:
    """Return the shape in which a factor per output channel multiplies a layer's kernel."""
    trait = _trait(layer)
    sizes = getattr(layer, trait.kernel).shape
    return [int(size) if axis in trait.axes else 1 for axis, size in enumerate(sizes)]


def _forward(graph: LayerGraph, node) -> Fold | None:
    reader = graph.only_consumer(node.outputs[0])
    repeat = 1
    if reader is not None and type(reader.layer) is L.Flatten:
        channels, flat = node.shapes[0][-1], reader.shapes[0][-1]
        repeat = flat // channels if flat else 0
        reader = graph.only_consumer(reader.outputs[0])
    if reader is None or not repeat or len(graph.calls_of(node.layer)) != 1:
        return None
    layer = reader.layer
    if (
        len(graph.calls_of(layer)) != 1
        or not _takes_forward(layer)
        or (repeat > 1 and op_type(layer) != "Dense")
    ):
        return None
    scale, offset = (np.tile(v, repeat) for v in scale_and_offset(node.layer))
    depthwise = op_type(layer).startswith("Depthwise")
    kernel, bias = _weights(layer, None)
    shape = (-1, 1)  # the last two axes are (input, output), or (channel, multiplier)
    shift = kernel * offset.reshape(shape)
    sums = shift.reshape(-1, *shift.shape[-2:]).sum(0)
    bias = bias + (sums.ravel() if depthwise else sums.sum(0))
    return Fold(node.layer, layer, kernel * scale.reshape(shape), bias, False)


def _takes_forward(layer) -> bool:
    """Tell whether every output of the layer sees all of its kernel on real input."""
    kind = op_type(layer)
    if kind not in FORWARD or not _channels_last(layer):
        return False
    if kind == "Dense":
        return True
    padded = layer.padding != "valid" and any(size != 1 for size in layer.kernel_size)
    return not padded and getattr(layer, "groups", 1) == 1


def _weights(layer, channels: int | None) -> tuple[np.ndarray, np.ndarray]:
    trait = _trait(layer)
    kernel = np.asarray(getattr(layer, trait.kernel), np.float64)
    if layer.use_bias:
        return kernel, np.asarray(layer.bias, np.float64)
    if channels is None:
        channels = int(np.prod([kernel.shape[axis] for axis in trait.axes]))
    return kernel, np.zeros(channels)


def _trait(layer) -> WeightTrait:
    trait = weight_trait(layer)
    assert trait is not None  # asked for BACKWARD and FORWARD only
    return trait


def _apply(model, folds: list[Fold]) -> tf_keras.Model:
    gone = {id(fold.batch_norm) for fold in folds}
    changed = {id(fold.layer): fold for fold in folds}

    def on_layer(layer):
        if id(layer) in gone:
            return lambda x, **_: x
        fold = changed.get(id(layer))
        if fold is None:
            return None
        weights = [fold.kernel.astype(np.float32), fold.bias.astype(np.float32)]
        return clone(layer, use_bias=True, weights=weights)

    return rebuild(model, on_layer)


def _last_axis(layer, shape) -> bool:
    axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0]
    return axis in (-1, len(shape) - 1)


def _channels_last(layer) -> bool:
    return getattr(layer, "data_format", "channels_last") == "channels_last"
