import numpy as np
import pytest

from keras_edgeq.numerics.bins import ROW_BINS, histogram_bins, row_bins, row_blocks
from keras_edgeq.numerics.histogram import Histogram, exponent_for
from tests import reference


def histogram_of(x):
    x = np.asarray(x, np.float32)
    exponent = exponent_for(float(x.min()), float(x.max()))
    counts = reference.histogram_counts(x, exponent)
    return Histogram(counts, exponent, float(x.min()), float(x.max()))


@pytest.mark.parametrize("low", [-3.1, -0.7, 1.3])
@pytest.mark.parametrize("high", [-0.7, 1.3, 3.1])
def test_the_bins_of_a_histogram_reach_over_its_values_and_zero(low, high):
    x = np.float32([min(low, high), max(low, high)])
    h = histogram_of(x)
    bins = histogram_bins(h)
    first = np.searchsorted(h.bin_edges, bins.start[0])
    stop = first + bins.counts.shape[1]
    assert h.bin_edges[first] <= min(*x, 0.0) < h.bin_edges[first + 1]
    assert h.bin_edges[stop - 1] <= max(*x, 0.0) <= h.bin_edges[stop]
    np.testing.assert_array_equal(bins.counts[0], h.counts[first:stop])
    np.testing.assert_array_equal(bins.edges[0], h.bin_edges[first : stop + 1])
    np.testing.assert_array_equal(bins.centers[0], h.bin_centers[first:stop])
    assert (bins.low[0], bins.high[0]) == (x[0], x[1])


@pytest.mark.parametrize("scale", [1e-40, 1e-3, 1.0, 1e30])
def test_rows_are_counted_each_in_its_own_range(scale, monkeypatch):
    monkeypatch.setattr("keras_edgeq.numerics.bins.BLOCK", 150)
    rows = (np.random.default_rng(0).normal(size=(5, 70)) * scale).astype(np.float32)
    rows[3], rows[4] = 0.0, np.abs(rows[4]) + scale
    bins = row_bins(rows)
    for c, row in enumerate(rows.astype(np.float64)):
        low, high = min(row.min(), 0.0), max(row.max(), 0.0)
        expected = np.zeros(ROW_BINS)
        for value in row:
            share = (value - low) / (high - low) if high > low else 0.0
            expected[min(int(share * ROW_BINS), ROW_BINS - 1)] += 1
        # A value on an edge may fall on either side of it.
        assert np.abs(np.cumsum(bins.counts[c] - expected)).max() <= 1
        assert bins.counts[c].sum() == 70
        assert (bins.low[c], bins.high[c]) == (row.min(), row.max())
        assert np.all(np.diff(bins.edges[c]) > 0)


def test_zeros_are_what_the_bin_of_zero_has_above_its_neighbours():
    smooth = np.linspace(-1, 1, 4001)
    assert histogram_bins(histogram_of(smooth)).zeros.sum() <= 1
    spiked = histogram_bins(histogram_of(np.concatenate([smooth, np.zeros(700)])))
    assert spiked.zeros.sum() == pytest.approx(700, abs=2)
    relu = histogram_bins(histogram_of(np.concatenate([smooth[2001:], np.zeros(700)])))
    assert relu.zeros[0, 0] == pytest.approx(700, abs=2)
    assert histogram_bins(histogram_of(smooth + 2.0)).zeros.sum() == 0


def test_mirrored_bins_are_those_of_the_negated_values():
    bins = histogram_bins(histogram_of([-3.0, -0.7, 0.2, 1.1]))
    mirror = bins.mirrored()
    np.testing.assert_array_equal(mirror.counts, bins.counts[:, ::-1])
    np.testing.assert_array_equal(mirror.edges, -bins.edges[:, ::-1])
    assert (mirror.low[0], mirror.high[0]) == (-bins.high[0], -bins.low[0])


def test_blocks_cover_every_row_once():
    for shape in [(7, 100_000), (1000, 9), (1, 1), (5, 0)]:
        parts = [range(*p.indices(shape[0])) for p in row_blocks(np.empty(shape))]
        assert [i for part in parts for i in part] == list(range(shape[0]))
