"""How close an approximation is to its reference."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Steps(NamedTuple):
    """Distance of two integer tensors, in grid steps.

    Attributes:
        max: largest absolute difference.
        mean: mean absolute difference.
        identical_share: share of equal integers, 0 to 1.
    """

    max: int
    mean: float
    identical_share: float


def sqnr_db(reference: ArrayLike, approximation: ArrayLike) -> float:
    """Measure the signal-to-quantization-noise ratio, `10 log10(sum r^2 / sum (r - a)^2)`.

    Args:
        reference: real array.
        approximation: real array of the same shape.

    Returns:
        Decibels; infinity where both are equal, minus infinity where only the reference is zero.

    Raises:
        ValueError: the shapes differ or are empty.

    Example:
        >>> round(sqnr_db([1.0, 1.0], [1.1, 1.1]), 6)
        20.0
    """
    r, a = _pair(reference, approximation, np.float64)
    return ratio_db(float(np.sum(np.square(r))), float(np.sum(np.square(r - a))))


def ratio_db(signal: float, noise: float) -> float:
    """Return the ratio of two powers in decibels, infinite as in `sqnr_db`."""
    if noise == 0.0:
        return math.inf
    return 10.0 * math.log10(signal / noise) if signal else -math.inf


def top1(logits: ArrayLike) -> NDArray[np.intp]:
    """Return the index of the largest score on the last axis; the lowest index wins a tie."""
    return np.argmax(np.asarray(logits), axis=-1)


def agreement(a: ArrayLike, b: ArrayLike) -> float:
    """Measure how often two sets of scores, `[..., classes]`, have the same `top1`, in percent.

    Raises:
        ValueError: the shapes differ or are empty.
    """
    a, b = _pair(a, b, None)
    return 100.0 * float(np.mean(top1(a) == top1(b)))


def steps(a: ArrayLike, b: ArrayLike) -> Steps:
    """Compare integer tensors of one grid.

    Raises:
        ValueError: the shapes differ or are empty.

    Example:
        >>> steps([1, 2, 3, 4], [1, 2, 3, 6])
        Steps(max=2, mean=0.5, identical_share=0.75)
    """
    a, b = _pair(a, b, np.int64)
    distance = np.abs(a - b)
    return Steps(int(distance.max()), float(distance.mean()), float(np.mean(distance == 0)))


def _pair(a: ArrayLike, b: ArrayLike, dtype) -> tuple[NDArray, NDArray]:
    """Return both as arrays of one shape that is not empty."""
    a, b = np.asarray(a, dtype), np.asarray(b, dtype)
    if a.shape != b.shape or not a.size:
        raise ValueError(f"Shapes {a.shape} and {b.shape} must be equal and not empty.")
    return a, b
