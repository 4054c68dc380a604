import functools
from fractions import Fraction

import numpy as np
import pytest

from keras_edgeq.errors import CalibrationDataError
from keras_edgeq.numerics.affine import grid_from_range
from keras_edgeq.numerics.clip_search import FACTORS, GridKind, histogram_error, rows_error
from keras_edgeq.numerics.histogram import (
    MOMENTUM,
    Histogram,
    empty,
    exponent_for,
    merge,
    of_batch,
)
from keras_edgeq.numerics.range_rules import histogram_range, weight_range
from keras_edgeq.spec.quant_spec import RULES
from tests import reference

ALL = [rule for rule in RULES if rule != "derived"]
INT8 = {"bits": 8, "symmetric": False, "signed": True, "narrow_range": False}
INT4 = {"bits": 4, "symmetric": False, "signed": True, "narrow_range": False}
INT4_SYMMETRIC = {"bits": 4, "symmetric": True, "signed": True, "narrow_range": True}
INT16 = {"bits": 16, "symmetric": False, "signed": True, "narrow_range": False}
UINT4_SYMMETRIC = {"bits": 4, "symmetric": True, "signed": False, "narrow_range": False}


def histogram_of(x):
    x = np.asarray(x, np.float32)
    low, high = float(x.min()), float(x.max())
    exponent = exponent_for(low, high)
    return of_batch(reference.histogram_counts(x, exponent), exponent, low, high)


def laplace(size, seed=0):
    return np.random.default_rng(seed).laplace(size=size).astype(np.float32)


DATA = {
    "signed": laplace(3000),
    "non-negative": np.abs(laplace(3000)),
    "non-positive": -np.abs(laplace(3000)),
    "positive": np.abs(laplace(3000)) + 1,
}


@pytest.mark.parametrize("data", DATA)
def test_minmax_is_exact(data):
    x = DATA[data]
    assert histogram_range(histogram_of(x), "minmax", **INT8) == (x.min(), x.max())


@pytest.mark.parametrize("percentile", [99.99, 99.9, 99.0, 90.0, 100.0])
@pytest.mark.parametrize("data", DATA)
def test_percentile_drops_as_many_bins_as_it_may_and_no_more(data, percentile):
    x = DATA[data]
    h = histogram_of(x)
    low, high = histogram_range(h, "percentile", percentile=percentile, **INT8)
    rest = (100 - Fraction(str(percentile))) * x.size / 100
    below, above = {"signed": (rest / 2, rest / 2), "non-positive": (rest, 0)}.get(data, (0, rest))
    assert np.sum(x < low) <= below
    assert np.sum(x > high) <= above
    # One bin less would lose too much, so the range is the tightest.
    assert np.sum(x < low + h.bin_width) > below
    assert np.sum(x >= high - h.bin_width) > above


def test_percentile_of_ten_thousand_values_loses_the_largest():
    x = np.linspace(0, 1, 10_000).astype(np.float32)
    x[-1] = 50.0
    low, high = histogram_range(histogram_of(x), "percentile", percentile=99.99, **INT8)
    assert low == 0.0
    assert 1.0 <= high < 1.1
    low, high = weight_range(x, (), "percentile", percentile=99.99, **INT8)
    assert (low, high) == (0.0, x[-2])


@pytest.mark.parametrize("bits", [2, 4, 8, 12, 16])
def test_histogram_error_is_the_error_of_values_spread_evenly_in_their_bins(bits):
    h = histogram_of(laplace(100))
    spread = 64
    inside = (np.arange(spread) + 0.5) / spread
    used = np.flatnonzero(h.counts)
    x = h.bin_edges[used, None] + inside * h.bin_width
    weights = np.repeat(h.counts[used], spread) / spread
    for symmetric in (False, True):
        grid = GridKind(bits, symmetric, True, False)
        for low, high in [(-4.0, 5.0), (-1.0, 2.0), (-0.1, 0.05)]:
            ends = np.array([[low]]), np.array([[high]])
            scale, zero = reference.grid_from_range(low, high, bits, symmetric, True, False)
            bounds = reference.grid_bounds(bits, True)
            y = np.clip(np.round(x / float(scale)) + zero, *bounds) - zero
            expected = np.sum(weights * np.ravel(y * float(scale) - x) ** 2) / h.total
            # The sum over points of a bin is itself off by up to scale**2 / (4 * spread).
            tolerance = max(1e-3 * expected, float(scale) ** 2 / (4 * spread))
            assert histogram_error(h, grid)(*ends)[0, 0] == pytest.approx(expected, abs=tolerance)


def test_error_of_a_step_far_below_the_bin_width_is_a_twelfth_of_its_square():
    h = histogram_of(np.float32([-1000.0, 3.0, 999.0]))
    error = histogram_error(h, GridKind(16, False, True, False))
    low, high = np.array([[-1010.0]]), np.array([[1010.0]])
    step = 2020.0 / 65535
    assert error(low, high)[0, 0] == pytest.approx(step**2 / 12, rel=2e-2)


@pytest.mark.parametrize("grid", [INT4_SYMMETRIC, UINT4_SYMMETRIC])
def test_mse_on_a_symmetric_grid_finds_the_best_factor(grid):
    x = DATA["signed" if grid["signed"] else "non-negative"][:600]
    ends = (float(x.min()), float(x.max()))
    errors = [reference.squared_error(x, f * ends[0], f * ends[1], **grid) for f in FACTORS]
    best = FACTORS[np.argmin(errors)]
    low, high = weight_range(x, (), "mse", **grid)
    assert (low, high) == (min(best * ends[0], 0.0), best * ends[1])
    assert best < 1.0


def exhaustive(x, grid, factors=FACTORS[::4]):
    """Least squared error over all pairs of shrink factors."""
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    return min(
        reference.squared_error(x, a * low, b * high, **grid) for a in factors for b in factors
    )


@pytest.mark.parametrize("data", DATA)
def test_mse_on_an_asymmetric_grid_is_as_good_as_every_pair_of_factors(data):
    x = np.append(DATA[data][:150], np.float32(-9.0 if data == "non-positive" else 9.0))
    low, high = (float(end.squeeze()) for end in weight_range(x, (), "mse", **INT4))
    found = reference.squared_error(x, low, high, **INT4)
    # Coordinate descent over 64 factors per end, against every pair of 16.
    assert found <= 1.02 * exhaustive(x, INT4)


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("grid", [INT4, INT4_SYMMETRIC])
def test_mse_on_a_histogram_is_as_good_as_on_the_values_themselves(data, grid):
    x = DATA[data][:600]
    found = reference.squared_error(x, *histogram_range(histogram_of(x), "mse", **grid), **grid)
    exact = weight_range(x, (), "mse", **grid)
    exact = reference.squared_error(x, *(float(end.squeeze()) for end in exact), **grid)
    full = reference.squared_error(x, float(x.min()), float(x.max()), **grid)
    assert found <= 1.01 * exact
    assert found <= full


def test_row_errors_equal_the_reference_in_every_block(monkeypatch):
    monkeypatch.setattr("keras_edgeq.numerics.clip_search._BLOCK", 30)
    rows = laplace((3, 7))
    low = -np.random.default_rng(0).random((5, 3))
    high = np.random.default_rng(1).random((5, 3))
    errors = rows_error(rows, GridKind(**INT4))(low, high)
    for k, c in np.ndindex(5, 3):
        expected = reference.squared_error(rows[c], low[k, c], high[k, c], **INT4)
        assert errors[k, c] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("rule", ALL)
@pytest.mark.parametrize("grid", [INT4, INT4_SYMMETRIC])
@pytest.mark.parametrize("axes", [(), (3,), (0,), (2, 3), (-1, -2), (3, 2), (0, 2), (0, 1, 2, 3)])
def test_each_channel_gets_the_range_it_would_get_alone(axes, grid, rule):
    w = laplace((3, 2, 2, 4))
    low, high = weight_range(w, axes, rule, percentile=90.0, **grid)
    kept = {axis % 4 for axis in axes}
    shape = tuple(n if i in kept else 1 for i, n in enumerate(w.shape))
    assert low.shape == high.shape == shape
    assert low.dtype == high.dtype == np.float64
    for index in np.ndindex(shape):
        channel = w[tuple(i if axis in kept else slice(None) for axis, i in enumerate(index))]
        alone = weight_range(channel, (), rule, percentile=90.0, **grid)
        alone = tuple(float(end.squeeze()) for end in alone)
        if rule == "octav":  # its iteration ends with the block's slowest channel
            assert (low[index], high[index]) == pytest.approx(alone, rel=1e-5)
        else:
            assert (low[index], high[index]) == alone


def test_percentile_of_weights_loses_both_tails_only_on_channels_of_both_signs():
    signed = np.arange(-50, 51)
    w = np.stack([signed, signed + 50, signed - 50]).astype(np.float32)
    low, high = weight_range(w, (0,), "percentile", percentile=90.0, **INT8)
    np.testing.assert_array_equal(low[:, 0], [-45, 0, -90])
    np.testing.assert_array_equal(high[:, 0], [45, 90, 0])


@pytest.mark.parametrize("rule", ALL)
@pytest.mark.parametrize("grid", [INT8, INT4_SYMMETRIC])
def test_all_zero_and_constant_data_have_a_range(grid, rule):
    zeros = np.zeros((4, 2), np.float32)
    assert histogram_range(histogram_of(zeros), rule, **grid) == (0.0, 0.0)
    low, high = weight_range(zeros, (1,), rule, **grid)
    np.testing.assert_array_equal([low, high], np.zeros((2, 1, 2)))
    for value in (np.float32(3.7), np.float32(-3.7)):
        constant = np.full(6, value)
        for ends in (
            histogram_range(histogram_of(constant), rule, **grid),
            weight_range(constant, (), rule, **grid),
        ):
            extended = min(float(np.squeeze(ends[0])), 0.0), max(float(np.squeeze(ends[1])), 0.0)
            if rule == "sqnr":  # its ends lie on its own grid
                assert max(np.abs(extended)) == pytest.approx(3.7, rel=0.04)
            elif rule == "octav" and grid["symmetric"]:  # the other end does not count
                assert max(np.abs(extended)) == pytest.approx(3.7, rel=2e-3)
            else:
                expected = (min(value, 0.0), max(value, 0.0))
                assert extended == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("rule", ALL)
@pytest.mark.parametrize("grid", [INT8, INT4, INT4_SYMMETRIC, UINT4_SYMMETRIC, INT16])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e6])
@pytest.mark.parametrize("data", DATA)
def test_a_range_is_not_outside_the_data_and_has_a_grid(data, scale, grid, rule):
    x = (DATA[data][:500].astype(np.float64) * scale).astype(np.float32)
    x = x if grid["signed"] else np.abs(x)
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    slack = 0.0
    if rule == "sqnr":  # its ends lie on its own grid, and its widest candidate is 1 % wider
        slack = (high - low) * (0.01 if grid["symmetric"] else 1.001 / (2 ** grid["bits"] - 1))
    if grid["symmetric"] and rule in ("sqnr", "octav"):  # the smaller end does not count
        low, high = -max(-low, high), max(-low, high)
    for choose in (lambda: histogram_range(histogram_of(x), rule, **grid),
                   lambda: weight_range(x, (), rule, **grid)):  # fmt: skip
        found = tuple(float(np.squeeze(end)) for end in choose())
        assert low - slack <= found[0] <= found[1] <= high + slack
        assert found == tuple(float(np.squeeze(end)) for end in choose())
        encoding = grid_from_range(*found, **grid)
        assert np.isfinite(encoding[0])


def test_moving_average_is_the_weighted_mean_of_the_extremes_of_the_batches():
    batches = [DATA["signed"][i * 50 : (i + 1) * 50] * (1 + i % 3) for i in range(20)]
    merged = functools.reduce(merge, map(histogram_of, batches), empty())
    low, high = histogram_range(merged, "moving_average", **INT8)
    assert low == pytest.approx(reference.moving_average([b.min() for b in batches], MOMENTUM))
    assert high == pytest.approx(reference.moving_average([b.max() for b in batches], MOMENTUM))
    assert merged.low < low < 0 < high < merged.high


def test_a_moving_average_without_the_batches_is_an_error():
    h = histogram_of(DATA["signed"])
    with pytest.raises(CalibrationDataError, match="moving_average"):
        histogram_range(Histogram(h.counts, h.exponent, h.low, h.high), "moving_average", **INT8)


def test_moving_average_of_weights_is_minmax():
    w = laplace((4, 30))
    found = weight_range(w, (0,), "moving_average", **INT8)
    np.testing.assert_array_equal(found, weight_range(w, (0,), "minmax", **INT8))


@pytest.mark.parametrize("rule", ["kl", "", "derived"])
def test_an_unknown_rule_is_an_error_that_names_the_rules(rule):
    with pytest.raises(ValueError, match=r"minmax.*mse.*percentile"):
        histogram_range(histogram_of([1.0]), rule, **INT8)
    with pytest.raises(ValueError, match=r"minmax.*mse.*percentile"):
        weight_range(np.ones(3), (), rule, **INT8)


@pytest.mark.parametrize("percentile", [50.0, 100.1, np.nan])
def test_a_percentile_outside_its_bounds_is_an_error(percentile):
    with pytest.raises(ValueError, match="percentile"):
        histogram_range(histogram_of([1.0]), "percentile", percentile=percentile, **INT8)


def test_nothing_observed_is_an_error():
    with pytest.raises(ValueError, match="No value"):
        histogram_range(empty(), "minmax", **INT8)


@pytest.mark.parametrize(("weight", "axes"), [
    ([1.0, np.nan], ()), ([np.inf], ()), ([], ()), ([1.0], (1,)), ([[1.0]], (-3,)),
])  # fmt: skip
def test_weights_without_a_range_are_errors(weight, axes):
    with pytest.raises(ValueError, match="weight"):
        weight_range(np.array(weight), axes, "minmax", **INT8)


def test_a_symmetric_unsigned_grid_refuses_negative_data():
    with pytest.raises(ValueError, match="unsigned"):
        weight_range(np.array([-1.0, 2.0]), (), "mse", **UINT4_SYMMETRIC)
