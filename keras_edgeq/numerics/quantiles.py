"""Distributions held as quantiles, so that any function of a tensor is a function of points."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_edgeq.numerics.histogram import BINS, HALF, Histogram, exponent_for

# Even, so that the mean is a point of its own.
INTERVALS = 256
# Counts for each value of a histogram. All values of a tensor then stay below 2^53.
COUNTS = 2**24


class Quantiles:
    """Holds distributions of channels as points `[INTERVALS + 1, channels]`.

    The points of a normal distribution lie evenly between its mean minus and plus `deviations`
    standard deviations; nothing is outside. What happens to the tensor happens to the points. The
    share between two neighbours stays the same and counts as spread evenly, so equal neighbours
    are an atom: the zeros behind a ReLU. Between the ends, which are exact, a distribution is
    right to about one share, at most 2 %.

    Args:
        deviations: where normal distributions end, in standard deviations.
    """

    def __init__(self, deviations: float):
        self.normal_points = np.linspace(-deviations, deviations, INTERVALS + 1)
        below = np.array([math.erf(z / math.sqrt(2.0)) for z in self.normal_points])
        self.levels = (below - below[0]) / (below[-1] - below[0])
        self.shares = np.diff(self.levels)

    def normal(self, mean: ArrayLike, deviation: ArrayLike) -> NDArray[np.float32]:
        """Return normal distributions, one per channel."""
        mean, deviation = (np.asarray(v, np.float64).ravel() for v in (mean, deviation))
        return _float32(mean + self.normal_points[:, None] * deviation)

    def within(
        self, mean: ArrayLike, variance: ArrayLike, low: ArrayLike, high: ArrayLike
    ) -> NDArray[np.float32]:
        """Return normal distributions whose tails are clipped to bounds."""
        points = self.normal(mean, np.sqrt(np.maximum(variance, 0.0)))
        return np.clip(points, _float32(low), _float32(high))

    def uniform(self, low: float, high: float) -> NDArray[np.float32]:
        """Return one channel that is evenly distributed."""
        # The ends are exact: low + (high - low) may round to something else than high.
        points = low * (1.0 - self.levels) + high * self.levels
        return _float32(points[:, None])

    def empirical(self, values: NDArray) -> NDArray[np.float32]:
        """Return the distribution of given values `[values, channels]`."""
        return _float32(np.quantile(np.asarray(values, np.float64), self.levels, axis=0))

    def moments(self, points: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return mean and variance per channel."""
        points = np.asarray(points, np.float64)
        mean = self.shares @ (points[:-1] + points[1:]) / 2
        a, b = points[:-1] - mean, points[1:] - mean
        return mean, self.shares @ (a * a + a * b + b * b) / 3

    def mixture(self, points: NDArray) -> NDArray[np.float32]:
        """Join channels `[INTERVALS + 1, joined, channels]` to a normal distribution.

        Mean and variance are theirs except for the tails that their extremes cut off.
        """
        mean, variance = self.moments(points.reshape(len(points), -1))
        mean, variance = (v.reshape(points.shape[1:]) for v in (mean, variance))
        low, high = points.min(axis=(0, 1)), points.max(axis=(0, 1))
        total = variance.mean(axis=0) + mean.var(axis=0)
        joined = self.within(mean.mean(axis=0), total, low, high)
        joined[0], joined[-1] = low, high
        return joined

    def histogram(self, points: NDArray, values: float) -> Histogram:
        """Return the histogram of all channels, with counts in proportion to a number of values."""
        low, high = float(points.min()), float(points.max())
        exponent = exponent_for(low, high)
        shares = np.repeat(self.shares, points.shape[1]) / points.shape[1]
        bins = points.astype(np.float64) / 2.0**exponent + HALF
        starts, stops = np.minimum(bins[:-1], bins[1:]), np.maximum(bins[:-1], bins[1:])
        counts = _spread(starts.ravel(), stops.ravel(), shares) * values * COUNTS
        counts = np.rint(counts).astype(np.int64)
        for end in (low, high):  # an extreme is a value, however rare
            index = math.floor(end / 2.0**exponent) + HALF
            counts[index] = max(counts[index], 1)
        return Histogram(counts, exponent, low, high)


def _float32(values: ArrayLike) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)


def _spread(starts: NDArray, stops: NDArray, shares: NDArray) -> NDArray[np.float64]:
    """Spread shares evenly over stretches of bins, given in bins from the left."""
    first, last = np.floor(starts).astype(np.int64), np.floor(stops).astype(np.int64)
    inside = first == last
    counts = np.zeros(BINS)
    counts += np.bincount(first[inside], shares[inside], BINS)
    starts, stops, first, last, shares = (v[~inside] for v in (starts, stops, first, last, shares))
    density = shares / (stops - starts)
    counts += np.bincount(first, density * (first + 1 - starts), BINS)
    counts += np.bincount(last, density * (stops - last), BINS)
    steps = np.zeros(BINS)
    # Only stretches with whole bins inside: their density is small, so the sums stay exact.
    several = last > first + 1
    steps += np.bincount(first[several] + 1, density[several], BINS)
    steps -= np.bincount(last[several], density[several], BINS)
    return counts + np.maximum(np.cumsum(steps), 0.0)
