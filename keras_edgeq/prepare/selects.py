"""`tf.where` with numbers where it is given tensors that hold one number."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from keras_edgeq.graph import keras_compat
from keras_edgeq.ops.operands import as_number
from keras_edgeq.prepare.arguments import is_constant

ZEROS, ONES = ("zeros_like", "zeros"), ("ones_like", "ones")


def select(condition, x=None, y=None, name=None):
    """Return `tf.where` of a boolean tensor, with numbers for tensors that hold one number."""
    del name
    if x is None or y is None:
        return None
    return tf.where(_as_bool(condition), _simplest(x), _simplest(y))


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


def _as_bool(condition: Any) -> Any:
    return condition if condition.dtype == tf.bool else tf.cast(condition, tf.bool)
