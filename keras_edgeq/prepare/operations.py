"""Functions without a kernel of their own, written with operations that have one."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.name_operations import name_operations
from keras_edgeq.graph.rebuild import Call, calls, rebuild
from keras_edgeq.prepare.products import dot, einsum
from keras_edgeq.spec.tensor_ref import part_name

L = tf_keras.layers
# Stands for no bound; an infinite one is not a number that a grid rounds.
FARTHEST = float(np.finfo(np.float32).max)

# Each of the functions below takes what a function of TensorFlow, or a Keras layer, is called with,
# and returns equal numbers; None where it cannot.
Rewrite = Callable[..., Any]


def write_with_known_operations(model: tf_keras.Model) -> tf_keras.Model:
    """Return the model with functions that have no kernel written with operations that have one.

    What a function becomes keeps its layer's name; the operations in front of it are its parts.

    Args:
        model: a functional model without models inside; it is not changed.
    """
    if not any(_rewrite(call.layer) for call in calls(model)):
        return model
    names: dict[int, Iterator[str]] = {}

    def on_call(call: Call, new: Any, args: tuple, kwargs: dict) -> Any:
        function = _rewrite(call.layer)
        if function is None or not _is_real(call):
            return new(*args, **kwargs)
        made = function(*args, **kwargs)
        if made is None:
            return new(*args, **kwargs)
        read = [t for t in tf.nest.flatten((args, kwargs)) if keras_compat.is_keras_tensor(t)]
        known = {id(keras_compat.producer(tensor)[0]) for tensor in read}
        name_operations(made, known, names.setdefault(id(call.layer), _names(call.layer.name)))
        return made

    return rebuild(model, on_call=on_call)


def _rewrite(layer: Any) -> Rewrite | None:
    symbol = keras_compat.op_symbol(layer)
    if symbol is not None:
        return FUNCTIONS.get(symbol.removeprefix("compat.v1."))
    return LAYERS[type(layer)](layer) if type(layer) in LAYERS else None


def _is_real(call: Call) -> bool:
    """Tell whether a call reads and makes float32 tensors, with the batch as their first axis."""
    tensors = [*call.reads, *tf.nest.flatten(call.node.outputs)]
    return bool(call.reads) and all(t.dtype == tf.float32 and t.shape.rank for t in tensors)


def _names(name: str) -> Iterator[str]:
    return itertools.chain([name], (part_name(name, str(n)) for n in itertools.count(1)))


def _is_constant(value: Any) -> bool:
    return not any(map(keras_compat.is_keras_tensor, tf.nest.flatten(value)))


def _as_scalar(value: Any) -> float | None:
    """Return a constant of one number, None for anything else."""
    return float(np.ravel(value)[0]) if _is_constant(value) and np.size(value) == 1 else None


def _axes(x: Any, axis: Any) -> tuple[int, ...]:
    """Return axes counted from the front; none if they are no constants or the batch is one."""
    if axis is None or not _is_constant(axis):
        return ()
    axes = tuple(int(a) % x.shape.rank for a in np.ravel(axis))
    return () if 0 in axes else axes


def _sizes(x: Any, axis: Any) -> dict[int, int]:
    """Return the sizes of axes; none if one is unknown."""
    sizes = {a: x.shape[a] for a in _axes(x, axis)}
    return {} if None in sizes.values() else sizes


# What computes nothing.


def _cast(x, dtype, name=None):
    del name
    return tf.identity(x) if tf.as_dtype(dtype) == x.dtype else None


def _converted(value, *_, **__):
    return tf.identity(value)


def _with_shape(x, shape, name=None):
    del name
    return tf.identity(x) if x.shape.merge_with(shape).as_list() == x.shape.as_list() else None


# What moves numbers.


def _repeat(input, repeats, axis=None, name=None):  # TensorFlow's names
    del name
    sizes = _sizes(input, axis)
    if len(sizes) != 1 or not _is_constant(repeats):
        return None
    ((along, size),) = sizes.items()
    return tf.gather(input, np.repeat(np.arange(size), repeats).tolist(), axis=along)


def _roll(input, shift, axis, name=None):
    del name
    sizes = _sizes(input, axis)
    if len(sizes) != np.size(axis) or not _is_constant(shift):
        return None
    for (along, size), steps in zip(sizes.items(), np.ravel(shift), strict=True):
        input = tf.gather(input, np.roll(np.arange(size), int(steps)).tolist(), axis=along)
    return input


def _reverse(tensor, axis, name=None):
    del name
    axes = _axes(tensor, axis)
    if not axes:
        return None
    order = [slice(None, None, -1 if a in axes else None) for a in range(tensor.shape.rank)]
    return tensor[tuple(order)]


def _flip(axis: int) -> Rewrite:
    def flip(image):
        return _reverse(image, axis) if image.shape.rank == 4 else None

    return flip


def _transpose_image(image, name=None):
    del name
    return tf.transpose(image, [0, 2, 1, 3]) if image.shape.rank == 4 else None


def _transpose_matrix(a, name="matrix_transpose", conjugate=False):
    del name, conjugate  # real numbers are their own conjugates
    *others, row, column = range(a.shape.rank)
    return tf.transpose(a, [*others, column, row]) if others else None


def _crop(image, offset_height, offset_width, target_height, target_width):
    sides = (offset_height, offset_width, target_height, target_width)
    if image.shape.rank != 4 or any(_as_scalar(side) is None for side in sides):
        return None
    top, left, height, width = (int(_as_scalar(side) or 0) for side in sides)
    return image[:, top : top + height, left : left + width]


def _center_crop(layer: Any) -> Rewrite:
    def crop(inputs, **_):
        sizes = _sizes(inputs, (1, 2)) if inputs.shape.rank == 4 else {}
        if not sizes or sizes[1] < layer.height or sizes[2] < layer.width:
            return None  # it resizes
        starts = (sizes[1] - layer.height) // 2, (sizes[2] - layer.width) // 2
        return _crop(inputs, *starts, layer.height, layer.width)

    return crop


# What caps numbers.


def _clip(t, clip_value_min, clip_value_max, name=None):
    del name
    least, most = _as_scalar(clip_value_min), _as_scalar(clip_value_max)
    if least is None or most is None or least > most:
        return None
    if least == 0.0 and most in (6.0, FARTHEST, np.inf):
        return tf.nn.relu6(t) if most == 6.0 else tf.nn.relu(t)
    return tf.clip_by_value(t, max(least, -FARTHEST), min(most, FARTHEST))


def _maximum(x, y, name=None):
    del name
    x, least = (y, x) if _is_constant(x) else (x, y)
    least = _as_scalar(least)
    if least is None:
        return None
    return tf.nn.relu(x) if least == 0.0 else tf.clip_by_value(x, least, FARTHEST)


def _minimum(x, y, name=None):
    del name
    x, most = (y, x) if _is_constant(x) else (x, y)
    most = _as_scalar(most)
    return None if most is None else tf.clip_by_value(x, -FARTHEST, most)


# Arithmetic.


def _negative(x, name=None):
    del name
    return x * -1.0


def _square(x, name=None):
    del name
    return x * x


def _power(x, y, name=None):
    del name
    exponent = None if _is_constant(x) else _as_scalar(y)
    powers = {1.0: lambda: tf.identity(x), 2.0: lambda: x * x, 3.0: lambda: x * x * x}
    powers[4.0] = lambda: _square(x * x)
    return powers[exponent]() if exponent in powers else None


def _squared_difference(x, y, name=None):
    del name
    return _square(x - y)


def _scaled(scalar, x, name=None):
    del name
    return x * scalar if _as_scalar(scalar) is not None else scalar * x


def _divide_no_nan(x, y, name=None):
    del name
    divisor = _as_scalar(y)
    return x * (1.0 / divisor) if divisor else None


def _bias_add(value, bias, data_format=None, name=None):
    del name
    first = str(data_format or "").upper().startswith("NC")
    return value + bias if _is_constant(bias) and not first else None


def _sum(inputs, *_, **__):
    return _chained(tf.add, inputs) if len(inputs) > 1 else tf.identity(inputs[0])


def _reduce_sum(input_tensor, axis=None, keepdims=False, name=None):
    """Return the mean times the number of elements: a sum has the integers of its mean."""
    del name
    sizes = _sizes(input_tensor, axis)
    if not sizes:
        return None
    mean = tf.reduce_mean(input_tensor, axis=list(sizes), keepdims=bool(keepdims))
    return mean * float(prod(sizes.values()))


def _chained(function: Callable, inputs: list) -> Any:
    """Return a function of two operands applied to several, one after the other."""
    if len({tensor.shape.rank for tensor in inputs}) > 1:
        return None  # Keras and TensorFlow align axes differently
    return functools.reduce(function, inputs)


def _several(function: Callable) -> Callable[[Any], Rewrite]:
    """Return the rewriting of a Keras layer that takes more operands than a kernel has."""

    def of_layer(_: Any) -> Rewrite:
        return lambda inputs: _chained(function, inputs) if len(inputs) > 2 else None

    return of_layer


def _average(_: Any) -> Rewrite:
    def average(inputs):
        total = _chained(tf.add, inputs)
        return None if total is None else total * (1.0 / len(inputs))

    return average


# By the public name of a function of TensorFlow, without `compat.v1.`.
FUNCTIONS: Mapping[str, Rewrite] = {
    "cast": _cast,
    "convert_to_tensor": _converted,
    "ensure_shape": _with_shape,
    "repeat": _repeat,
    "roll": _roll,
    "reverse": _reverse,
    "image.flip_left_right": _flip(2),
    "image.flip_up_down": _flip(1),
    "image.transpose": _transpose_image,
    "image.crop_to_bounding_box": _crop,
    "linalg.matrix_transpose": _transpose_matrix,
    "clip_by_value": _clip,
    "math.maximum": _maximum,
    "math.minimum": _minimum,
    "math.negative": _negative,
    "math.square": _square,
    "math.pow": _power,
    "math.squared_difference": _squared_difference,
    "math.scalar_mul": _scaled,
    "math.divide_no_nan": _divide_no_nan,
    "math.add_n": _sum,
    "math.accumulate_n": _sum,
    "math.reduce_sum": _reduce_sum,
    "nn.bias_add": _bias_add,
    "einsum": einsum,
}
# By the class of a layer, for the layer.
LAYERS: Mapping[type, Callable[[Any], Rewrite]] = {
    L.Add: _several(tf.add),
    L.Multiply: _several(tf.multiply),
    L.Maximum: _several(tf.maximum),
    L.Minimum: _several(tf.minimum),
    L.Average: _average,
    L.Dot: dot,
    L.CenterCrop: _center_crop,
}
