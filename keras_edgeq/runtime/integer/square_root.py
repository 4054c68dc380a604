"""The inverse of a square root as LiteRT computes it: Newton's method in fixed point."""

from __future__ import annotations

import numpy as np

from keras_edgeq.runtime.integer.call import Call
from keras_edgeq.runtime.integer.requantize import (
    Ints,
    divide_by_pot,
    high_mul,
    multiply,
    quantize_multiplier,
)

# The root is held with so many fractional bits.
FRACTION = 20
ONE, ONE_AND_HALF = 1 << 28, (1 << 28) + (1 << 27)  # with 3 bits before the point
HALF_SQRT_2 = 1518500250  # with none
INT32 = np.iinfo(np.int32)


def rsqrt(call: Call) -> np.ndarray:
    """Compute `1 / sqrt(x)`; of zero it is the greatest integer."""
    given, out = call.inputs[0], call.out
    x = call.zeroed(0)
    if np.any(x < 0):
        raise call.unlike("of a number below zero")
    # A product in float32, as the C code has it.
    real = np.float64(1.0) / np.float64(np.sqrt(given.step) * out.step)
    multiplier, shift = quantize_multiplier(real)
    root, root_shift = _inverse_root(np.maximum(x, 1))
    root = multiply(np.ones_like(x), root, root_shift + FRACTION)
    made = multiply(root, multiplier, shift - FRACTION) + out.zero_point
    return out.store(np.where(x == 0, out.limits[1], made))


def _inverse_root(x: Ints) -> tuple[Ints, Ints]:
    """Return `1 / sqrt(x)` of positive integers as multipliers of 31 bits and left shifts."""
    # Bring x into [2**27, 2**29) by a power of four; integers of 16 bits only grow.
    bits = np.frexp(x.astype(np.float64))[1].astype(np.int64)
    pairs = (31 - bits) // 2 - 1
    right = 11 - pairs
    half = divide_by_pot((x << 2 * pairs) >> 1, 1)
    y = np.full_like(x, ONE)
    for _ in range(5):
        cube = _scaled(high_mul(high_mul(y, y), y), 6)
        y = _scaled(high_mul(y, ONE_AND_HALF) - high_mul(half, cube), 3)
    root = high_mul(y, HALF_SQRT_2)
    root = np.where(right < 0, root << np.maximum(-right, 0), root)
    is_one = x == 1
    root = np.where(is_one, INT32.max, root)
    return root, np.where(is_one, 0, -np.maximum(right, 0))


def _scaled(x: Ints, bits: int) -> Ints:
    return np.clip(x << bits, INT32.min, INT32.max)
