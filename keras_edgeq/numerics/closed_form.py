"""Rounding of a matrix so that its product with given inputs changes least.

`columns` `[groups, inputs, outputs]` are multiplied by rows whose Gram matrix, per group, is `gram`
`[groups, inputs, inputs]`. The error of a rounded matrix R is, summed over outputs,
`(R - columns)' gram (R - columns)`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

BLOCK = 64


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the elements of a column may lie: `scale * q`, low <= q <= high.

    Args:
        scale: positive, `[groups, inputs, outputs]` or what broadcasts to it.
        low: least integer, less the zero point; broadcasts alike.
        high: greatest.
    """

    scale: NDArray
    low: NDArray | float
    high: NDArray | float

    def of_inputs(self, order: NDArray) -> Grid:
        """Return the grid of columns whose inputs are in another order, `[groups, inputs]`."""
        if np.ndim(self.scale) < 3 or self.scale.shape[1] == 1:
            return self
        full = np.broadcast_to(self.scale, (len(order), *self.scale.shape[1:]))
        return replace(self, scale=np.take_along_axis(full, order[:, :, None], axis=1))

    def at(self, part: slice) -> Grid:
        """Return the grid of some inputs."""
        if np.ndim(self.scale) < 3 or self.scale.shape[1] == 1:
            return self
        return replace(self, scale=self.scale[:, part])

    def nearest(self, values: NDArray) -> NDArray:
        """Round to the nearest point, ties to even."""
        return np.clip(np.rint(values / self.scale), self.low, self.high) * self.scale


def error(columns: NDArray, rounded: NDArray, gram: NDArray) -> NDArray:
    """Return the squared error of the products per group and output, `[groups, outputs]`."""
    difference = rounded - columns
    return np.maximum(np.sum(difference * (gram @ difference), axis=1), 0.0)


def round_forward(columns: NDArray, gram: NDArray, grid: Grid) -> NDArray:
    """Round input by input, each time moving the error onto the inputs that follow.

    Inputs of large power come first. `gram` must be positive definite.

    Reference:
        Frantar et al. 2022, arXiv:2210.17323, with the Cholesky form of its section 3.3.
    """
    groups, inputs, _ = columns.shape
    order = np.argsort(-np.einsum("gii->gi", gram), axis=1, kind="stable")
    rows = np.arange(groups)[:, None]
    gram = gram[rows[:, :, None], order[:, :, None], order[:, None, :]]
    left, grid = columns[rows, order].astype(np.float64), grid.of_inputs(order)
    # The upper factor of the inverse: its rows say how an error spreads over what follows.
    upper = np.swapaxes(np.linalg.cholesky(np.linalg.inv(gram)), 1, 2)
    rounded = np.empty_like(left)
    for start in range(0, inputs, BLOCK):
        stop = min(start + BLOCK, inputs)
        errors = np.empty_like(left[:, start:stop])
        for i in range(start, stop):
            here = slice(i, i + 1)
            rounded[:, here] = grid.at(here).nearest(left[:, here])
            errors[:, i - start] = (left[:, i] - rounded[:, i]) / upper[:, i, i, None]
            left[:, i:stop] -= upper[:, i, i:stop, None] * errors[:, i - start, None]
        left[:, stop:] -= np.swapaxes(upper[:, start:stop, stop:], 1, 2) @ errors
    restored = np.empty_like(rounded)
    restored[rows, order] = rounded
    return restored


def descend(
    columns: NDArray, rounded: NDArray, gram: NDArray, grid: Grid, sweeps: int = 4
) -> NDArray:
    """Move single elements to better points until none improves, at most `sweeps` times over all.

    Reference:
        Coordinate descent on the layer's squared error: Behdin et al. 2023, arXiv:2309.01885.
    """
    rounded = rounded.astype(np.float64)
    power = np.einsum("gii->gi", gram)
    for _ in range(sweeps):
        moved = False
        slope = gram @ (rounded - columns)
        for start in range(0, columns.shape[1], BLOCK):
            stop = min(start + BLOCK, columns.shape[1])
            before = rounded[:, start:stop].copy()
            for i in range(start, stop):
                now = rounded[:, i : i + 1]
                best = grid.at(slice(i, i + 1)).nearest(
                    now - slope[:, i : i + 1] / power[:, i, None, None]
                )
                change = best - now
                if np.any(change):
                    rounded[:, i : i + 1] = best
                    slope[:, start:stop] += gram[:, start:stop, i, None] * change
            change = rounded[:, start:stop] - before
            if np.any(change):
                moved = True
                spread = gram[:, :, start:stop] @ change
                spread[:, start:stop] = 0.0
                slope += spread
        if not moved:
            break
    return rounded
