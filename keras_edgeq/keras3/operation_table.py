"""Functions on tensors of TensorFlow for the operations of `keras.ops`, by class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

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


def _hard_tanh(x):
    return tf.clip_by_value(x, -1.0, 1.0)


def _elu(x, alpha=1.0):
    return tf_keras.activations.elu(x, alpha=alpha)


def _inner(x1, x2):
    return tf.tensordot(x1, x2, [[-1], [-1]])


def _ravel(x):
    return tf.reshape(x, [-1])


def _index_of(function: Call) -> Call:
    def compute(x, axis=None, keepdims=False):
        made = function(_ravel(x) if axis is None else x, axis=axis or 0, output_type=tf.int32)
        return tf.expand_dims(made, axis) if keepdims and axis is not None else made

    return compute


def _hstack(xs):
    return tf.concat(xs, 1 if len(xs[0].shape) > 1 else 0)


def _vstack(xs):
    return tf.concat(xs, 0) if len(xs[0].shape) > 1 else tf.stack(xs, 0)


def _dstack(xs):
    return tf.concat(xs, 2) if len(xs[0].shape) > 2 else tf.stack(xs, 2)


def _hsplit(x, indices_or_sections):
    return _split(x, indices_or_sections, 1 if len(x.shape) > 1 else 0)


def _append(x1, x2, axis=None):
    return tf.concat([_ravel(x1), _ravel(x2)], 0) if axis is None else tf.concat([x1, x2], axis)


def _roll(x, shift, axis=None):
    if axis is None:
        return tf.reshape(tf.roll(_ravel(x), shift, 0), tf.shape(x))
    return tf.roll(x, shift, axis)


def _rot90(x, k=1, axes=(0, 1)):
    first, second = axes
    for _ in range(k % 4):
        x = _flip(_swapaxes(x, first, second), first)
    return x


def _diff(x, n=1, axis=-1):
    for _ in range(n):
        before, after = (slice(0, -1), slice(1, None))
        inner = [slice(None)] * (axis % len(x.shape))
        x = x[(*inner, after)] - x[(*inner, before)]
    return x


def _take_along_axis(x, indices, axis=None):
    if axis is None:
        return tf.gather(_ravel(x), _ravel(indices))
    last = _moveaxis(x, axis, -1)
    found = tf.gather(last, _moveaxis(indices, axis, -1), batch_dims=len(x.shape) - 1)
    return _moveaxis(found, -1, axis)


def _diagonal(x, offset=0, axis1=0, axis2=1):
    return tf.linalg.diag_part(_moveaxis(x, (axis1, axis2), (-2, -1)), k=offset)


def _trace(x, offset=0, axis1=0, axis2=1):
    return tf.reduce_sum(_diagonal(x, offset, axis1, axis2), axis=-1)


def _cholesky(x, upper=False):
    found = tf.linalg.cholesky(x)
    return tf.linalg.matrix_transpose(found) if upper else found


def _pooled(function: Call) -> Call:
    def compute(x, pool_size, strides=None, padding="valid", data_format=None):
        _channels_last(data_format)
        return function(x, pool_size, strides or pool_size, padding.upper())

    return compute


def _conv(x, kernel, strides=1, padding="valid", data_format=None, dilation_rate=1):
    _channels_last(data_format)
    # `tf.nn.convolution` keeps no constant kernel that targets know.
    function = {3: tf.nn.conv1d, 4: tf.nn.conv2d}.get(len(x.shape))
    if function is None:
        return tf.nn.convolution(x, kernel, strides, padding.upper(), dilations=dilation_rate)
    return function(x, kernel, strides, padding.upper(), dilations=dilation_rate)


def _resize(
    x, size, interpolation="bilinear", antialias=False, crop_to_aspect_ratio=False,
    pad_to_aspect_ratio=False, data_format=None,
):  # fmt: skip
    _channels_last(data_format)
    if pad_to_aspect_ratio:
        raise NotImplementedError
    if crop_to_aspect_ratio:
        return tf_keras.layers.Resizing(*size, interpolation, crop_to_aspect_ratio=True)(x)
    return tf.image.resize(x, size, method=interpolation, antialias=antialias)


def _channels_last(data_format: str | None) -> None:
    if data_format == "channels_first":
        raise NotImplementedError


POOL = _of("pool_size", "strides", "padding", "data_format")
AXIS, REDUCED = _of("axis"), _of("axis", "keepdims")

# A function raises NotImplementedError for settings that Keras' own form has to compute.
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
            "Fabs": tf.abs, "Copy": tf.identity, "StopGradient": tf.stop_gradient,
            "Equal": tf.equal, "NotEqual": tf.not_equal, "Greater": tf.greater,
            "GreaterEqual": tf.greater_equal, "Less": tf.less, "LessEqual": tf.less_equal,
            "Isnan": tf.math.is_nan,
            "Arctan2": tf.atan2, "Arctan": tf.atan, "Arcsin": tf.asin,
            "Arccos": tf.acos, "Arcsinh": tf.asinh, "Arccosh": tf.acosh, "Arctanh": tf.atanh,
            "Tan": tf.tan, "Sinh": tf.sinh, "Cosh": tf.cosh, "Erfinv": tf.math.erfinv,
            "HardTanh": _hard_tanh, "Inner": _inner, "Det": tf.linalg.det, "Inv": tf.linalg.inv,
            "Solve": tf.linalg.solve, "Ravel": _ravel, "Mod": tf.math.floormod,
            "FloorDivide": tf.math.floordiv, "Hstack": _hstack, "Vstack": _vstack,
            "Dstack": _dstack,
        }.items()
    },
    **{
        name: (_reduced(function), REDUCED)
        for name, function in {
            "Mean": tf.reduce_mean, "Sum": tf.reduce_sum, "Max": tf.reduce_max,
            "Min": tf.reduce_min, "Prod": tf.reduce_prod, "Amax": tf.reduce_max,
            "Amin": tf.reduce_min, "All": tf.reduce_all, "Any": tf.reduce_any,
            "Var": tf.math.reduce_variance, "Std": tf.math.reduce_std,
            "Logsumexp": tf.reduce_logsumexp,
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
    "Elu": (_elu, _of("alpha")),
    "Argmax": (_index_of(tf.argmax), REDUCED),
    "Argmin": (_index_of(tf.argmin), REDUCED),
    "Hsplit": (_hsplit, _of("indices_or_sections")),
    "Vsplit": (lambda x, indices_or_sections: _split(x, indices_or_sections, 0),
               _of("indices_or_sections")),
    "Dsplit": (lambda x, indices_or_sections: _split(x, indices_or_sections, 2),
               _of("indices_or_sections")),
    "Append": (_append, AXIS),
    "Unstack": (lambda x, axis: tf.unstack(x, axis=axis), AXIS),
    "Rot90": (_rot90, _of("k", "axes")),
    "Roll": (_roll, _of("shift", "axis")),
    "Diff": (_diff, _of("n", "axis")),
    "TakeAlongAxis": (_take_along_axis, AXIS),
    "Diagonal": (_diagonal, _of("offset", "axis1", "axis2")),
    "Trace": (_trace, _of("offset", "axis1", "axis2")),
    "Cholesky": (_cholesky, _of("upper")),
    "InTopK": (lambda targets, predictions, k: tf.math.in_top_k(targets, predictions, k),
               _of("k")),
    "MaxPool": (_pooled(tf.nn.max_pool), POOL),
    "AveragePool": (_pooled(tf.nn.avg_pool), POOL),
    "Conv": (_conv, _of("strides", "padding", "data_format", "dilation_rate")),
    "Resize": (_resize, _of(
        "size", "interpolation", "antialias", "crop_to_aspect_ratio", "pad_to_aspect_ratio",
        "data_format",
    )),
    "Cast": (lambda x, dtype: tf.cast(x, dtype), _of("dtype")),
}  # fmt: skip
