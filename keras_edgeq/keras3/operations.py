"""Operations of `keras.ops` on tensors of TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_edgeq.errors import UnsupportedModelError
from keras_edgeq.keras3 import activations

Call = Callable[..., Any]


def _of(*names: str) -> Callable[[Any], dict[str, Any]]:
    """Return what reads settings of an operation: its attributes by name."""
    return lambda operation: {name: getattr(operation, name) for name in names}


def _reduced(function: Call) -> Call:
    return lambda x, axis=None, keepdims=False: function(x, axis=axis, keepdims=keepdims)


def _clip(x, x_min, x_max):
    return tf.clip_by_value(x, x_min, x_max)


def _reshape(x, newshape):
    return tf.reshape(x, [-1 if size is None else size for size in newshape])


def _squeeze(x, axis=None):
    return tf.squeeze(x, axis=axis)


def _flip(x, axis=None):
    axes = range(len(x.shape)) if axis is None else np.atleast_1d(axis)
    return tf.reverse(x, [int(a) % len(x.shape) for a in axes])


def _swapaxes(x, axis1, axis2):
    order = list(range(len(x.shape)))
    order[axis1], order[axis2] = order[axis2], order[axis1]
    return tf.transpose(x, order)


def _moveaxis(x, source, destination):
    rank = len(x.shape)
    sources = [a % rank for a in np.atleast_1d(source)]
    order = [a for a in range(rank) if a not in sources]
    for place, axis in sorted(zip(np.atleast_1d(destination) % rank, sources, strict=True)):
        order.insert(int(place), int(axis))
    return tf.transpose(x, order)


def _split(x, indices_or_sections, axis=0):
    if isinstance(indices_or_sections, int):
        return tf.split(x, indices_or_sections, axis=axis)
    ends = [*indices_or_sections, x.shape[axis]]
    return tf.split(x, np.diff([0, *ends]).tolist(), axis=axis)


def _pad(x, pad_width, mode="constant", constant_values=None):
    widths = np.broadcast_to(pad_width, (len(x.shape), 2)).tolist()
    value = 0 if constant_values is None else constant_values
    return tf.pad(x, widths, mode=mode.upper(), constant_values=value)


def _getitem(x, key):
    return x[key]


def _repeat(x, repeats, axis=None):
    return tf.repeat(x, repeats, axis=axis)


def _take(x, indices, axis=None):
    return tf.gather(x, indices, axis=0 if axis is None else axis)


AXIS, REDUCED = _of("axis"), _of("axis", "keepdims")

# Class of an operation -> its function, and which settings it takes as arguments by name.
TABLE: dict[str, tuple[Call, Callable[[Any], dict[str, Any]]]] = {
    **{
        name: (function, _of())
        for name, function in {
            "Add": tf.add, "Subtract": tf.subtract, "Multiply": tf.multiply, "Divide": tf.divide,
            "TrueDivide": tf.divide, "Maximum": tf.maximum, "Minimum": tf.minimum,
            "Power": tf.pow, "Matmul": tf.matmul, "GetItem": _getitem,
            "Absolute": tf.abs, "Abs": tf.abs, "Negative": tf.negative, "Exp": tf.exp,
            "Log": tf.math.log, "Log1p": tf.math.log1p, "Expm1": tf.math.expm1,
            "Sqrt": tf.sqrt, "Rsqrt": tf.math.rsqrt, "Square": tf.square, "Sign": tf.sign,
            "Reciprocal": tf.math.reciprocal, "Floor": tf.floor, "Ceil": tf.math.ceil,
            "Sin": tf.sin, "Cos": tf.cos, "Erf": tf.math.erf, "Tanh": tf.tanh,
            "Relu": tf.nn.relu, "Relu6": tf.nn.relu6, "Sigmoid": tf.sigmoid,
            "Softplus": tf.nn.softplus, "Softsign": tf.nn.softsign, "Selu": tf.nn.selu,
            "Silu": activations.silu, "HardSigmoid": activations.hard_sigmoid,
            "HardSilu": activations.hard_silu, "LogSigmoid": activations.log_sigmoid,
            "Where": tf.where, "ZerosLike": tf.zeros_like, "OnesLike": tf.ones_like,
        }.items()
    },
    **{
        name: (_reduced(function), REDUCED)
        for name, function in {
            "Mean": tf.reduce_mean, "Sum": tf.reduce_sum, "Max": tf.reduce_max,
            "Min": tf.reduce_min, "Prod": tf.reduce_prod,
        }.items()
    },
    "Clip": (_clip, _of("x_min", "x_max")),
    "Softmax": (tf.nn.softmax, AXIS),
    "LogSoftmax": (tf.nn.log_softmax, AXIS),
    "LeakyRelu": (activations.leaky_relu, _of("negative_slope")),
    "Gelu": (activations.gelu, _of("approximate")),
    "Reshape": (_reshape, _of("newshape")),
    "Transpose": (
        lambda x, axes=None: tf.transpose(x, axes),
        _of("axes"),
    ),
    "Squeeze": (_squeeze, AXIS),
    "ExpandDims": (lambda x, axis: tf.expand_dims(x, axis), AXIS),
    "Concatenate": (lambda xs, axis: tf.concat(xs, axis), AXIS),
    "Stack": (lambda xs, axis: tf.stack(xs, axis), AXIS),
    "Split": (_split, _of("indices_or_sections", "axis")),
    "Repeat": (_repeat, _of("repeats", "axis")),
    "Tile": (lambda x, repeats: tf.tile(x, repeats), _of("repeats")),
    "Flip": (_flip, AXIS),
    "Swapaxes": (_swapaxes, _of("axis1", "axis2")),
    "Moveaxis": (_moveaxis, _of("source", "destination")),
    "Pad": (_pad, _of("pad_width", "mode")),
    "Take": (_take, AXIS),
    "Einsum": (lambda *xs, subscripts: tf.einsum(subscripts, *xs), _of("subscripts")),
    "Cast": (lambda x, dtype: tf.cast(x, dtype), _of("dtype")),
}  # fmt: skip


def function_of(operation: Any) -> Call:
    """Return an operation as a function on tensors of TensorFlow.

    What is not in the table is computed as Keras 3 does on its TensorFlow backend.
    """
    known = TABLE.get(type(operation).__name__)
    if known is not None and type(operation).__module__.startswith("keras."):
        function, settings = known
        options = settings(operation)
        return lambda *args, **kwargs: function(*args, **kwargs, **options)

    def compute(*args, **kwargs):
        import keras

        name = f"{type(operation).__name__} (operation {operation.name!r})"
        if keras.backend.backend() != "tensorflow":
            raise UnsupportedModelError(
                f"keras_edgeq does not know {name}, and computes others only where Keras has its "
                "TensorFlow backend: set KERAS_BACKEND=tensorflow before Keras is imported."
            )
        try:
            return operation.call(*args, **kwargs)
        except Exception as error:  # whatever the backend meets in symbolic tensors
            raise UnsupportedModelError(
                f"keras_edgeq does not know {name}, and its TensorFlow form cannot be traced: "
                f"{' '.join(str(error).split())[:300]}"
            ) from error

    return compute
