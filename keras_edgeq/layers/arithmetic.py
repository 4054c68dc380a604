"""Where a sim rounds: all of its rounding operations in one record, which a check can exchange."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from keras_edgeq.numerics.dynamic_rows import round_rows
from keras_edgeq.numerics.round_to_half import round_to_half
from keras_edgeq.numerics.round_to_steps import round_to_steps, scale_sums


class Arithmetic(NamedTuple):
    """The rounding operations of a sim's layers.

    Args:
        to_half: real numbers to half precision.
        to_steps: real numbers of steps to whole ones inside of bounds (`round_to_steps`).
        scale_sums: sums times a factor, as a kernel rounds them before it rounds again.
        whole: a positive number of steps to the nearest whole one.
        rows: each row of a tensor to a grid of its own (`round_rows`).
    """

    to_half: Callable[[Any], Any]
    to_steps: Callable[..., Any]
    scale_sums: Callable[[Any, Any], Any]
    whole: Callable[[Any], Any]
    rows: Callable[[Any, Any], Any]


def _clipped(ratio: tf.Tensor, low: Any, high: Any, *_: Any):
    return tf.maximum(tf.minimum(ratio, high), low)


ROUNDED = Arithmetic(round_to_half, round_to_steps, scale_sums, tf.round, round_rows)
# What is left of a sim without rounding: its units, its caps, and who reads which tensor.
UNROUNDED = Arithmetic(
    tf.identity,
    _clipped,
    lambda sums, factor: sums * tf.cast(factor, tf.float32),
    tf.identity,
    lambda x, axes: x,
)
