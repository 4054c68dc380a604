"""Grids that a kernel makes of each row when it runs: what hybrid kernels read float tensors on."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

LOW, HIGH = -128.0, 127.0


def round_rows(x, axes: Sequence[int]):
    """Return a tensor with each row rounded onto an 8-bit grid of its own, in real units.

    A row's grid reaches from its least to its greatest element, and holds zero. XNNPACK and LiteRT
    round so what a float tensor brings to int8 or int4 weights (`asymmetric_quantize_inputs`). The
    gradient passes straight through.

    Args:
        x: float32 tensor.
        axes: of the elements of a row, which the products are summed over.

    Example:
        >>> round_rows(tf.constant([[0.0, 0.5, 255.0], [0.0, 0.5, 1.0]]), [-1]).numpy().round(3)
        array([[  0.   ,   0.   , 255.   ],
               [  0.   ,   0.502,   1.   ]], dtype=float32)
    """
    least = tf.minimum(tf.reduce_min(x, axis=axes, keepdims=True), 0.0)
    most = tf.maximum(tf.reduce_max(x, axis=axes, keepdims=True), 0.0)
    span = most - least
    steps = tf.where(span > 0.0, (HIGH - LOW) / tf.where(span > 0.0, span, 1.0), 1.0)
    low, high = least * steps, most * steps
    zero = tf.where(LOW + low + HIGH + high > 0.0, LOW - low, HIGH - high)
    zero = tf.round(tf.clip_by_value(zero, LOW, HIGH))
    integers = tf.clip_by_value(tf.round(x * steps) + zero, LOW, HIGH)
    return x + tf.stop_gradient((integers - zero) / steps - x)
