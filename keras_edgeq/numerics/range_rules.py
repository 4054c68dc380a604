"""Rules that turn observed activations, or weights, into the real range a grid should cover.

The returned range is not yet extended to zero; `affine.grid_from_range` does that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_edgeq.errors import CalibrationDataError
from keras_edgeq.numerics.bins import Bins, histogram_bins, row_bins
from keras_edgeq.numerics.clip_search import GridKind, histogram_error, rows_error, search_clip
from keras_edgeq.numerics.entropy import entropy_range
from keras_edgeq.numerics.histogram import Histogram
from keras_edgeq.numerics.octav import octav_range, octav_rows
from keras_edgeq.numerics.sqnr import sqnr_range

HistogramRule = Callable[[Histogram, GridKind, float], tuple[float, float]]
RowsRule = Callable[[NDArray, GridKind, float], tuple[NDArray, NDArray]]
BinsRule = Callable[[Bins, GridKind], tuple[NDArray, NDArray]]


def histogram_range(
    histogram: Histogram,
    rule: str,
    *,
    bits: int,
    symmetric: bool,
    signed: bool,
    narrow_range: bool = False,
    percentile: float = 99.99,
) -> tuple[float, float]:
    """Choose the real range for a tensor from its histogram.

    Args:
        histogram: at least one value.
        rule: `"minmax"`, the exact extremes; `"percentile"`, the tightest bin edges that keep
            `percentile` of the values inside; `"mse"`, least expected squared error
            (`clip_search`); `"octav"`, nearly the same without a search (`octav`); `"sqnr"`,
            AIMET's `tf_enhanced` (`sqnr`); `"entropy"`, least lost information (`entropy`);
            `"moving_average"`, averages of the batches' extremes (`histogram.merge`).
        bits: of the grid, which some rules look at; see `affine.grid_from_range`.
        symmetric: of the grid, as in `affine.grid_from_range`.
        signed: of the grid, as in `affine.grid_from_range`.
        narrow_range: of the grid, as in `affine.grid_from_range`.
        percentile: in percent. Each tail loses at most half of the rest; data without negative
            (positive) values loses the whole rest at the top (bottom).

    Returns:
        `(low, high)`.

    Raises:
        ValueError: an unknown rule, a percentile outside (50, 100].
        CalibrationDataError: the histogram is empty, or `"moving_average"` is asked and it has no
            averages.
    """
    _check(rule, _HISTOGRAM_RULES, percentile)
    if not histogram.total:
        raise CalibrationDataError("No value was observed, so there is no range to choose.")
    grid = GridKind(bits, symmetric, signed, narrow_range)
    return _HISTOGRAM_RULES[rule](histogram, grid, percentile)


def weight_range(
    weight: ArrayLike,
    axes: tuple[int, ...],
    rule: str,
    *,
    bits: int,
    symmetric: bool,
    signed: bool,
    narrow_range: bool = False,
    percentile: float = 99.99,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Choose the real range of a weight, for each channel on its own.

    Args:
        weight: finite real array.
        axes: axes that keep a range per index; `()` gives one range per tensor.
        rule: as in `histogram_range`, on the exact values; `"sqnr"` and `"entropy"` on a
            histogram of 512 bins per channel, and `"moving_average"` is `"minmax"`.
        bits: of the grid, which some rules look at; see `affine.grid_from_range`.
        symmetric: of the grid, as in `affine.grid_from_range`.
        signed: of the grid, as in `affine.grid_from_range`.
        narrow_range: of the grid, as in `affine.grid_from_range`.
        percentile: as in `histogram_range`.

    Returns:
        `(low, high)`, float64, in the shape of `weight` with the other axes kept as 1.

    Raises:
        ValueError: an unknown rule, a percentile outside (50, 100], axes that the weight does not
            have, or a weight that is empty or not finite.
    """
    _check(rule, _WEIGHT_RULES, percentile)
    weight = np.asarray(weight)
    if not weight.size or not np.all(np.isfinite(weight)):
        raise ValueError("The weight is empty or holds NaN or infinity.")
    if not all(-weight.ndim <= axis < weight.ndim for axis in axes):
        raise ValueError(f"axes {axes} do not exist in a weight of shape {weight.shape}.")
    kept = sorted({axis % weight.ndim for axis in axes})
    moved = np.moveaxis(weight, kept, range(len(kept)))
    rows = moved.reshape(int(np.prod(moved.shape[: len(kept)])), -1)
    low, high = _WEIGHT_RULES[rule](
        rows, GridKind(bits, symmetric, signed, narrow_range), percentile
    )
    shape = [size if axis in kept else 1 for axis, size in enumerate(weight.shape)]
    return low.astype(np.float64).reshape(shape), high.astype(np.float64).reshape(shape)


def _histogram_minmax(histogram: Histogram, grid: GridKind, percentile: float):
    del grid, percentile
    return histogram.low, histogram.high


def _histogram_percentile(histogram: Histogram, grid: GridKind, percentile: float):
    """Drop whole bins from each end while the dropped count stays within the allowance."""
    del grid
    one, half = _allowances(histogram.total, percentile)
    bottom = 0 if histogram.low >= 0.0 else one if histogram.high <= 0.0 else half
    top = 0 if histogram.high <= 0.0 else one if histogram.low >= 0.0 else half
    below = np.cumsum(histogram.counts)
    above = np.cumsum(histogram.counts[::-1])
    edges = histogram.bin_edges
    low = edges[np.searchsorted(below, bottom, side="right")]
    high = edges[::-1][np.searchsorted(above, top, side="right")]
    return max(float(low), histogram.low), min(float(high), histogram.high)


def _histogram_mse(histogram: Histogram, grid: GridKind, percentile: float):
    del percentile
    low, high = search_clip(
        np.array([histogram.low]),
        np.array([histogram.high]),
        histogram_error(histogram, grid),
        grid.symmetric,
    )
    return float(low[0]), float(high[0])


def _histogram_moving_average(histogram: Histogram, grid: GridKind, percentile: float):
    del grid, percentile
    if not histogram.batches:
        raise CalibrationDataError(
            "These statistics do not hold the extremes of each batch, which the rule "
            '"moving_average" averages; calibrate again, or use another rule.'
        )
    # Averaging may be off by a rounding error where all batches have one extreme.
    return (
        max(histogram.average_low, histogram.low),
        min(histogram.average_high, histogram.high),
    )


def _histogram_bins_rule(choose: BinsRule) -> HistogramRule:
    def rule(histogram: Histogram, grid: GridKind, percentile: float):
        del percentile
        low, high = choose(histogram_bins(histogram), grid)
        return float(low[0]), float(high[0])

    return rule


def _rows_minmax(rows: NDArray, grid: GridKind, percentile: float):
    del grid, percentile
    return rows.min(axis=1), rows.max(axis=1)


def _rows_percentile(rows: NDArray, grid: GridKind, percentile: float):
    """Take order statistics: values of the row that leave out just the allowance."""
    del grid
    last = rows.shape[1] - 1
    one, half = _allowances(rows.shape[1], percentile)
    ordered = np.partition(rows, sorted({0, half, one, last - one, last - half, last}), axis=1)
    sides = [ordered[:, 0] >= 0.0, ordered[:, last] <= 0.0]
    low = np.select(sides, [ordered[:, 0], ordered[:, one]], ordered[:, half])
    high = np.select(sides, [ordered[:, last - one], ordered[:, last]], ordered[:, last - half])
    return low, high


def _rows_mse(rows: NDArray, grid: GridKind, percentile: float):
    del percentile
    ends = rows.min(axis=1).astype(np.float64), rows.max(axis=1).astype(np.float64)
    return search_clip(*ends, rows_error(rows, grid), grid.symmetric)


def _rows_octav(rows: NDArray, grid: GridKind, percentile: float):
    del percentile
    return octav_rows(rows, grid)


def _rows_bins_rule(choose: BinsRule) -> RowsRule:
    def rule(rows: NDArray, grid: GridKind, percentile: float):
        del percentile
        return choose(row_bins(rows), grid)

    return rule


_HISTOGRAM_RULES: dict[str, HistogramRule] = {
    "minmax": _histogram_minmax,
    "percentile": _histogram_percentile,
    "mse": _histogram_mse,
    "sqnr": _histogram_bins_rule(sqnr_range),
    "entropy": _histogram_bins_rule(entropy_range),
    "octav": _histogram_bins_rule(octav_range),
    "moving_average": _histogram_moving_average,
}
_WEIGHT_RULES: dict[str, RowsRule] = {
    "minmax": _rows_minmax,
    "percentile": _rows_percentile,
    "mse": _rows_mse,
    "sqnr": _rows_bins_rule(sqnr_range),
    "entropy": _rows_bins_rule(entropy_range),
    "octav": _rows_octav,
    "moving_average": _rows_minmax,
}


def _allowances(total: int, percentile: float) -> tuple[int, int]:
    """Return how many values one tail may lose alone, and how many each of two tails may."""
    # Rounded, because 100 - 99.9 is a little less than 0.1 in floating point.
    rest = round((100.0 - percentile) * total / 100.0, 6)
    return int(rest), int(rest / 2)


def _check(rule: str, allowed: Collection[str], percentile: float) -> None:
    if rule not in allowed:
        raise ValueError(f"Unknown range rule {rule!r}; the rules are {sorted(allowed)}.")
    if not 50.0 < percentile <= 100.0:
        raise ValueError(f"percentile is {percentile}; it must lie in (50, 100].")
