"""The clip that loses least information, as in TensorRT's calibration.

Reference:
    Migacz 2017, "8-bit Inference with TensorRT", GPU Technology Conference, pages 22 to 25.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from keras_edgeq.numerics.bins import BLOCK, Bins
from keras_edgeq.numerics.clip_search import Error, GridKind, search_clip

# A clipped value in a bin that had none counts as if this many had been there.
UNSEEN = 0.25
# Far below a divergence that matters, far above rounding: where nothing is lost, the widest wins.
_DECIMALS = 12


def entropy_range(bins: Bins, grid: GridKind) -> tuple[NDArray, NDArray]:
    """Choose the range of least Kullback-Leibler divergence, each channel on its own.

    The published algorithm tries clips of `|x|` against 128 levels. Here the levels are those of
    the grid itself, so any width, sign and zero point will do, and on an asymmetric grid the two
    ends move apart (`clip_search.search_clip`). Exact zeros (`Bins.zeros`) are left out, since a
    level shared with them would look coarse at every clip.

    Where the bins are no finer than the grid nothing is lost by the full range, and it is chosen.

    Returns:
        `(low, high)`, each `[channels]`.
    """
    low, high = np.minimum(bins.low, 0.0), np.maximum(bins.high, 0.0)
    if np.all(grid.fit(low, high)[0] <= bins.width):
        return low, high
    return search_clip(low, high, divergence(bins, grid), grid.symmetric)


def divergence(bins: Bins, grid: GridKind) -> Error:
    """Return the divergence of the rounded values from the clipped ones as a function of the range.

    The rounded distribution gives each used bin the mean count of the used bins of its level.
    Values beyond the range count in the bin at its end, but only of the clipped distribution.
    """
    sums = _Sums(bins.counts - bins.zeros)
    channels, end = len(bins.counts), bins.start + bins.counts.shape[1] * bins.width

    def error(low: NDArray, high: NDArray) -> NDArray:
        scale, bottom, top = grid.fit(low, high)
        # Levels beyond the bins hold nothing.
        bottom = np.maximum(bottom, np.floor(bins.start / scale)).reshape(-1, 1)
        top = np.minimum(top, np.ceil(end / scale)).reshape(-1, 1)
        scale, count = scale.reshape(-1, 1), int(np.max(top - bottom)) + 1
        stride = max(1, BLOCK // count)
        errors = np.empty(low.size)
        for start in range(0, low.size, stride):
            part = slice(start, min(start + stride, low.size))
            rows = np.arange(part.start, part.stop) % channels
            levels = bottom[part] + np.arange(count + 1)
            levels = np.minimum(levels, top[part] + 1) - 0.5
            position = levels * np.float64(scale[part]) - bins.start[rows, None]
            first_bins = np.ceil(position / bins.width[rows, None] - 0.5)
            errors[part] = sums.divergence(rows, first_bins)
        return np.round(errors, _DECIMALS).reshape(low.shape)

    return error


class _Sums:
    """Running sums over bins, from which a level's sums are differences."""

    def __init__(self, counts: NDArray):
        self.counts = counts
        self.count, self.used, self.information = (
            np.pad(np.cumsum(a, axis=1), ((0, 0), (1, 0)))
            for a in (counts, counts > 0.0, _times_log(counts))
        )

    def divergence(self, rows: NDArray, first_bins: NDArray) -> NDArray:
        """Compare the two distributions of each row, given the bin where each level starts."""
        at, column = np.arange(len(rows)), rows[:, None]
        edges = np.clip(first_bins, 0, self.counts.shape[1]).astype(np.int64)
        first, last = edges[:, 0], edges[:, -1] - 1
        count, total = self.count[column, edges], self.count[rows, -1]
        kept, below, above = count[:, -1] - count[:, 0], count[:, 0], total - count[:, -1]
        same = first == last
        level_of_first = np.sum(edges[:, 1:] <= first[:, None], axis=1).clip(0, edges.shape[1] - 2)
        level_of_last = np.sum(edges[:, :-1] <= last[:, None], axis=1) - 1

        rounded = np.diff(count, axis=1)
        used = np.diff(self.used[column, edges], axis=1).astype(np.float64)
        clipped, information = rounded.copy(), np.diff(self.information[column, edges]).sum(axis=1)
        for bin_, level, extra in (
            (first, level_of_first, below + np.where(same, above, 0.0)),
            (last, level_of_last, np.where(same, 0.0, above)),
        ):
            own = self.counts[rows, np.minimum(bin_, self.counts.shape[1] - 1)]
            clipped[at, level] += extra
            used[at, level] += (own == 0.0) & (extra > 0.0)
            information += _times_log(own + extra) - _times_log(own)
        total = np.maximum(total, 1.0)
        mean = rounded / np.maximum(used, 1.0) / np.maximum(kept, 1.0)[:, None]
        cross = np.sum(clipped * np.log(np.maximum(mean, UNSEEN / total[:, None])), axis=1)
        return np.where(last >= first, (information - _times_log(total) - cross) / total, np.inf)


def _times_log(value: NDArray) -> NDArray:
    return value * np.log(np.where(value > 0.0, value, 1.0))
