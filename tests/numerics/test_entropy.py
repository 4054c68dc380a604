import numpy as np
import pytest

from keras_edgeq.numerics.bins import row_bins
from keras_edgeq.numerics.clip_search import FACTORS, GridKind
from keras_edgeq.numerics.entropy import divergence, entropy_range
from keras_edgeq.numerics.range_rules import histogram_range, weight_range
from tests import reference
from tests.numerics.test_bins import histogram_of

RNG = np.random.default_rng(0)
NORMAL = RNG.normal(size=20_000).astype(np.float32)
ASYMMETRIC = (False, True, False)
SYMMETRIC = (True, True, True)
UNSIGNED = (True, False, False)


@pytest.mark.parametrize("bits", [2, 3, 5])
@pytest.mark.parametrize("kind", [ASYMMETRIC, SYMMETRIC, UNSIGNED])
def test_the_divergence_is_that_of_the_reference(kind, bits, monkeypatch):
    monkeypatch.setattr("keras_edgeq.numerics.entropy.BLOCK", 70)
    rows = RNG.laplace(size=(3, 150))
    rows = np.abs(rows) if not kind[1] else rows + np.array([[0.0], [0.7], [-3.0]])
    bins = row_bins(rows, bins=50)
    shares = np.array([1.0, 0.9, 0.5, 0.31, 0.1, 0.02])[:, None]
    low, high = shares * np.minimum(bins.low, 0.0), shares**2 * np.maximum(bins.high, 0.0)
    found = divergence(bins, GridKind(bits, *kind))(low, high)
    counts = bins.counts - bins.zeros
    for k, c in np.ndindex(low.shape):
        scale, zero = reference.grid_from_range(low[k, c], high[k, c], bits, *kind)
        qmin, qmax = reference.grid_bounds(bits, *kind[1:])
        levels = [round(center / float(scale)) + zero for center in bins.centers[c]]
        expected = reference.kl_divergence(counts[c], levels, qmin, qmax)
        assert found[k, c] == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("bits", [2, 4, 8, 12, 16])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_a_uniform_stays_whole(bits, shift):
    x = (np.arange(-4096, 4096) + 0.5) / 4096 + shift
    grid = {"bits": bits, "symmetric": False, "signed": True}
    low, high = histogram_range(histogram_of(x), "entropy", **grid)
    assert (low, high) == pytest.approx((x.min(), x.max()), abs=2 / 64)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("rectified", [False, True])
def test_a_far_outlier_is_clipped(bits, rectified):
    body = np.maximum(NORMAL, 0.0) if rectified else NORMAL
    x = np.append(body, np.float32(60.0))
    grid = {"bits": bits, "symmetric": False, "signed": not rectified}
    low, high = histogram_range(histogram_of(x), "entropy", **grid)
    assert 0.5 * body.max() < high < 15.0
    assert low == 0.0 if rectified else body.min() <= low < -2.5
    # Where the grid is finer than the histogram, clipping would gain nothing.
    assert histogram_range(histogram_of(x), "entropy", **{**grid, "bits": 16})[1] == x.max()


def test_zeros_of_a_relu_do_not_pull_the_range_in():
    positive = NORMAL[NORMAL > 0]
    grid = {"bits": 8, "symmetric": False, "signed": False}
    plain = histogram_range(histogram_of(positive), "entropy", **grid)
    for zeros in (1_000, 100_000):
        x = np.concatenate([positive, np.zeros(zeros, np.float32)])
        assert histogram_range(histogram_of(x), "entropy", **grid) == plain


def test_a_channel_of_few_values_keeps_them_all():
    w = RNG.normal(size=(6, 9)).astype(np.float32)
    low, high = weight_range(w, (0,), "entropy", bits=8, symmetric=True, signed=True)
    np.testing.assert_array_equal(low[:, 0], np.minimum(w.min(axis=1), 0))
    np.testing.assert_array_equal(high[:, 0], np.maximum(w.max(axis=1), 0))


def test_the_range_is_the_factor_of_least_divergence():
    bins = row_bins(np.append(NORMAL[:2000], 10.0)[None])
    grid = GridKind(4, *SYMMETRIC)
    ends = FACTORS[:, None] * np.stack([bins.low, bins.high])[:, None]
    best = FACTORS[np.argmin(divergence(bins, grid)(*ends))]
    assert best < 1.0
    low, high = entropy_range(bins, grid)
    assert (low[0], high[0]) == (best * bins.low[0], best * bins.high[0])


def test_many_channels_take_several_blocks(monkeypatch):
    monkeypatch.setattr("keras_edgeq.numerics.entropy.BLOCK", 1000)
    rows = RNG.laplace(size=(100, 30))
    low, high = entropy_range(row_bins(rows), GridKind(4, *ASYMMETRIC))
    for c in (0, len(rows) - 1):
        alone = entropy_range(row_bins(rows[c : c + 1]), GridKind(4, *ASYMMETRIC))
        assert (low[c], high[c]) == (alone[0][0], alone[1][0])
