"""Which weights jump back and forth between two integers, and where they settle."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf


class Track(NamedTuple):
    """What is known of the integers of a kernel; float32 tensors of its shape but for `frozen`.

    Args:
        integer: the present ones, in steps from the zero point.
        direction: of the last change, -1 or 1; 0 before the first.
        frequency: moving average of how often the direction turns per step.
        average: moving average of the integers; of a frozen weight its integer.
        frozen: bool, whether the weight stays at its integer.
    """

    integer: tf.Tensor
    direction: tf.Tensor
    frequency: tf.Tensor
    average: tf.Tensor
    frozen: tf.Tensor


def start(integers) -> Track:
    """Return what is known before the first step."""
    zeros = tf.zeros_like(integers)
    return Track(integers, zeros, zeros, integers, tf.zeros_like(integers, tf.bool))


def follow(track: Track, integers, momentum: float, threshold) -> Track:
    """Return what is known after a step that led to these integers.

    A weight oscillates in a step that changes its integer in the other direction than the last
    change. One whose frequency exceeds the threshold is frozen to the average of its integers
    before the step, rounded, which is where it was most of the time.

    Reference:
        Nagel et al. 2022, "Overcoming Oscillations in Quantization-Aware Training",
        arXiv:2203.11086, section 4.3 and algorithm 1.
    """
    integers = tf.where(track.frozen, track.average, integers)
    change = tf.sign(integers - track.integer)
    turned = tf.cast(tf.equal(change * track.direction, -1.0), tf.float32)
    frequency = momentum * turned + (1.0 - momentum) * track.frequency
    settles = ~track.frozen & (frequency > threshold)
    moved = momentum * integers + (1.0 - momentum) * track.average
    average = tf.where(settles, tf.round(track.average), moved)
    average = tf.where(track.frozen, track.average, average)
    frozen = track.frozen | settles
    return Track(
        integer=tf.where(frozen, average, integers),
        direction=tf.where(tf.equal(change, 0.0), track.direction, change),
        frequency=frequency,
        average=average,
        frozen=frozen,
    )
