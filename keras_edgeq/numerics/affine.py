"""Uniform integer grids: bounds, scale and zero point, and the map to and from integers.

NumPy only. `fake_quant.fake_quant` gives the same float32 values inside a TensorFlow graph.

Reference:
    Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", arXiv:1712.05877, equation 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Far above the float32 subnormals, which TensorFlow kernels flush to zero, even when an int32
# bias takes the product of two scales.
SMALLEST_SCALE = 2.0**-60
# The range [0, 0] fixes no scale. One keeps zeros exact and cannot overflow a bias scale.
EMPTY_RANGE_SCALE = 1.0
BIAS_BITS = 32


def integer_bounds(bits: int, signed: bool, narrow_range: bool = False) -> tuple[int, int]:
    """Return the smallest and the largest integer of a grid.

    Args:
        bits: width, 2 to 16; 32 only signed, for a bias.
        signed: two's complement if true, else starting at 0.
        narrow_range: leave out the most negative integer, so that the grid is symmetric about 0.

    Returns:
        `(qmin, qmax)`, both inclusive.

    Raises:
        ValueError: a width outside the list, or a narrow range on an unsigned grid.

    Example:
        >>> integer_bounds(8, signed=True, narrow_range=True)
        (-127, 127)
    """
    if not (2 <= bits <= 16 or (bits == BIAS_BITS and signed)):
        raise ValueError(
            f"A {'signed' if signed else 'unsigned'} grid of {bits} bits is not supported; "
            f"use 2 to 16 bits, or {BIAS_BITS} signed bits for a bias."
        )
    if not signed:
        if narrow_range:
            raise ValueError("narrow_range drops the most negative integer; it needs signed=True.")
        return 0, 2**bits - 1
    half = 2 ** (bits - 1)
    return -half + int(narrow_range), half - 1


def grid_from_range(
    low: ArrayLike,
    high: ArrayLike,
    *,
    bits: int,
    symmetric: bool,
    signed: bool,
    narrow_range: bool = False,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Fit a grid to real ranges, so that 0.0 is always exactly a grid point.

    A range that excludes zero is extended to it. A symmetric grid has zero point 0 and the scale
    `max(|low|, |high|) / qmax`, an ulp more where rounding asks for it: the integer `-qmax - 1` of
    a full signed range lies outside the range. `[0, 0]` gets scale 1, and no scale is below
    `SMALLEST_SCALE`.

    Args:
        low: smallest real values, any shape (one per channel).
        high: largest real values, same shape.
        bits: see `integer_bounds`.
        symmetric: fix the zero point at 0.
        signed: see `integer_bounds`.
        narrow_range: see `integer_bounds`.

    Returns:
        `(scale, zero_point)`, float32 and int32 in the shape of the range. The computation is
        in float64; the zero point belongs to the scale as rounded to float32.

    Raises:
        ValueError: a bound is not finite, `low > high`, the scale exceeds float32, or a symmetric
            unsigned grid gets a negative `low`.

    Example:
        >>> scale, zero_point = grid_from_range(
        ...     -1.0, 3.0, bits=8, symmetric=False, signed=True)
        >>> int(zero_point)
        -64
    """
    qmin, qmax = integer_bounds(bits, signed, narrow_range)
    low, high = np.broadcast_arrays(np.asarray(low, np.float64), np.asarray(high, np.float64))
    _check_range(low, high, nonnegative=symmetric and not signed)
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    if symmetric:
        span, steps = np.maximum(-low, high), qmax
    else:
        span, steps = high - low, qmax - qmin
    width = np.where(span > 0.0, np.maximum(span / steps, SMALLEST_SCALE), EMPTY_RANGE_SCALE)
    if np.any(width > np.finfo(np.float32).max):
        raise ValueError(f"The range up to {span.max():g} needs a scale beyond float32.")
    scale = width.astype(np.float32)
    if symmetric:
        return _not_beyond(scale, span, qmax), np.zeros(scale.shape, np.int32)
    zero_point = np.clip(np.rint(qmin - low / scale.astype(np.float64)), qmin, qmax)
    return scale, zero_point.astype(np.int32)


def _not_beyond(scale: NDArray, span: NDArray, qmax: int) -> NDArray[np.float32]:
    """Raise scales by an ulp where the end of the range, in float32, lies beyond the last integer.

    It would count as clipped, and the largest weight of a channel would get no gradient.
    """
    one, ends = np.float32(1.0), np.minimum(span, np.finfo(np.float32).max).astype(np.float32)
    for _ in range(2):
        beyond = np.maximum(ends * (one / scale), ends / scale) > qmax
        scale = np.where(beyond, np.nextafter(scale, np.float32(np.inf)), scale)
    return np.asarray(scale, np.float32)


def quantize(
    x: ArrayLike, scale: ArrayLike, zero_point: ArrayLike, qmin: ArrayLike, qmax: ArrayLike
) -> NDArray[np.int32]:
    """Map real numbers to grid integers: `clip(round_half_to_even(x / scale) + zero_point)`.

    The division is float32, as in `fake_quant.fake_quant`, so both pick the same integer.

    Args:
        x: real values without NaN, any shape; infinities saturate.
        scale: positive step, broadcastable to `x`.
        zero_point: integer that stands for 0.0, broadcastable to `x`.
        qmin: smallest integer.
        qmax: largest integer.

    Returns:
        int32 integers in the shape of `x`.
    """
    with np.errstate(over="ignore"):
        ratio = np.asarray(x, np.float32) / np.asarray(scale, np.float32)
    # float64 holds the sum exactly; float32 would not on a 32-bit grid.
    shifted = np.rint(ratio).astype(np.float64) + np.asarray(zero_point, np.float64)
    return np.clip(shifted, qmin, qmax).astype(np.int32)


def dequantize(q: ArrayLike, scale: ArrayLike, zero_point: ArrayLike) -> NDArray[np.float32]:
    """Map grid integers to the real numbers they stand for: `(q - zero_point) * scale`.

    Args:
        q: integers, any shape.
        scale: positive step, broadcastable to `q`.
        zero_point: integer that stands for 0.0, broadcastable to `q`.

    Returns:
        float32 values in the shape of `q`.
    """
    steps = np.asarray(q, np.int64) - np.asarray(zero_point, np.int64)
    return steps.astype(np.float32) * np.asarray(scale, np.float32)


def _check_range(low: NDArray, high: NDArray, nonnegative: bool) -> None:
    """Raise on a range that no grid can represent."""
    if not (np.all(np.isfinite(low)) and np.all(np.isfinite(high))):
        raise ValueError("The range holds NaN or infinity; check the data it was taken from.")
    if np.any(low > high):
        raise ValueError("A range has low > high; give (low, high) in this order.")
    if nonnegative and np.any(low < 0.0):
        raise ValueError(
            f"A symmetric unsigned grid starts at 0 but the range starts at {low.min():g}; "
            "use signed=True or symmetric=False."
        )
