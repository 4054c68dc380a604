"""Arithmetic as sums, products, means and activations that have kernels.

Each is a `Rewrite` of the function of that name, or makes one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import tensorflow as tf

from keras_edgeq.ops.operands import as_number
from keras_edgeq.prepare.arguments import Rewrite, is_constant, sizes_of

# Stands for no bound; an infinite one is not a number that a grid rounds.
FARTHEST = float(np.finfo(np.float32).max)


def clip(t, clip_value_min, clip_value_max, name=None):
    """Return the clip between two numbers as an activation, where it is one."""
    del name
    least, most = as_number(clip_value_min), as_number(clip_value_max)
    if least is None or most is None or least > most:
        return None
    if least == 0.0 and most in (6.0, FARTHEST, np.inf):
        return tf.nn.relu6(t) if most == 6.0 else tf.nn.relu(t)
    return tf.clip_by_value(t, max(least, -FARTHEST), min(most, FARTHEST))


def maximum(x, y, name=None):
    """Return the maximum of a tensor and a number as an activation or a clip."""
    del name
    x, least = (y, x) if is_constant(x) else (x, y)
    least = as_number(least)
    if least is None:
        return None
    return tf.nn.relu(x) if least == 0.0 else tf.clip_by_value(x, least, FARTHEST)


def minimum(x, y, name=None):
    """Return the minimum of a tensor and a number as a clip."""
    del name
    x, most = (y, x) if is_constant(x) else (x, y)
    most = as_number(most)
    return None if most is None else tf.clip_by_value(x, -FARTHEST, most)


def negative(x, name=None):
    """Multiply by -1."""
    del name
    return x * -1.0


def square(x, name=None):
    """Multiply a tensor by itself."""
    del name
    return x * x


def power(x, y, name=None):
    """Multiply a tensor by itself, up to three times."""
    del name
    exponent = None if is_constant(x) else as_number(y)
    powers = {1.0: lambda: tf.identity(x), 2.0: lambda: x * x, 3.0: lambda: x * x * x}
    powers[4.0] = lambda: square(x * x)
    return powers[exponent]() if exponent in powers else None


def squared_difference(x, y, name=None):
    """Multiply a difference by itself."""
    del name
    return square(tf.subtract(x, y))


def scaled(scalar, x, name=None):
    """Multiply by a number, or by a tensor of one."""
    del name
    return x * scalar if as_number(scalar) is not None else scalar * x


def divide_no_nan(x, y, name=None):
    """Multiply by the inverse of a number; else select zero where the divisor is zero.

    LiteRT cannot run what its converter makes of this function and the next for five axes.
    """
    del name
    divisor = as_number(y)
    if divisor is not None:
        return x * (1.0 / divisor) if divisor else None
    return tf.where(tf.equal(y, 0.0), np.float32(0.0), tf.divide(x, y))


def multiply_no_nan(x, y, name=None):
    """Select zero where the second factor is zero."""
    del name
    return (
        None if is_constant(y) else tf.where(tf.equal(y, 0.0), np.float32(0.0), tf.multiply(x, y))
    )


def is_infinite(x, name=None):
    """Compare with the largest number: LiteRT's converter has that for infinity."""
    del name
    return tf.logical_or(x > FARTHEST, x < -FARTHEST)


def equal(x, y, name=None):
    """Compare with the largest number in place of infinity."""
    del name
    x, end = (y, x) if is_constant(x) else (x, y)
    end = as_number(end)
    if end is None or not np.isinf(end):
        return None
    return x > FARTHEST if end > 0.0 else x < -FARTHEST


def not_equal(x, y, name=None):
    """Compare with the largest number in place of infinity."""
    found = equal(x, y, name)
    return None if found is None else tf.logical_not(found)


def less(x, y, name=None):
    """Compare with the largest number in place of infinity."""
    del name
    if as_number(y) == np.inf:
        return x <= FARTHEST
    return y >= -FARTHEST if as_number(x) == -np.inf else None


def greater(x, y, name=None):
    """Compare with the largest number in place of infinity."""
    return less(y, x, name)


def bias_add(value, bias, data_format=None, name=None):
    """Add a constant per channel."""
    del name
    first = str(data_format or "").upper().startswith("NC")
    return value + bias if is_constant(bias) and not first else None


def add_all(inputs, *_, **__):
    """Add tensors, two at a time."""
    return _chained(tf.add, inputs) if len(inputs) > 1 else None


def reduce_sum(input_tensor, axis=None, keepdims=False, name=None):
    """Return the mean times the number of elements: a sum has the integers of its mean."""
    del name
    sizes = sizes_of(input_tensor, axis)
    if not sizes:
        return None
    mean = tf.reduce_mean(input_tensor, axis=list(sizes), keepdims=bool(keepdims))
    return mean * float(prod(sizes.values()))


def _chained(function: Callable, inputs: list) -> Any:
    """Return a function of two operands applied to several, one after the other."""
    if any(map(is_constant, inputs)) or len({tensor.shape.rank for tensor in inputs}) > 1:
        return None  # Keras and TensorFlow align axes of different ranks differently
    return functools.reduce(function, inputs)


def several(function: Callable) -> Callable[[Any], Rewrite]:
    """Return the rewriting of a Keras layer that takes more operands than a kernel has."""

    def of_layer(_: Any) -> Rewrite:
        return lambda inputs: _chained(function, inputs) if len(inputs) > 2 else None

    return of_layer


def relu(layer: Any) -> Rewrite:
    """Return a ReLU with a slope and a cap as a leaky one in front of a clip."""
    slope, most = float(layer.negative_slope or 0.0), layer.max_value

    def relu(x):
        if not slope or most is None or float(layer.threshold):
            return None
        return tf.clip_by_value(tf.nn.leaky_relu(x, slope), -FARTHEST, float(most))

    return relu


def thresholded_relu(layer: Any) -> Rewrite:
    """Return a ReLU with the threshold 0 as one without."""
    return lambda x: None if float(layer.theta) else tf.nn.relu(x)


def average(_: Any) -> Rewrite:
    """Add tensors, two at a time, and multiply by the inverse of their number."""

    def average(inputs):
        total = _chained(tf.add, inputs)
        return None if total is None else total * (1.0 / len(inputs))

    return average
