"""Scale and offset per channel as a 1x1 depthwise convolution, which every target runs in integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.rebuild import calls, rebuild
from keras_edgeq.layers.layer_traits import op_type

L = tf_keras.layers
CONSTANT_OPS: dict[str, Callable] = {
    "Add": lambda c: (np.ones_like(c), c),
    "Sub": lambda c: (np.ones_like(c), -c),
    "Mul": lambda c: (c, np.zeros_like(c)),
    "Div": lambda c: (1.0 / c, np.zeros_like(c)),
}


def affine(name: str, scale: np.ndarray, offset: np.ndarray, shape: tuple) -> Callable:
    """Return a function of layers that computes `x * scale + offset` over the last axis.

    Args:
        name: name of the convolution; reshapes around it get `/in` and `/out`.
        scale: shape `(channels,)`.
        offset: shape `(channels,)`.
        shape: static shape of the input with the batch first; channels last.
    """
    channels = int(shape[-1])
    weights = [np.reshape(scale, (1, 1, channels, 1)), np.reshape(offset, (channels,))]
    convolution = L.DepthwiseConv2D(
        1, name=name, weights=[w.astype(np.float32) for w in weights]
    )
    if len(shape) == 4:
        return convolution
    inside = L.Reshape(_as_image(shape), name=f"{name}/in")
    outside = L.Reshape([-1 if d is None else d for d in shape[1:]], name=f"{name}/out")
    return lambda x: outside(convolution(inside(x)))


def can_be_affine(shape: tuple) -> bool:
    """Tell whether `affine` can take this shape: channels known, at most one other size unknown."""
    return len(shape) in (2, 3, 4, 5) and shape[-1] is not None and (
        len(shape) == 4 or sum(d is None for d in shape[1:]) <= 1
    )


def constants_to_affine(model: tf_keras.Model) -> tf_keras.Model:
    """Return the model with Rescaling, Normalization and `x op constant` as affine layers.

    Scalars added to or multiplied with a tensor stay: a kernel takes them without error.
    """
    found: dict[int, Callable] = {}
    for call in calls(model):
        replacement = _constant_call(call)
        if replacement is not None:
            found[id(call.layer)] = replacement
    return rebuild(model, lambda layer: found.get(id(layer))) if found else model


def _constant_call(call) -> Callable | None:
    layer = call.layer
    symbols = [t for t in tf.nest.flatten(call.node.call_args) if keras_compat.is_keras_tensor(t)]
    if call.number or len(symbols) != 1 or symbols[0].shape.rank is None:
        return None
    shape = tuple(symbols[0].shape)
    pair = _layer_constants(layer, shape) or _op_constants(call, symbols[0])
    if pair is None or not can_be_affine(shape):
        return None
    scale, offset = (np.broadcast_to(np.float64(v), (shape[-1],)) for v in pair)
    function = affine(layer.name, scale, offset, shape)
    return lambda *args, **_: function(_symbol(args))


def _symbol(args) -> Any:
    return next(t for t in tf.nest.flatten(args) if keras_compat.is_keras_tensor(t))


def _layer_constants(layer, shape):
    """Return `(scale, offset)` of a Rescaling or Normalization layer."""
    if type(layer) is L.Rescaling:
        return _per_channel(layer.scale, shape), _per_channel(layer.offset, shape)
    if type(layer) is L.Normalization and not layer.invert and layer.mean is not None:
        mean, variance = np.float64(layer.mean).ravel(), np.float64(layer.variance).ravel()
        if mean.size in (1, shape[-1]):
            deviation = np.maximum(np.sqrt(variance), tf_keras.backend.epsilon())
            return 1.0 / deviation, -mean / deviation
    return None


def _per_channel(value, shape):
    value = np.float64(value).ravel()
    return value if value.size in (1, shape[-1]) else None


def _op_constants(call, symbol):
    """Return `(scale, offset)` of an op with a constant per channel, or of a division by one."""
    kind = op_type(call.layer)
    operands = tf.nest.flatten(call.node.call_args)[:2]
    if kind not in CONSTANT_OPS or len(operands) != 2 or call.number:
        return None
    if keras_compat.op_symbol(call.layer) is None:
        return None
    constant = next((o for o in operands if not keras_compat.is_keras_tensor(o)), None)
    value = np.asarray(constant, np.float64)
    channels = symbol.shape[-1]
    if value.size not in (1, channels) or value.ndim and value.shape[-1] != value.size:
        return None
    first = operands[0] is symbol
    if not first and kind in ("Sub", "Div"):
        return (-np.ones(1), value.ravel()) if kind == "Sub" else None
    if value.size == 1 and kind != "Div":
        return None
    return CONSTANT_OPS[kind](value.ravel())
