"""The range of least noise by AIMET's `tf_enhanced` rule, with clipped values counted threefold.

Reference:
    AIMET, https://github.com/quic/aimet, quantization scheme `post_training_tf_enhanced`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from keras_edgeq.numerics.affine import integer_bounds
from keras_edgeq.numerics.bins import Bins
from keras_edgeq.numerics.clip_search import GridKind

# Weight of the error of clipped values against that of rounded ones.
GAMMA = 3.0
# Steps of a candidate as shares of the step that spans all values.
ASYMMETRIC_FACTORS = np.arange(1, 18) / 16
SYMMETRIC_FACTORS = np.arange(1, 102) / 100
OFFSETS = 21
_TINY = np.finfo(np.float32).tiny


def sqnr_range(bins: Bins, grid: GridKind) -> tuple[NDArray, NDArray]:
    """Choose the range of the first candidate of least cost, each channel on its own.

    Args:
        bins: the values.
        grid: the grid to cover them with. AIMET's names: a symmetric grid is `strict` if it is
            narrow, `unsigned` if it is not signed.

    Returns:
        `(low, high)`, each `[channels]`, the ends of a grid with zero on it. By that, and by the
        largest factors, an end may lie beyond the values, by less than a step or by 1 %.
    """
    low, high = np.empty(len(bins.low)), np.empty(len(bins.low))
    for part, block in bins.blocks():
        step, offset = sqnr_grid(block, grid)
        steps, top = _steps(grid), integer_bounds(grid.bits, grid.signed, grid.narrow_range)[1]
        if grid.symmetric:
            low[part], high[part] = -step * top * grid.signed, step * top
        else:
            low[part], high[part] = step * offset, step * (offset + steps)
    return low, high


def sqnr_grid(bins: Bins, grid: GridKind) -> tuple[NDArray, NDArray]:
    """Choose the step and the offset, the real value of the lowest integer in steps.

    Returns:
        `(step, offset)`, each `[channels]`; the step of a channel of zeros is 0.
    """
    low, high = np.minimum(bins.low, 0.0), np.maximum(bins.high, 0.0)
    empty = high == low
    high = np.where(empty, 1.0, high)
    cost_of = _Cost(bins, 2**grid.bits - 1)
    step, offset, least = (np.full(len(low), value) for value in (0.0, 0.0, np.inf))
    candidates = _symmetric(low, high, grid) if grid.symmetric else _asymmetric(low, high, grid)
    for candidate, candidate_offset in candidates:
        cost = np.where(candidate > 0.0, cost_of(candidate, candidate_offset), np.inf)
        better = cost < least
        least = np.where(better, cost, least)
        step = np.where(better, candidate, step)
        offset = np.where(better, candidate_offset, offset)
    return np.where(empty, 0.0, step), offset


class _Cost:
    """The cost of a step and an offset, as AIMET sums it over the bins."""

    def __init__(self, bins: Bins, steps: int):
        # An empty bin on top, so that the last used one need not count as clipped.
        counts = np.pad(bins.counts, ((0, 0), (0, 1)))
        self.start, self.width, self.steps = bins.start, bins.width, steps
        self.share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
        self.index = np.arange(counts.shape[1])
        self.centers = bins.start[:, None] + (self.index + 0.5) * bins.width[:, None]
        self.below = self._clipped(self.share)
        # The bin at the clip end is itself clipped there, at no distance.
        self.above = self._clipped(self.share[:, ::-1])[:, ::-1]

    def __call__(self, step: NDArray, offset: NDArray) -> NDArray:
        step = np.where(step > 0.0, step, 1.0)
        first, stop = self._bin(step * offset), self._bin(step * (offset + self.steps))
        channels = np.arange(len(step))
        clipped = self.below[channels, first] + self.above[channels, stop]
        inside = (self.index >= first[:, None]) & (self.index < stop[:, None])
        error = self.centers / step[:, None]
        error -= np.rint(error)
        error *= inside
        rounding = np.einsum("cb,cb,cb->c", error, error, self.share)
        return GAMMA * clipped * self.width**2 + rounding * step**2

    def _bin(self, value: NDArray) -> NDArray:
        """Return the index of the bin that holds a value, or of the nearest."""
        index = np.floor((value - self.start) / self.width)
        return np.clip(index, 0, len(self.index) - 1).astype(np.int64)

    def _clipped(self, share: NDArray) -> NDArray:
        """Return, for each bin j, the sum over the bins i < j of `share_i * (i - j)**2`."""
        index = np.arange(share.shape[1])
        s, si, sii = (np.cumsum(share * index**power, axis=1) for power in range(3))
        return np.maximum(sii - 2 * index * si + index**2 * s, 0.0)


def _asymmetric(low: NDArray, high: NDArray, grid: GridKind) -> Iterator[tuple[NDArray, NDArray]]:
    """Yield steps with offsets; a step of 0 marks a candidate that a channel does not have."""
    steps = _steps(grid)
    observed = (high - low) / steps
    # AIMET holds it in float32, which decides ties of the offset on data symmetric about zero.
    observed = np.where(observed > _TINY, observed.astype(np.float32), observed)
    observed_offset = _round(low / observed)
    low, high = observed * observed_offset, observed * (observed_offset + steps)
    for factor in ASYMMETRIC_FACTORS:
        for i in range(OFFSETS):
            offset = np.trunc(-steps + steps / (OFFSETS - 1) * i)
            bottom, top = factor * observed * offset, factor * observed * (offset + steps)
            wider = (bottom < low) & (top > high)
            bottom, top = np.maximum(bottom, low), np.minimum(top, high)
            step = np.where(wider, 0.0, (top - bottom) / steps)
            yield step, _round(bottom / np.where(step > 0.0, step, 1.0))
    yield observed, observed_offset


def _symmetric(low: NDArray, high: NDArray, grid: GridKind) -> Iterator[tuple[NDArray, NDArray]]:
    steps = _steps(grid)
    largest = np.maximum(-low, high) / (steps / 2 if grid.signed else steps)
    offset = np.full(len(low), np.floor(-steps / 2) if grid.signed else 0.0)
    for factor in SYMMETRIC_FACTORS:
        yield factor * largest, offset


def _steps(grid: GridKind) -> int:
    qmin, qmax = integer_bounds(grid.bits, grid.signed, grid.narrow_range)
    return qmax - qmin


def _round(value: NDArray) -> NDArray:
    """Round to whole numbers, ties away from zero."""
    return np.copysign(np.floor(np.abs(value) + 0.5), value)
