"""Streaming histograms that come out the same, bit for bit, for every order of the batches.

All bin edges are multiples of a power of two, and a histogram grows by adding neighbour bins, so
merging is exact integer arithmetic, associative and commutative. Only the moving averages of the
extremes weigh later batches more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

HALF_BITS = 11
HALF = 2**HALF_BITS
BINS = 2 * HALF
# Both powers 2**k and 2**-k are normal float32 numbers, and 2**117 * HALF covers all of float32.
MIN_EXPONENT = -100
MAX_EXPONENT = 117
# What a moving average keeps at each batch. Calibration sees tens to hundreds of batches, of which
# 0.999, usual in training, would hardly forget any.
MOMENTUM = 0.99
_MANTISSA_BITS = 23
_EXPONENT_MASK = 0xFF
_FREXP_BIAS = 126


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts of values in bins of width `2**exponent`.

    Args:
        counts: int64 `[BINS]`; bin i covers `[(i - HALF) * 2**exponent, (i - HALF + 1) *
            2**exponent)`.
        exponent: binary logarithm of the bin width, MIN_EXPONENT to MAX_EXPONENT.
        low: exact smallest value; infinity while empty.
        high: exact largest value; minus infinity while empty.
        average_low: moving average of the smallest values of the batches; NaN if not known.
        average_high: the same for the largest values.
        batches: number of batches in the averages; 0 if they are not known.
    """

    counts: NDArray[np.int64]
    exponent: int
    low: float
    high: float
    average_low: float = math.nan
    average_high: float = math.nan
    batches: int = 0

    @property
    def total(self) -> int:
        """Number of values counted."""
        return int(self.counts.sum())

    @property
    def bin_width(self) -> float:
        """Width of each bin."""
        return 2.0**self.exponent

    @property
    def bin_edges(self) -> NDArray[np.float64]:
        """The `BINS + 1` edges, ascending and exact."""
        return np.arange(-HALF, HALF + 1, dtype=np.float64) * np.float64(self.bin_width)

    @property
    def bin_centers(self) -> NDArray[np.float64]:
        """The `BINS` midpoints, ascending and exact."""
        return self.bin_edges[:-1] + self.bin_width / 2

    def to_arrays(self) -> dict[str, NDArray]:
        """Return the fields as arrays, ready for `np.savez`."""
        return {
            "counts": self.counts,
            "exponent": np.array(self.exponent, np.int32),
            "low": np.array(self.low),
            "high": np.array(self.high),
            "average_low": np.array(self.average_low),
            "average_high": np.array(self.average_high),
            "batches": np.array(self.batches),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping) -> Histogram:
        """Read `to_arrays` output, or the results of `observe` under the same names.

        Without the averages, which older files do not have, they are not known.

        Raises:
            ValueError: the counts are not `[BINS]` non-negative integers, or the exponent is out
                of range.
        """
        counts = np.asarray(arrays["counts"])
        exponent = int(arrays["exponent"])
        if counts.shape != (BINS,) or counts.dtype.kind not in "iu" or counts.min() < 0:
            raise ValueError(f"Histogram counts must be {BINS} non-negative integers.")
        _check_exponent(exponent)
        averages = (
            float(arrays.get("average_low", math.nan)),
            float(arrays.get("average_high", math.nan)),
            int(arrays.get("batches", 0)),
        )
        low, high = float(arrays["low"]), float(arrays["high"])
        return cls(counts.astype(np.int64), exponent, low, high, *averages)


def of_batch(counts: NDArray, exponent: int, low: float, high: float) -> Histogram:
    """Return the histogram of one batch, whose moving averages are its own extremes."""
    low, high = float(low), float(high)
    return Histogram(counts.astype(np.int64), int(exponent), low, high, low, high, 1)


def empty() -> Histogram:
    """Return the histogram of no values, the neutral element of `merge`."""
    return Histogram(np.zeros(BINS, np.int64), MIN_EXPONENT, math.inf, -math.inf)


def coarsen(histogram: Histogram, exponent: int) -> Histogram:
    """Widen the bins to `2**exponent` by adding neighbours; no count moves across an edge.

    Raises:
        ValueError: the exponent is below the histogram's own, or out of range.
    """
    _check_exponent(exponent)
    shift = exponent - histogram.exponent
    if shift < 0:
        raise ValueError(f"Bins of 2**{histogram.exponent} cannot be split to 2**{exponent}.")
    if shift == 0:
        return histogram
    target = (np.arange(-HALF, HALF) >> min(shift, HALF_BITS + 1)) + HALF
    counts = np.zeros(BINS, np.int64)
    np.add.at(counts, target, histogram.counts)
    return replace(histogram, counts=counts, exponent=exponent)


def merge(a: Histogram, b: Histogram) -> Histogram:
    """Return the histogram of the values of both, at the coarser of the two exponents.

    In the moving averages the batches of `b` come after those of `a`.
    """
    exponent = max(a.exponent, b.exponent)
    counts = coarsen(a, exponent).counts + coarsen(b, exponent).counts
    ends = min(a.low, b.low), max(a.high, b.high)
    return Histogram(counts, exponent, *ends, *_averages(a, b))


def join(a: Histogram, b: Histogram) -> Histogram:
    """Return the histogram of two tensors on one grid, which were seen in the same batches.

    Their moving averages are those of the lower and of the higher tensor.
    """
    ends = min(a.average_low, b.average_low), max(a.average_high, b.average_high)
    batches = min(a.batches, b.batches)
    return replace(merge(a, b), average_low=ends[0], average_high=ends[1], batches=batches)


def _averages(a: Histogram, b: Histogram) -> tuple[float, float, int]:
    """Join moving averages, each of which is a mean whose weights fall by MOMENTUM per batch.

    So the first batch alone is its own average, and few batches are averaged almost evenly.
    """
    if not (a.total and b.total):
        known = a if a.total else b
        return known.average_low, known.average_high, known.batches
    if not (a.batches and b.batches):
        return math.nan, math.nan, 0
    batches = a.batches + b.batches
    share = (1.0 - MOMENTUM**b.batches) / (1.0 - MOMENTUM**batches)
    return (
        a.average_low + share * (b.average_low - a.average_low),
        a.average_high + share * (b.average_high - a.average_high),
        batches,
    )


def exponent_for(low: float, high: float) -> int:
    """Return the smallest exponent whose bins hold every value of the closed range.

    Raises:
        ValueError: a bound is not finite.
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"The range ({low}, {high}) is not finite; check the data for NaN.")
    needed = [MIN_EXPONENT]
    if high > 0.0:
        needed.append(math.frexp(high)[1] - HALF_BITS)
    if low < 0.0:
        mantissa, power = math.frexp(low)
        # -HALF * width is itself inside, so a power of two needs one exponent less.
        needed.append(power - HALF_BITS - int(mantissa == -0.5))
    return max(needed)


def graph_exponent(low, high, previous_exponent):
    """Return `max(exponent_for(low, high), previous_exponent)` in graph ops, without logarithms.

    Args:
        low: float32 scalar, smallest value. NaN or infinity keeps the previous exponent.
        high: float32 scalar, largest value; NaN and infinity as for `low`.
        previous_exponent: int32 scalar.

    Returns:
        int32 scalar.
    """
    power_high, _ = _frexp(high)
    power_low, low_is_power_of_two = _frexp(low)
    power_low -= tf.cast(low_is_power_of_two, tf.int32)
    needed = tf.maximum(
        tf.where(high > 0.0, power_high - HALF_BITS, MIN_EXPONENT),
        tf.where(low < 0.0, power_low - HALF_BITS, MIN_EXPONENT),
    )
    finite = tf.math.is_finite(low) & tf.math.is_finite(high)
    needed = tf.where(finite, tf.maximum(needed, MIN_EXPONENT), MIN_EXPONENT)
    return tf.maximum(needed, previous_exponent)


def range_of(x):
    """Return float32 scalars `(min, max)`; NaN if `x` holds one, `(inf, -inf)` if it is empty."""
    x = tf.cast(x, tf.float32)
    return tf.reduce_min(x), tf.reduce_max(x)


def bin_counts(x, exponent):
    """Count values in the bins of `Histogram`.

    Subnormal numbers count as zero, because TensorFlow kernels flush them.

    Args:
        x: floating tensor of any shape; values outside the bins (see `exponent_for`)
            and NaN are miscounted or dropped, never an error.
        exponent: int32 scalar, MIN_EXPONENT to MAX_EXPONENT.

    Returns:
        int32 `[BINS]`.
    """
    x = tf.reshape(tf.cast(x, tf.float32), [-1])
    exponent = tf.convert_to_tensor(exponent, tf.int32)
    power = tf.bitwise.left_shift(_FREXP_BIAS + 1 - exponent, _MANTISSA_BITS)
    inverse_width = tf.bitcast(power, tf.float32)

    scaled = x * inverse_width
    # A tiny negative value over a large width underflows to 0 but belongs below it. No tf.cond
    # for the large widths only: per observed tensor that costs 60 ms of tracing, this 1 ns a value.
    scaled = tf.where(x < 0.0, tf.minimum(scaled, -0.5), scaled)
    index = tf.maximum(tf.cast(tf.floor(scaled), tf.int32) + HALF, 0)
    # The kernel of tf.math.bincount, without its extra pass for the largest index.
    return tf.raw_ops.Bincount(arr=index, size=BINS, weights=tf.zeros([0], tf.int32))


def observe(x, exponent):
    """Measure one batch in one traced call: range, exponent and counts.

    Args:
        x: floating tensor of any shape.
        exponent: int32 scalar, the exponent so far (`MIN_EXPONENT` at first).

    Returns:
        `(counts, exponent, low, high)`: int32 `[BINS]`, int32, float32, float32. The exponent is
        the given one or, if larger, the one the batch needs. If `x` is empty or holds NaN or
        infinity then low or high is not finite, the counts are zero and the exponent is kept.
    """
    return _observe(tf.reshape(tf.cast(x, tf.float32), [-1]), exponent)


@tf.function(
    input_signature=[tf.TensorSpec([None], tf.float32), tf.TensorSpec([], tf.int32)],
    autograph=False,
    experimental_attributes={"_noinline": True},
)
def _observe(x, exponent):
    """One function of a graph, however many tensors it observes: inline, each took 50 ms to trace.

    TensorFlow would put it inline, too, and take two thirds of the time to a first result for it.
    """
    low, high = range_of(x)
    exponent = graph_exponent(low, high, exponent)
    finite = tf.math.is_finite(low) & tf.math.is_finite(high)
    return tf.where(finite, bin_counts(x, exponent), 0), exponent, low, high


def _frexp(value):
    """Return the power of `math.frexp`, read from the bits, and whether |value| is 2**(power-1)."""
    bits = tf.bitcast(value, tf.int32)
    biased = tf.bitwise.right_shift(bits, _MANTISSA_BITS) & _EXPONENT_MASK
    return biased - _FREXP_BIAS, tf.equal(bits & (2**_MANTISSA_BITS - 1), 0)


def _check_exponent(exponent: int) -> None:
    if not MIN_EXPONENT <= exponent <= MAX_EXPONENT:
        raise ValueError(f"Exponent {exponent} is not in [{MIN_EXPONENT}, {MAX_EXPONENT}].")
