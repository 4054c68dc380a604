import math

import numpy as np
import pytest

from keras_edgeq.numerics.histogram import HALF
from keras_edgeq.numerics.quantiles import COUNTS, Quantiles

SIX = Quantiles(6.0)


def clipped_normal(mean, deviation, low, high):
    """Return mean and variance of a clipped normal variable, in closed form."""

    def density(z):
        return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    def below(z):
        return (1 + math.erf(z / math.sqrt(2))) / 2

    a, b = (low - mean) / deviation, (high - mean) / deviation
    inside = below(b) - below(a)
    first = mean * inside - deviation * (density(b) - density(a))
    second = (mean**2 + deviation**2) * inside
    second -= deviation * ((high + mean) * density(b) - (low + mean) * density(a))
    total = first + low * below(a) + high * (1 - below(b))
    return total, second + low**2 * below(a) + high**2 * (1 - below(b)) - total**2


@pytest.mark.parametrize("mean", [-2.0, -0.3, 0.0, 1.0, 5.0])
@pytest.mark.parametrize(("low", "high"), [(0.0, 100.0), (0.0, 6.0), (-1.0, 1.0)])
def test_moments_of_a_clipped_normal_are_those_of_the_closed_form(mean, low, high):
    points = np.clip(SIX.normal([mean], [1.5]), low, high)
    got = np.ravel(SIX.moments(points))
    np.testing.assert_allclose(got, clipped_normal(mean, 1.5, low, high), atol=2e-3)


def test_a_normal_ends_exactly_where_its_deviations_do():
    mean, deviation = np.array([0.3, -2.0]), np.array([1.1, 0.0])
    points = Quantiles(4.0).normal(mean, deviation)
    np.testing.assert_array_equal(points[0], np.float32(mean - 4 * deviation))
    np.testing.assert_array_equal(points[-1], np.float32(mean + 4 * deviation))


def test_moments_keep_their_precision_far_from_zero():
    mean, variance = SIX.moments(SIX.normal([1000.0], [0.5]))
    np.testing.assert_allclose(mean, 1000.0, rtol=1e-6)
    np.testing.assert_allclose(variance, 0.25, rtol=1e-3)


def test_a_uniform_range_has_exact_ends_and_moments():
    points = SIX.uniform(-0.1, 0.7)
    assert points[0, 0] == np.float32(-0.1)
    assert points[-1, 0] == np.float32(0.7)
    mean, variance = SIX.moments(points)
    np.testing.assert_allclose([mean[0], variance[0]], [0.3, 0.64 / 12], rtol=1e-5)


def test_a_mixture_keeps_mean_variance_and_extremes():
    parts = np.stack([SIX.normal([0.0], [1.0]), SIX.normal([3.0], [0.5])], axis=1)
    joined = SIX.mixture(parts)
    assert (joined.min(), joined.max()) == (parts.min(), parts.max())
    mean, variance = SIX.moments(joined)
    np.testing.assert_allclose([mean[0], variance[0]], [1.5, 0.625 + 2.25], rtol=0.01)


def test_a_histogram_of_relu6_has_the_shares_of_many_samples():
    mean, deviation = np.array([-1.0, 0.5, 4.0]), np.array([1.0, 2.0, 3.0])
    histogram = SIX.histogram(np.clip(SIX.normal(mean, deviation), 0.0, 6.0), 10.0)
    assert (histogram.low, histogram.high) == (0.0, 6.0)
    samples = np.random.default_rng(0).normal(mean, deviation, (200_000, 3)).clip(0.0, 6.0)
    assert histogram.total == pytest.approx(10 * COUNTS, rel=1e-6)
    shares = np.cumsum(histogram.counts) / histogram.total
    for bin_number in (0, 1, 200, 1000, 1500, 1535):
        edge = histogram.bin_edges[HALF + bin_number + 1]
        assert shares[HALF + bin_number] == pytest.approx(np.mean(samples < edge), abs=0.01)


def test_a_constant_is_one_bin():
    histogram = SIX.histogram(SIX.normal([2.5], [0.0]), 1.0)
    assert (histogram.low, histogram.high) == (2.5, 2.5)
    (used,) = np.flatnonzero(histogram.counts)
    assert histogram.bin_edges[used] <= 2.5 < histogram.bin_edges[used + 1]


def test_a_histogram_counts_its_extremes_however_rare():
    histogram = Quantiles(30.0).histogram(Quantiles(30.0).normal([0.0], [1.0]), 1.0)
    used = np.flatnonzero(histogram.counts)
    assert histogram.bin_edges[used[0]] <= -30.0 < histogram.bin_edges[used[0] + 1]
    assert histogram.bin_edges[used[-1]] <= 30.0 < histogram.bin_edges[used[-1] + 1]
