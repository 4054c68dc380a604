"""OCTAV: the clip of least mean squared error, by Newton's method instead of a search.

The model of the error is `step**2 / 12` for each value inside the range, and the squared distance
to the end for each value outside. Exact zeros have none.

Reference:
    Sakr et al. 2022, "Optimal Clipping and Magnitude-aware Differentiation for Improved
    Quantization-aware Training", ICML, arXiv:2206.06501.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_edgeq.numerics.affine import integer_bounds
from keras_edgeq.numerics.bins import Bins, row_blocks
from keras_edgeq.numerics.clip_search import GridKind

# A Gaussian tail of 16 bits takes about 40, weights of 4 bits about 8.
ITERATIONS = 64
_TOLERANCE = 1e-6

Range = tuple[NDArray, NDArray]


class Moments(NamedTuple):
    """Share, sum and sum of squares of the values beyond a limit, over the number of all values."""

    share: NDArray
    first: NDArray
    second: NDArray

    def error(self, limit: NDArray) -> NDArray:
        """Return the mean squared error of clipping at the limit."""
        return self.second - 2.0 * limit * self.first + limit**2 * self.share


Tail = Callable[[NDArray], Moments]


def octav_range(bins: Bins, grid: GridKind) -> Range:
    """Choose ranges from bins, whose values are taken as spread evenly within each."""
    total = np.maximum(bins.counts.sum(axis=1), 1.0)
    nonzero = 1.0 - bins.zeros.sum(axis=1) / total
    tails = _bins_tail(bins, total), _bins_tail(bins.mirrored(), total)
    return _solve(*tails, nonzero, (bins.low, bins.high), grid)


def octav_rows(rows: NDArray, grid: GridKind) -> Range:
    """Choose a range for each row of `rows` `[channels, n]` from its exact values."""
    ranges = [_octav_block(rows[part], grid) for part in row_blocks(rows)]
    low, high = zip(*ranges, strict=True)
    return np.concatenate(low), np.concatenate(high)


def _octav_block(rows: NDArray, grid: GridKind) -> Range:
    largest = np.abs(rows).max(axis=1).astype(np.float64)
    largest[largest == 0.0] = 1.0
    rows = rows / largest[:, None]
    nonzero = np.mean(rows != 0.0, axis=1)
    tails = _rows_tail(rows), _rows_tail(-rows)
    ends = rows.min(axis=1).astype(np.float64), rows.max(axis=1).astype(np.float64)
    low, high = _solve(*tails, nonzero, ends, grid)
    return low * largest, high * largest


def _solve(above: Tail, below: Tail, nonzero: NDArray, ends: Range, grid: GridKind) -> Range:
    solve = _one_step if grid.symmetric else _two_ends
    low, high = solve(above, below, nonzero, grid)
    return np.maximum(low, np.minimum(ends[0], 0.0)), np.minimum(high, np.maximum(ends[1], 0.0))


def _one_step(above: Tail, below: Tail, nonzero: NDArray, grid: GridKind) -> Range:
    """Solve for the step of a symmetric grid, whose ends are `qmin` and `qmax` steps from zero.

    On a narrow and on an unsigned grid this is the paper's iteration.
    """
    qmin, qmax = integer_bounds(grid.bits, grid.signed, grid.narrow_range)

    def update(step: NDArray):
        top, bottom = above(qmax * step), below(-qmin * step)
        inside = nonzero - top.share - bottom.share
        cost = step**2 / 12 * inside + top.error(qmax * step) + bottom.error(-qmin * step)
        clipped = qmax**2 * top.share + qmin**2 * bottom.share
        better = (qmax * top.first - qmin * bottom.first) / _positive(inside / 12 + clipped)
        return cost, np.where(clipped > 0.0, better, step)

    step = _iterate(update, np.zeros(len(nonzero)))
    return -qmax * step * grid.signed, qmax * step


def _two_ends(above: Tail, below: Tail, nonzero: NDArray, grid: GridKind) -> Range:
    """Solve for both ends by turns: the paper's equation for one end, with the other held."""
    qmin, qmax = integer_bounds(grid.bits, grid.signed, grid.narrow_range)
    noise = 1.0 / (12.0 * (qmax - qmin) ** 2)

    def one_end(held: NDArray, end: NDArray, tail: Moments, inside: NDArray) -> NDArray:
        share = noise * inside
        better = (tail.first - held * share) / _positive(share + tail.share)
        return np.where(tail.share > 0.0, np.maximum(better, 0.0), end)

    def update(ends: NDArray):
        low, high = ends
        top, bottom = above(high), below(low)
        inside = nonzero - top.share - bottom.share
        cost = noise * (low + high) ** 2 * inside + top.error(high) + bottom.error(low)
        high = one_end(low, high, top, inside)
        top = above(high)
        low = one_end(high, low, bottom, nonzero - top.share - bottom.share)
        return cost, np.stack([low, high])

    low, high = _iterate(update, np.zeros((2, len(nonzero))))
    return -low, high


def _iterate(update: Callable, state: NDArray) -> NDArray:
    """Iterate from 0, from where the first step goes to the mean of the values.

    On a handful of values the iteration may circle; the state of least cost is taken then.
    """
    best, least = state, np.full(state.shape[-1], np.inf)
    for _ in range(ITERATIONS):
        cost, following = update(state)
        best = np.where(cost < least, state, best)
        least = np.minimum(cost, least)
        moved = np.abs(following - state) > _TOLERANCE * np.abs(state)
        settled = ~np.any(moved.reshape(-1, moved.shape[-1]), axis=0)
        state = following
        if np.all(settled):
            break
    return np.where(settled, state, best)


def _rows_tail(rows: NDArray) -> Tail:
    def tail(limit: NDArray) -> Moments:
        beyond = rows > limit[:, None]
        values = rows * beyond
        second = np.einsum("cn,cn->c", values, values) / rows.shape[1]
        return Moments(beyond.mean(axis=1), values.mean(axis=1), second)

    return tail


def _bins_tail(bins: Bins, total: NDArray) -> Tail:
    share = bins.counts / total[:, None]
    channels, last = np.arange(len(share)), share.shape[1] - 1
    right = bins.edges[:, 1:]
    whole = [_from_bin(moment) for moment in _uniform(share, bins.edges[:, :-1], right)]

    def tail(limit: NDArray) -> Moments:
        position = np.clip((limit - bins.start) / bins.width, 0.0, last + 1)
        cut = np.minimum(position.astype(np.int64), last)
        end = right[channels, cut]
        part = share[channels, cut] * (cut + 1 - position)
        rest = _uniform(part, end - (cut + 1 - position) * bins.width, end)
        return Moments(*(m + w[channels, cut + 1] for m, w in zip(rest, whole, strict=True)))

    return tail


def _uniform(share: NDArray, left: NDArray, right: NDArray) -> Moments:
    """Return the moments of values spread evenly between two ends."""
    second = (left**2 + left * right + right**2) / 3
    return Moments(share, share * (left + right) / 2, share * second)


def _from_bin(moment: NDArray) -> NDArray:
    """Return the sums over the bins i and up, for i from 0 to the number of bins."""
    return np.pad(np.cumsum(moment[:, ::-1], axis=1)[:, ::-1], ((0, 0), (0, 1)))


def _positive(value: NDArray) -> NDArray:
    return np.where(value > 0.0, value, 1.0)
