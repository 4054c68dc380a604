"""Find the rounding of a unit's weights that keeps what the unit computes: the loop of AdaRound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_edgeq.ptq.adaround.soft_rounding import (
    beta_at,
    logits_of,
    rounding_penalty,
    soft_rounding,
)

# forward(inputs, fixed, kernels in steps, seed) -> outputs, channels last
Forward = Callable[[list, list, list, Any], Any]
# draw(iteration) -> inputs, targets, and how many iterations they are good for
Draw = Callable[[int], tuple[list, Any, int]]
CHUNK = 50
# A rounding this near to 0 or 1 is decided.
DECIDED = 0.02
# With an early stop: the loop's steps are larger than those of the long schedule by this factor,
# and the penalty by as much as the schedule is shorter.
HASTE = 10.0
# The warm phase ends when half of it has won less than this share of the error.
PLATEAU = 0.02
LEAST_WARM = 200
ADAM = (0.9, 0.999, 1e-7)


@dataclass(frozen=True)
class Settings:
    """How rounding is optimised; see `adaround`."""

    iterations: int = 10_000
    regularization: float = 0.01
    beta: tuple[float, float] = (20.0, 2.0)
    warm_start: float = 0.2
    learning_rate: float = 1e-3
    early_stop: bool = True
    start: str = "gptq"
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Candidates:
    """The two neighbouring integers between which each weight of a kernel is rounded.

    Args:
        low: the lower one.
        share: how far towards the upper one rounding starts, 0 to 1.
        start: what the weight is rounded to before, one of the two.
    """

    low: NDArray
    share: NDArray
    start: NDArray

    @classmethod
    def around(cls, ratio: NDArray, start: NDArray, least, most, trust: float) -> Candidates:
        """Return the start and its neighbour in the direction of the float weight.

        Args:
            ratio: float weights in steps of their grid.
            start: integers.
            least: smallest integer of the grid, broadcastable.
            most: largest.
            trust: 0 begins at the float weight, 1 at the start.
        """
        low = np.clip(np.where(ratio > start, start, start - 1.0), least, most - 1.0)
        share = trust * (start - low) + (1.0 - trust) * np.clip(ratio - low, 0.0, 1.0)
        return cls(*(values.astype(np.float32) for values in (low, share, start)))


@dataclass(frozen=True, eq=False)
class Rounding:
    """What the loop found.

    Args:
        kernels: integers, one array per kernel.
        iterations: how many were run.
        undecided: weights that were still between the ends.
    """

    kernels: list[NDArray]
    iterations: int
    undecided: int


def make_loop(forward: Forward, batch: int) -> Callable:
    """Return a function, traced once, that runs some iterations on random samples.

    Its arguments: samples on the first axis of inputs and targets; what `forward` needs besides;
    the lower integers; the optimizer's state; numbers.
    """

    def loop(inputs, targets, fixed, lows, state, numbers):
        first, count, warm, total, beta, weight, rate, seed = numbers
        power = tf.maximum(tf.reduce_mean(tf.square(targets)), 1e-30)
        size = tf.shape(targets)[0]

        def body(i, state, spent):
            key = tf.stack([seed, i])
            at = tf.random.stateless_uniform([batch], key, 0, size, tf.int32)
            x, y = [tf.gather(t, at) for t in inputs], tf.gather(targets, at)
            number, (logits, *moments) = tf.cast(i, tf.float32), state
            with tf.GradientTape() as tape:
                tape.watch(logits)
                shares = [soft_rounding(v) for v in logits]
                kernels = [a + h for a, h in zip(lows, shares, strict=True)]
                made = forward(x, fixed, kernels, key)
                error = reconstruction_error(made, y)
                exponent = beta_at(number, warm, total, beta)
                penalty = tf.add_n([rounding_penalty(h, exponent) for h in shares])
                loss = error / power + tf.where(number < warm, 0.0, weight) * penalty
            slopes = tape.gradient(loss, logits)
            return i + 1, _adam(logits, moments, slopes, rate, number + 1.0), spent + error

        begin = (first, state, tf.constant(0.0))
        _, state, spent = tf.while_loop(lambda i, *_: i < first + count, body, begin)
        shares = [soft_rounding(v) for v in state[0]]
        between = [tf.minimum(h, 1.0 - h) > DECIDED for h in shares]
        undecided = tf.add_n([tf.reduce_sum(tf.cast(b, tf.int32)) for b in between])
        return state, spent / tf.cast(count, tf.float32), undecided

    return tf.function(loop, autograph=False, reduce_retracing=True)


def reconstruction_error(made, wanted):
    """Return the squared error summed over channels, averaged over everything else."""
    return tf.reduce_mean(tf.reduce_sum(tf.math.squared_difference(made, wanted), -1))


def optimise(
    loop: Callable, draw: Draw, fixed: list, candidates: Sequence[Candidates], settings: Settings
) -> Rounding:
    """Run the loop until every weight is decided, or to the end of its schedule.

    The error counts relative to the mean power of the wanted outputs, so that the penalty weighs
    alike in every unit; where that power is 1, as behind a batch norm, it is the paper's.

    With `early_stop` the schedule follows the error: the phase without penalty ends once the error
    stops falling, and the penalty then takes as long, in proportion, as in the full schedule.
    """
    lows = [tf.constant(c.low) for c in candidates]
    logits = [tf.constant(logits_of(c.share)) for c in candidates]
    state = (logits, [tf.zeros_like(v) for v in logits], [tf.zeros_like(v) for v in logits])
    total, warm = settings.iterations, int(settings.warm_start * settings.iterations)
    rate, weight = settings.learning_rate, settings.regularization
    if settings.early_stop:
        rate *= HASTE
    i, undecided, errors, waiting = 0, 1, [], settings.early_stop and warm > 0
    inputs, targets, good_for = [], None, 0
    while i < total and (undecided or not settings.early_stop or i <= warm):
        if not good_for:
            inputs, targets, good_for = draw(i)
        count = min(CHUNK, total - i, good_for, warm - i if i < warm else CHUNK)
        numbers = _numbers(settings, i, count, warm, total, weight, rate)
        state, error, undecided = loop(inputs, targets, fixed, lows, state, numbers)
        i, good_for, undecided = i + count, good_for - count, int(undecided)
        errors.append(float(error))
        if waiting and LEAST_WARM <= i < warm and _is_flat(errors):
            warm, total = i, min(round(i / settings.warm_start), total)
            weight *= settings.iterations / total
            waiting = False
    found = [c.low + (v.numpy() > 0.0) for c, v in zip(candidates, state[0], strict=True)]
    return Rounding(found, i, undecided)


def _numbers(settings, i, count, warm, total, weight, rate) -> list:
    floats = [float(warm), float(total), list(map(float, settings.beta)), weight, rate]
    return [
        *(tf.constant(v, tf.int32) for v in (i, count)),
        *(tf.constant(v, tf.float32) for v in floats),
        tf.constant(settings.seed, tf.int32),
    ]


def _is_flat(errors: list[float]) -> bool:
    """Tell whether the last quarter of the errors is hardly below the one before."""
    quarter = max(1, len(errors) // 4)
    now, before = np.mean(errors[-quarter:]), np.mean(errors[-2 * quarter : -quarter])
    return bool(now > (1.0 - PLATEAU) * before)


def _adam(logits, moments, slopes, rate, number):
    """Return the state after one step of Adam (Kingma and Ba 2015, arXiv:1412.6980)."""
    first, second, tiny = ADAM
    means, squares = moments
    means = [first * m + (1.0 - first) * g for m, g in zip(means, slopes, strict=True)]
    squares = [second * s + (1.0 - second) * g * g for s, g in zip(squares, slopes, strict=True)]
    step = rate * tf.sqrt(1.0 - tf.pow(second, number)) / (1.0 - tf.pow(first, number))
    moved = [
        v - step * m / (tf.sqrt(s) + tiny) for v, m, s in zip(logits, means, squares, strict=True)
    ]
    return moved, means, squares
