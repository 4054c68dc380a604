"""`Bins`: histograms of several channels at once, which range rules are computed from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keras_edgeq.numerics.histogram import HALF, Histogram

ROW_BINS = 512
# Values per work block, so that the temporaries stay in the cache.
BLOCK = 2**15


@dataclass(frozen=True, eq=False)
class Bins:
    """Counts of values in equal bins, each channel with bins of its own.

    Args:
        counts: float64 `[channels, bins]`.
        start: left edge of the first bin, float64 `[channels]`.
        width: of each bin, above 0, float64 `[channels]`.
        low: smallest value, float64 `[channels]`.
        high: largest value, float64 `[channels]`.
    """

    counts: NDArray
    start: NDArray
    width: NDArray
    low: NDArray
    high: NDArray

    @property
    def edges(self) -> NDArray:
        """The edges, ascending, `[channels, bins + 1]`."""
        steps = np.arange(self.counts.shape[1] + 1)
        return self.start[:, None] + steps * self.width[:, None]

    @property
    def centers(self) -> NDArray:
        """The midpoints, ascending, `[channels, bins]`."""
        return self.edges[:, :-1] + self.width[:, None] / 2

    @property
    def zeros(self) -> NDArray:
        """How many values are taken for exact zeros, `[channels, bins]`; 0 except around zero.

        That is what the bin that holds zero has above the fuller of its neighbours: the spike that
        a ReLU or pruning leaves. Every grid represents it exactly.
        """
        before, after = np.pad(self.counts, ((0, 0), (1, 1)))[:, :-2], self.counts[:, 1:]
        beside = np.maximum(before, np.pad(after, ((0, 0), (0, 1))))
        edges = self.edges
        holds_zero = (edges[:, :-1] <= 0.0) & (edges[:, 1:] > 0.0)
        return np.where(holds_zero, np.maximum(self.counts - beside, 0.0), 0.0)

    def mirrored(self) -> Bins:
        """Return the bins of the values with the opposite sign."""
        start = -(self.start + self.counts.shape[1] * self.width)
        return Bins(self.counts[:, ::-1], start, self.width, -self.high, -self.low)

    def blocks(self) -> Iterator[tuple[slice, Bins]]:
        """Yield runs of channels that have about `BLOCK` bins together."""
        for part in row_blocks(self.counts):
            fields = (self.counts, self.start, self.width, self.low, self.high)
            yield part, Bins(*(field[part] for field in fields))


def histogram_bins(histogram: Histogram) -> Bins:
    """Return the stretch of a histogram that holds all values and zero as bins of one channel."""
    used = np.flatnonzero(histogram.counts)
    first, stop = min(used[0], HALF), max(used[-1] + 1, HALF)
    fields = (histogram.bin_edges[first], histogram.bin_width, histogram.low, histogram.high)
    counts = histogram.counts[None, first:stop].astype(np.float64)
    return Bins(counts, *(np.array([field], np.float64) for field in fields))


def row_bins(rows: NDArray, bins: int = ROW_BINS) -> Bins:
    """Count each row of `rows` `[channels, n]` in bins from its smallest value to its largest.

    Zero is added to the range of a row where outside.
    """
    low, high = rows.min(axis=1).astype(np.float64), rows.max(axis=1).astype(np.float64)
    start = np.minimum(low, 0.0)
    span = np.maximum(high, 0.0) - start
    width = np.where(span > 0.0, span / bins, 1.0)
    counts = np.empty((len(rows), bins))
    for part in row_blocks(rows):
        position = (rows[part] - start[part, None]) / width[part, None]
        index = np.minimum(position.astype(np.int64), bins - 1)
        index += np.arange(len(index))[:, None] * bins
        counts[part] = np.bincount(index.ravel(), minlength=len(index) * bins).reshape(-1, bins)
    return Bins(counts, start, width, low, high)


def row_blocks(rows: NDArray) -> Iterator[slice]:
    """Cut `[channels, n]` into runs of whole rows with about `BLOCK` values each."""
    stride = max(1, BLOCK // max(1, rows.shape[1]))
    for start in range(0, len(rows), stride):
        yield slice(start, min(start + stride, len(rows)))
