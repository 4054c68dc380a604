"""Selections by a mask: `tf.where` with numbers, and the softmax of what a mask keeps."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import tensorflow as tf

from keras_edgeq.graph import keras_compat
from keras_edgeq.ops import op_type
from keras_edgeq.ops.operands import as_number
from keras_edgeq.ops.plain import SOFTMAX
from keras_edgeq.prepare.arguments import Rewrite, is_constant

# What Keras adds to masked scores.
MASKED = -1e9
ZEROS, ONES = ("zeros_like", "zeros"), ("ones_like", "ones")


def select(condition, x=None, y=None, name=None):
    """Return `tf.where` of a boolean tensor, with numbers for tensors that hold one number."""
    del name
    if x is None or y is None:
        return None
    return tf.where(_as_bool(condition), _simplest(x), _simplest(y))


def softmax(layer: Any) -> Rewrite:
    """Return what computes the function of a `Softmax` layer with a mask, or over other axes."""

    def masked_softmax(inputs, mask=None, **_):
        rank = inputs.shape.rank
        axes = sorted(int(axis) % rank for axis in np.ravel(layer.axis))
        if mask is None and op_type(layer) == SOFTMAX.name:
            return None
        if mask is not None:
            inputs = tf.where(_keeps(mask), inputs, MASKED)
        return softmax_over(inputs, axes)

    return masked_softmax


def softmax_over(x: Any, axes: list[int]) -> Any:
    """Return the softmax over some axes, in front of which the others stand in its computation."""
    rank = x.shape.rank
    order = [a for a in range(rank) if a not in axes] + axes
    back = [order.index(a) for a in range(rank)]
    sizes = [x.shape[a] for a in order]
    if 0 in axes or (len(axes) > 1 and sizes[1:].count(None) > 0):
        return None
    turned = order != sorted(order)
    moved = tf.transpose(x, order) if turned else x
    if len(axes) == 1:
        shares = tf.nn.softmax(moved)
    else:
        kept = sizes[1 : rank - len(axes)]
        shares = tf.nn.softmax(tf.reshape(moved, [-1, *kept, prod(sizes[-len(axes) :])]))
        shares = tf.reshape(shares, [-1, *sizes[1:]])
    return tf.transpose(shares, back) if turned else shares


def number_of(value: Any) -> float | None:
    """Return the number that a tensor or constant holds everywhere, None if it holds several."""
    if is_constant(value):
        held = np.unique(np.asarray(value))
        return float(held[0]) if held.size == 1 and held.dtype.kind in "fiu" else None
    node = keras_compat.producer(value)[1]
    symbol = (keras_compat.op_symbol(node.layer) or "").removeprefix("compat.v1.")
    if symbol in (*ZEROS, *ONES):
        return float(symbol in ONES)
    if symbol == "fill":
        return as_number(keras_compat.bound_arguments(node).get("value"))
    if symbol != "math.multiply":
        return None
    factors = [number_of(factor) for factor in keras_compat.operands(node)[:2]]
    if 0.0 in factors:
        return 0.0
    known = [factor for factor in factors if factor is not None]
    return float(np.prod(known)) if len(known) == len(factors) else None


def _simplest(value: Any) -> Any:
    number = number_of(value)
    return value if number is None else np.float32(number)


def _keeps(mask: Any) -> Any:
    """Return where a mask of booleans, or of zeros and ones, lets numbers pass."""
    return mask if mask.dtype == tf.bool else mask >= tf.cast(1, mask.dtype)


def _as_bool(condition: Any) -> Any:
    return condition if condition.dtype == tf.bool else tf.cast(condition, tf.bool)
