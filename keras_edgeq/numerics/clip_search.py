"""Search the clipping range that minimises the expected squared quantization error.

Reference:
    Nagel et al. 2021, "A White Paper on Neural Network Quantization", arXiv:2106.08295,
    section 3.1, "Mean squared error (MSE)".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keras_edgeq.numerics.affine import grid_from_range, integer_bounds
from keras_edgeq.numerics.histogram import Histogram

# Shrink factors of an end of the full range, widest first: on a tie the wider range wins.
FACTORS = np.arange(64, 0, -1) / 64
SWEEPS = 3
# Values per work block: the temporaries stay within a few MiB and close to the cache.
_BLOCK = 2**18

Error = Callable[[NDArray, NDArray], NDArray]


@dataclass(frozen=True)
class GridKind:
    """The grid a range is searched for; the arguments are those of `affine.grid_from_range`."""

    bits: int
    symmetric: bool
    signed: bool
    narrow_range: bool

    def fit(self, low: NDArray, high: NDArray) -> tuple[NDArray, NDArray, NDArray]:
        """Return the scale and the clip ends in steps from zero, each in the shape of the range."""
        scale, zero_point = grid_from_range(
            low,
            high,
            bits=self.bits,
            symmetric=self.symmetric,
            signed=self.signed,
            narrow_range=self.narrow_range,
        )
        qmin, qmax = integer_bounds(self.bits, self.signed, self.narrow_range)
        return scale, qmin - zero_point, qmax - zero_point


def search_clip(
    low: NDArray, high: NDArray, error: Error, symmetric: bool
) -> tuple[NDArray, NDArray]:
    """Shrink ranges to the candidates of least error, each channel on its own.

    First both ends shrink by one factor. On an asymmetric grid the ends then shrink one at a
    time, by turns, until nothing improves or `SWEEPS` rounds are done (coordinate descent).

    Args:
        low: full ranges' lower ends, `[channels]`; zero is added to the range where outside.
        high: upper ends, same shape.
        error: maps candidate ends `[candidates, channels]` to errors of that shape.
        symmetric: skip the second stage, as only the larger end matters.

    Returns:
        `(low, high)`, each `[channels]`.
    """
    full = np.stack([np.minimum(low, 0.0), np.maximum(high, 0.0)])
    shrunk = FACTORS[:, None, None] * full[None]
    best = _least(shrunk, error)
    for _ in range(0 if symmetric else SWEEPS):
        before = best
        for end in (1, 0):
            candidates = np.repeat(best[None], len(FACTORS), axis=0)
            candidates[:, end] = shrunk[:, end]
            best = _least(candidates, error)
        if np.array_equal(before, best):
            break
    return best[0], best[1]


def histogram_error(histogram: Histogram, grid: GridKind) -> Error:
    """Return the mean squared error of a histogram as a function of one range.

    Values are taken as spread evenly within their bin, and the squared error is integrated over
    it exactly. So the error is right whether a step spans many bins or a bin many steps, where it
    tends to the known `scale**2 / 12`.
    """
    used = np.flatnonzero(histogram.counts)
    first, stop = used[0], used[-1] + 1
    edges = histogram.bin_edges[first : stop + 1]
    density = histogram.counts[first:stop] / (histogram.total * histogram.bin_width)

    def error(low: NDArray, high: NDArray) -> NDArray:
        scale, bottom, top = grid.fit(low[:, 0], high[:, 0])
        scale = scale.astype(np.float64)[:, None]
        steps = edges / scale
        nearest = np.clip(np.rint(steps), bottom[:, None], top[:, None])
        # The antiderivative of (u - nearest(u))**2; whole steps contribute 1/12 each.
        gap = steps - nearest
        integral = nearest / 12 + gap * gap * gap / 3  # NumPy's ** 3 takes ten times as long
        return (np.diff(integral, axis=1) @ density * scale[:, 0] ** 3)[:, None]

    return error


def rows_error(rows: NDArray, grid: GridKind) -> Error:
    """Return the summed squared error of each row of `rows` `[channels, n]`, as float64."""
    rows = np.asarray(rows, np.float32)
    channels, width = rows.shape
    stride = max(1, _BLOCK // max(1, width))

    def error(low: NDArray, high: NDArray) -> NDArray:
        scale, bottom, top = (t.reshape(-1, 1) for t in grid.fit(low, high))
        bottom, top = bottom.astype(np.float32), top.astype(np.float32)
        errors = np.empty(low.size)
        for start in range(0, low.size, stride):
            part = slice(start, min(start + stride, low.size))
            x = rows[np.arange(part.start, part.stop) % channels]
            steps = np.clip(np.rint(x / scale[part]), bottom[part], top[part])
            errors[part] = np.sum(np.square(steps * scale[part] - x), axis=1, dtype=np.float64)
        return errors.reshape(low.shape)

    return error


def _least(candidates: NDArray, error: Error) -> NDArray:
    """Pick, per channel, the first candidate of least error: `[k, 2, c]` to `[2, c]`."""
    index = np.argmin(error(candidates[:, 0], candidates[:, 1]), axis=0)
    return np.take_along_axis(candidates, index[None, None], axis=0)[0]
