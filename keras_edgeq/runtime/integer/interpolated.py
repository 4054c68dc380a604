"""Tables of functions for int16: 513 points, with a straight line between two of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from keras_edgeq.runtime.integer.call import Call

PIECES = 512


def interpolated(function: Callable[[np.ndarray], np.ndarray]):
    """Return the kernel of a function that is tabulated over all integers of its input's grid.

    Args:
        function: float64 to float64.
    """

    def kernel(call: Call) -> np.ndarray:
        limits = np.array([-32768, 32767], np.float32)
        low, high = call.inputs[0].step * limits
        least, most = call.out.step * limits
        # All in float32, in the order of the C code.
        step = (high - low) / np.float32(PIECES)
        places = low + np.arange(PIECES + 1, dtype=np.float32) * step
        between = places[:-1] + step / np.float32(2.0)
        per_unit = np.float32(65536.0) / (most - least)

        def steps(x: np.ndarray) -> np.ndarray:
            return function(x.astype(np.float64)).astype(np.float32) * per_unit

        last = steps(np.array([high]))
        table = corrected(steps(places), steps(between), last)
        return look_up(table, call.values[0].astype(np.int64)).astype(np.int16)

    return kernel


def corrected(ends: np.ndarray, middles: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Return a table of 513 integers.

    Each is shifted by half of the error that interpolation makes in the middle of its piece.

    Args:
        ends: the function at the 513 ends of the pieces, in integers before they are rounded.
        middles: in the middle of each piece.
        last: at the last end, as it is stored.
    """
    samples = away(ends[:-1])
    between = away((ends[1:] + samples) / 2)
    bias = away((between - away(middles)) / 2)
    return np.clip(np.append(samples - bias, away(last)), -32768, 32767).astype(np.int64)


def look_up(table: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the table's values at 16-bit integers, interpolated."""
    index, rest = 256 + (x >> 7), x & 127
    return table[index] + (((table[index + 1] - table[index]) * rest + 64) >> 7)


def away(x: np.ndarray) -> np.ndarray:
    """Round half away from zero, as C does."""
    return np.trunc(x + np.copysign(x.dtype.type(0.5), x))
