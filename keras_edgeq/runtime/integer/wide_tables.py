"""Logistic and tanh of 16 bits: one table of the sigmoid at multiples of 1/24, interpolated.

Both work on the input in steps of `1 / (3 * 4096)`: the table has 256 points of 16 bits, the bits
below them interpolate; `tanh(x) = 2 * sigmoid(2 x) - 1`.
"""

from __future__ import annotations

import numpy as np

from keras_edgeq.runtime.integer.call import Call

# LiteRT's table is the rounded sigmoid, but one more at these points.
RAISED = (
    4, 8, 12, 14, 15, 16, 17, 19, 20, 21, 22, 25, 27, 28, 29, 30, 31, 33, 34, 35, 37, 39, 40, 41,
    43, 44, 45, 46, 49, 50, 54, 62, 63, 64, 66, 82, 86, 93, 100, 103, 112, 116, 135, 255,
)  # fmt: skip
SIGMOID = np.rint(65536.0 / (1.0 + np.exp(-np.arange(256) / 24.0))).astype(np.int64)
SIGMOID[list(RAISED)] += 1


def logistic(call: Call) -> np.ndarray:
    """Compute `1 / (1 + exp(-x))` in 1/32768ths."""
    x = _in_table_steps(call)
    result = _interpolated(np.abs(x), 9, 0x7FFF << 10)
    rounded = np.where(x >= 0, result + (1 << 9), (1 << 25) - result + (1 << 9) - 1)
    return call.out.store(rounded >> 10)


def tanh(call: Call) -> np.ndarray:
    """Compute the hyperbolic tangent in 1/32768ths."""
    x = _in_table_steps(call)
    result = _interpolated(np.abs(x), 8, 0xFFFF << 8)
    half = 1 << 23
    rounded = np.where(x >= 0, result - half + (1 << 7), -result + half + (1 << 7) - 1)
    return call.out.store(rounded >> 8)


def _in_table_steps(call: Call) -> np.ndarray:
    scale = call.inputs[0].step
    log2 = np.log2(scale)
    if np.rint(log2) in (-12, -11) and abs(log2 - np.rint(log2)) < 1e-3:
        raise call.unlike("of 16 bits with a scale of 1/4096 or 1/2048")
    real, shift = np.float64(scale) * 4096.0 * 3.0, 0
    while real <= 32767.0 / 2.0 and shift <= 30:
        real, shift = 2.0 * real, shift + 1
    half = 1 << (shift - 1) if shift else 0
    return (call.values[0].astype(np.int64) * int(real) + half) >> shift


def _interpolated(x: np.ndarray, bits: int, last: int) -> np.ndarray:
    index, rest = x >> bits, x & ((1 << bits) - 1)
    inside = np.minimum(index, 254)
    low, high = SIGMOID[inside], SIGMOID[inside + 1]
    return np.where(index >= 255, last, (low << bits) + rest * (high - low))
