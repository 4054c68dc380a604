"""What a weighted layer's inputs and wanted outputs come to in a least-squares problem."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Shares of the inputs' mean power, from hardly any pull towards the given columns to a strong one.
DAMPS = tuple(10.0 ** (exponent / 2) for exponent in range(-6, 3))
SMALLEST = 1e-12
MOST_SHRINKAGE = 0.95


@dataclass(frozen=True, eq=False)
class LeastSquares:
    """Columns that map inputs onto wanted outputs best; means are taken out where there is a bias.

    Args:
        gram: `[groups, inputs, inputs]`, mean products of inputs.
        cross: `[groups, inputs, outputs]`, mean products of inputs and wanted outputs.
        power: `[groups, 1, outputs]`, mean square of the wanted outputs.
        mean_in: `[groups, inputs, 1]`, what was taken out.
        mean_out: `[groups, 1, outputs]`.
    """

    gram: NDArray
    cross: NDArray
    power: NDArray
    mean_in: NDArray
    mean_out: NDArray

    def damped(self, columns: NDArray, damp: float | NDArray) -> LeastSquares:
        """Return the problem drawn towards `columns`: ridge regression around them.

        Its squared error counts `damp` (one, or one per group) times the inputs' mean power for
        each unit that columns are away from those given.
        """
        level = np.reshape(damp, (-1, 1, 1)) * self._input_power() + SMALLEST
        gram = self.gram + level * np.eye(self.gram.shape[-1])
        cross = self.cross + level * columns
        return LeastSquares(gram, cross, self.power, self.mean_in, self.mean_out)

    def solve(self) -> NDArray:
        """Return the best columns in real numbers."""
        return np.linalg.solve(self.gram, self.cross)

    def loss(self, columns: NDArray) -> NDArray:
        """Return the mean squared error of columns with the best bias, `[groups, outputs]`."""
        own = np.sum(columns * (self.gram @ columns - 2.0 * self.cross), axis=1)
        return np.maximum(own + self.power[:, 0], 0.0)

    def bias(self, columns: NDArray) -> NDArray:
        """Return the bias `[groups, 1, outputs]` with which columns err by nothing on average."""
        return self.mean_out - np.swapaxes(self.mean_in, 1, 2) @ columns

    def gain(self, columns: NDArray) -> NDArray:
        """Return the factor per output `[groups, 1, outputs]` that makes columns fit best."""
        own = np.sum(columns * (self.gram @ columns), axis=1, keepdims=True)
        wanted = np.sum(columns * self.cross, axis=1, keepdims=True)
        return np.where(own > 0.0, wanted / np.where(own > 0.0, own, 1.0), 1.0)

    def _input_power(self) -> NDArray:
        return np.einsum("gii->g", self.gram)[:, None, None] / self.gram.shape[-1]


@dataclass(frozen=True, eq=False)
class _Moments:
    """Means, and sums of products about them: an input that never changes leaves exactly zero."""

    count: int
    mean_in: NDArray
    mean_out: NDArray
    gram: NDArray
    cross: NDArray
    squares: NDArray

    @staticmethod
    def of(rows: NDArray, outputs: NDArray) -> _Moments:
        mean_in, mean_out = (np.float32(a.mean(1, np.float64)[:, None]) for a in (rows, outputs))
        rows, outputs = rows - mean_in, outputs - mean_out
        turned = np.swapaxes(rows, 1, 2)
        return _Moments(
            rows.shape[1],
            np.swapaxes(mean_in + rows.mean(1, np.float64)[:, None], 1, 2),
            mean_out + outputs.mean(1, np.float64)[:, None],
            (turned @ rows).astype(np.float64),
            (turned @ outputs).astype(np.float64),
            np.square(outputs).sum(1, dtype=np.float64, keepdims=True),
        )

    def __add__(self, other: _Moments) -> _Moments:
        count = self.count + other.count
        share = other.count / count
        weight = share * self.count
        apart_in, apart_out = other.mean_in - self.mean_in, other.mean_out - self.mean_out
        return _Moments(
            count,
            self.mean_in + share * apart_in,
            self.mean_out + share * apart_out,
            self.gram + other.gram + weight * (apart_in @ np.swapaxes(apart_in, 1, 2)),
            self.cross + other.cross + weight * (apart_in @ apart_out),
            self.squares + other.squares + weight * apart_out**2,
        )

    def problem(self, centered: bool) -> LeastSquares:
        n, mean_in, mean_out = self.count, self.mean_in, self.mean_out
        gram, cross, power = self.gram / n, self.cross / n, self.squares / n
        if not centered:
            gram = gram + mean_in @ np.swapaxes(mean_in, 1, 2)
            cross, power = cross + mean_in @ mean_out, power + mean_out**2
            mean_in, mean_out = np.zeros_like(mean_in), np.zeros_like(mean_out)
        return LeastSquares(gram, cross, power, mean_in, mean_out)


class NormalEquations:
    """Sums of products over rows, in two halves of the data that can judge each other.

    Args:
        centered: take means out, as the bias of a layer does.
    """

    def __init__(self, centered: bool):
        self.centered = centered
        self._halves: list[_Moments | None] = [None, None]

    def add(self, rows: NDArray, outputs: NDArray, half: int) -> None:
        """Take float32 rows `[groups, n, inputs]` and the outputs `[groups, n, ...]` wanted.

        Sums are kept in float64, so that long data loses nothing.
        """
        if not rows.shape[1]:
            return
        seen = _Moments.of(rows, outputs)
        held = self._halves[half]
        self._halves[half] = seen if held is None else held + seen

    def least_squares(self, centered: bool | None = None) -> LeastSquares:
        """Return the problem over all rows, means taken out or not."""
        first, *rest = [half for half in self._halves if half is not None]
        return sum(rest, first).problem(self.centered if centered is None else centered)

    def choose_damp(self, columns: NDArray) -> float:
        """Return the damping with which columns fitted on one half do best on the other.

        With one half only, the strongest: there is nothing to judge by.
        """
        halves = self._problems()
        if halves is None:
            return DAMPS[-1]
        pairs = [halves, halves[::-1]]

        def judged(damp: float) -> float:
            fits = ((own.damped(columns, damp).solve(), other) for own, other in pairs)
            return sum(float(np.sum(other.loss(fit))) for fit, other in fits)

        return min(DAMPS, key=judged)

    def shrinkage(self) -> NDArray:
        """Return the damping per group that makes the Gram matrix the best guess of the true one.

        How far the halves are apart says how far their mean is from the truth.

        Reference:
            Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance
            matrices", Journal of Multivariate Analysis 88, equation 14.
        """
        halves = self._problems()
        gram = self.least_squares().gram
        if halves is None:
            return np.full(len(gram), MOST_SHRINKAGE / (1.0 - MOST_SHRINKAGE))
        noise = np.sum((halves[0].gram - halves[1].gram) ** 2, axis=(1, 2)) / 4.0
        power = np.einsum("gii->g", gram)[:, None, None] / gram.shape[-1]
        spread = np.sum((gram - power * np.eye(gram.shape[-1])) ** 2, axis=(1, 2))
        share = np.divide(noise, spread, out=np.zeros_like(noise), where=spread > 0.0)
        share = np.minimum(share, MOST_SHRINKAGE)
        return share / (1.0 - share)

    def _problems(self) -> list[LeastSquares] | None:
        """Return the problems of both halves, None if one has no data."""
        halves = [half.problem(self.centered) for half in self._halves if half is not None]
        return halves if len(halves) == 2 else None
