"""How far results reach, in steps of their grid, before kernels of LiteRT cut them to its ends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keras_edgeq.spec.encoding import Encoding

TOO_FAR = "its results reach too far beyond their grid for the numbers inside LiteRT's kernel"
# Its vector kernels of 8 bits add the zero point in 16 bits, without a check.
PAIRS = ("ADD", "SUB", "MUL")
MOST_STEPS_OF_PAIRS = 2.0**15 - 2.0**8
# Sums of 16 bits end the process from here on; elsewhere numbers of 32 bits wrap somewhat later.
MOST_STEPS = 2.0**29
# XNNPACK loads no model in which a step of sums of products is worth so many of their result.
MOST_FACTOR = 256.0


def pair_fits(name: str, operands: Sequence[Encoding], result: Encoding) -> bool:
    """Tell whether a kernel adds, subtracts or multiplies on these grids without wrapping.

    Args:
        name: of the operation in TFLite's schema.
        operands: their grids.
        result: its grid, with one scale.
    """
    ends = [_most(grid) for grid in operands]
    most = np.prod(ends) if name == "MUL" else np.sum(ends)
    limit = MOST_STEPS_OF_PAIRS if result.spec.bits == 8 else MOST_STEPS
    return bool(most < limit * np.float64(result.scale))


def sums_fit(
    weight: np.ndarray, scales: np.ndarray, bias: np.ndarray, data: Encoding, result: Encoding
) -> bool:
    """Tell whether a kernel sums products on these grids without wrapping.

    Args:
        weight: real weights, kept channels first: `(channels, ...)`.
        scales: of the weights, one or one per channel.
        bias: real numbers, one or one per channel.
        data: the grid of what is multiplied.
        result: its grid, with one scale.
    """
    step = np.float64(result.scale)
    sums = np.abs(weight.reshape(len(weight), -1)).sum(1, dtype=np.float64)
    most = np.max(sums * _most(data) + np.abs(bias), initial=0.0)
    factor = np.max(scales, initial=0.0) * np.float64(data.scale) / step
    return bool(most < MOST_STEPS * step) and not (result.spec.bits == 8 and factor >= MOST_FACTOR)


def _most(grid: Encoding) -> float:
    return float(np.max(np.abs([grid.min, grid.max])))
