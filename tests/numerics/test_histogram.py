import functools
import io
import itertools

import numpy as np
import pytest
import tensorflow as tf

from keras_edgeq.numerics.histogram import (
    BINS,
    HALF,
    MAX_EXPONENT,
    MIN_EXPONENT,
    MOMENTUM,
    Histogram,
    bin_counts,
    coarsen,
    empty,
    exponent_for,
    graph_exponent,
    join,
    merge,
    observe,
    of_batch,
    range_of,
)
from tests import reference

FINFO = np.finfo(np.float32)
observe_graph = tf.function(observe)
counts_graph = tf.function(bin_counts)
exponent_graph = tf.function(graph_exponent)


def histogram_of(x, exponent=MIN_EXPONENT):
    results = observe_graph(tf.constant(x, tf.float32), tf.constant(exponent))
    names = ("counts", "exponent", "low", "high")
    return Histogram.from_arrays({k: v.numpy() for k, v in zip(names, results, strict=True)})


def assert_same(a, b):
    np.testing.assert_array_equal(a.counts, b.counts)
    assert (a.exponent, a.low, a.high) == (b.exponent, b.low, b.high)


def powers_and_neighbours():
    for k in [*range(-126, 128, 7), -111, -101, -100, -90, -89, -88, -1, 0, 1, 10, 11, 12, 127]:
        power = np.float32(2.0**k)
        for sign in (-1, 1):
            yield from (sign * v for v in (power, np.nextafter(power, np.float32(0.0)),
                                           np.nextafter(power, FINFO.max)))  # fmt: skip


def batches():
    """Batches whose ranges force several growths, with both signs, zeros and extremes."""
    rng = np.random.default_rng(0)
    scales = [1e-20, 1.0, 300.0, 1e-3, 1e9]
    random = [(rng.normal(size=200) * s).astype(np.float32) for s in scales]
    return [*random, np.zeros(5, np.float32), np.float32([-8.0, 8.0, -2048.0, FINFO.tiny])]


@pytest.mark.parametrize("scale", [1e-25, 1e-3, 1.0, 77.0, 1e30])
def test_counts_and_exponent_equal_the_reference(scale):
    x = (np.random.default_rng(1).normal(size=(20, 5, 4)) * scale).astype(np.float32)
    h = histogram_of(x)
    assert h.exponent == reference.histogram_exponent(x)
    np.testing.assert_array_equal(h.counts, reference.histogram_counts(x, h.exponent))
    assert (h.low, h.high, h.total) == (x.min(), x.max(), x.size)


def test_values_on_edges_belong_to_the_bin_above():
    x = np.float32([-2048, -2047, -1, 0, 1, 2047])
    h = histogram_of(x)
    assert h.exponent == 0
    np.testing.assert_array_equal(np.flatnonzero(h.counts) - HALF, x)
    np.testing.assert_array_equal(h.bin_edges[:-1] + 0.5, h.bin_centers)
    assert histogram_of(np.float32([2048])).exponent == 1


def test_every_order_and_every_batching_gives_the_same_bits():
    parts = batches()
    whole = histogram_of(np.concatenate(parts))
    assert whole.exponent == reference.histogram_exponent(np.concatenate(parts))
    for order in itertools.islice(itertools.permutations(parts), 0, None, 211):
        merged = functools.reduce(merge, [histogram_of(p) for p in order], empty())
        assert_same(merged, whole)
        running, exponent = empty(), MIN_EXPONENT
        for part in order:
            h = histogram_of(part, exponent)
            exponent, running = h.exponent, merge(running, h)
        assert_same(running, whole)


def test_merging_is_associative():
    a, b, c, *_ = (histogram_of(p) for p in batches())
    assert_same(merge(merge(a, b), c), merge(a, merge(b, c)))


def test_coarser_bins_equal_those_counted_directly():
    x = np.concatenate([np.random.default_rng(2).normal(size=300), [-1e-9, 0.0, 1e-9]])
    x = x.astype(np.float32)
    h = histogram_of(x)
    for step in (0, 1, 2, 11, 12, 13, 40, MAX_EXPONENT - h.exponent):
        wide = coarsen(h, h.exponent + step)
        assert_same(wide, histogram_of(x, h.exponent + step))
        np.testing.assert_array_equal(wide.counts, reference.histogram_counts(x, h.exponent + step))


def test_tiny_negative_values_stay_below_zero_in_the_widest_bins():
    x = np.float32([-FINFO.tiny, FINFO.tiny, 0.0, -0.0])
    counts = counts_graph(x, MAX_EXPONENT).numpy()
    assert counts[HALF - 1] == 1
    assert counts[HALF] == 3


def test_bins_are_not_split():
    with pytest.raises(ValueError, match="cannot be split"):
        coarsen(histogram_of(np.float32([1.0])), MIN_EXPONENT)
    with pytest.raises(ValueError, match="not in"):
        coarsen(empty(), MAX_EXPONENT + 1)


def test_the_graph_finds_the_exponent_of_numpy_at_powers_of_two_and_neighbours():
    for value in powers_and_neighbours():
        low, high = np.float32(min(value, 0.0)), np.float32(max(value, 0.0))
        k = exponent_for(float(low), float(high))
        assert k == reference.histogram_exponent([low, high])
        assert k == int(exponent_graph(low, high, MIN_EXPONENT))
        assert max(k, 3) == int(exponent_graph(low, high, 3))


@pytest.mark.parametrize(("low", "high"), [
    (0.0, 0.0), (-0.0, 0.0), (-1.0, 1.0), (-1.0, 0.99), (-0.99, 1.0), (2.0, 3.0), (-3.0, -2.0),
    (float(FINFO.min), float(FINFO.max)), (-(2.0**127), 1.0), (-1e-42, 1e-42),
])  # fmt: skip
def test_the_graph_finds_the_exponent_of_numpy_on_special_ranges(low, high):
    k = exponent_for(low, high)
    assert MIN_EXPONENT <= k <= MAX_EXPONENT
    assert k == reference.histogram_exponent([low, high])
    assert k == int(exponent_graph(np.float32(low), np.float32(high), MIN_EXPONENT))


def test_the_largest_float32_numbers_have_a_bin():
    h = histogram_of(np.float32([FINFO.min, FINFO.max, 0.0]))
    assert h.exponent == MAX_EXPONENT
    assert h.total == 3


def test_all_zero_data_keeps_the_smallest_exponent():
    h = histogram_of(np.zeros((3, 3), np.float32))
    assert (h.exponent, h.low, h.high, h.counts[HALF]) == (MIN_EXPONENT, 0.0, 0.0, 9)


def test_constant_data_fills_one_bin():
    for value in (np.float32(3.7), np.float32(-3.7)):
        h = histogram_of(np.full(7, value))
        index = int(np.flatnonzero(h.counts)[0])
        assert h.counts[index] == 7
        assert h.low == h.high == value
        assert h.bin_edges[index] <= value < h.bin_edges[index + 1]


@pytest.mark.parametrize("position", [0, 50, 99])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_data_that_is_not_finite_shows_in_the_range_and_leaves_the_state_alone(bad, position):
    x = np.random.default_rng(0).normal(size=100).astype(np.float32)
    x[position] = bad
    counts, exponent, low, high = observe_graph(x, tf.constant(-3))
    assert not (np.isfinite(low) and np.isfinite(high))
    assert int(exponent) == -3
    assert not np.any(counts)
    if np.isnan(bad):
        assert np.isnan(range_of(x)).all()
    with pytest.raises(ValueError, match="not finite"):
        exponent_for(float(low), float(high))


def test_an_empty_batch_is_the_empty_histogram():
    assert_same(histogram_of(np.zeros([0, 3], np.float32)), empty())
    h = histogram_of(np.float32([1.0, -2.0]))
    assert_same(merge(h, empty()), h)


def test_half_precision_batches_are_counted_as_float32():
    x = np.random.default_rng(0).normal(size=64).astype(np.float16)
    counts, exponent, low, high = observe_graph(x, tf.constant(MIN_EXPONENT))
    assert_same(
        histogram_of(x.astype(np.float32)),
        Histogram(counts.numpy(), int(exponent), float(low), float(high)),
    )


def test_one_trace_serves_every_batch_size_and_exponent():
    traces = []

    @tf.function(input_signature=[tf.TensorSpec([None, 3]), tf.TensorSpec([], tf.int32)])
    def step(x, exponent):
        traces.append(1)
        return observe(x, exponent)

    for rows, exponent in [(2, MIN_EXPONENT), (5, 0), (1, 20)]:
        counts, *_ = step(tf.ones([rows, 3]), exponent)
        assert counts.dtype == tf.int32
        assert int(np.sum(counts)) == 3 * rows
    assert len(traces) == 1


def batch_of(x):
    h = histogram_of(x)
    return of_batch(h.counts, h.exponent, h.low, h.high)


def averages(h):
    return h.average_low, h.average_high, h.batches


def test_moving_averages_do_not_depend_on_how_the_batches_are_grouped():
    parts = [batch_of(p) for p in batches()[1:]]
    whole = functools.reduce(merge, parts, empty())
    halves = merge(functools.reduce(merge, parts[:4]), functools.reduce(merge, parts[4:]))
    assert averages(halves) == pytest.approx(averages(whole), rel=1e-12)
    lows = [p.low for p in parts]
    assert whole.average_low == pytest.approx(reference.moving_average(lows, MOMENTUM))
    assert whole.batches == len(parts)


def test_moving_averages_weigh_later_batches_more():
    a, b = batch_of(np.float32([-1.0, 2.0])), batch_of(np.float32([-3.0, 8.0]))
    assert averages(a) == (-1.0, 2.0, 1)
    assert averages(merge(a, empty())) == averages(merge(empty(), a)) == averages(a)
    assert merge(a, b).average_high > 5.0 > merge(b, a).average_high
    assert merge(a, b).average_low < -2.0 < merge(b, a).average_low
    assert averages(coarsen(merge(a, b), 3)) == averages(merge(a, b))


def test_two_tensors_on_one_grid_have_the_wider_averages_in_either_order():
    batches = [[-1.0, 2.0], [-2.0, 3.0]], [[0.0, 5.0], [-1.0, 4.0]]
    a, b = (merge(*(batch_of(np.float32(part)) for part in parts)) for parts in batches)
    both = join(a, b)
    assert averages(both) == averages(join(b, a)) == (a.average_low, b.average_high, 2)
    assert_same(both, merge(a, b))
    assert join(a, histogram_of(np.float32([1.0]))).batches == 0


def test_averages_that_are_not_known_stay_so():
    known, unknown = batch_of(np.float32([1.0])), histogram_of(np.float32([2.0]))
    assert merge(known, unknown).batches == merge(unknown, known).batches == 0


def test_files_keep_every_bit():
    h = functools.reduce(merge, [batch_of(p) for p in batches()])
    file = io.BytesIO()
    np.savez(file, **h.to_arrays())
    file.seek(0)
    loaded = Histogram.from_arrays(np.load(file, allow_pickle=False))
    assert_same(loaded, h)
    assert averages(loaded) == averages(h)


@pytest.mark.parametrize("change", [
    {"counts": np.zeros(5, np.int64)}, {"counts": np.zeros(BINS)},
    {"counts": -np.ones(BINS, np.int64)}, {"exponent": 500},
])  # fmt: skip
def test_malformed_arrays_are_errors(change):
    with pytest.raises(ValueError, match=r"non-negative integers|Exponent 500"):
        Histogram.from_arrays(empty().to_arrays() | change)
