"""Bring sums from one grid to another exactly as LiteRT's kernels do: six ways to multiply.

LiteRT is not of one mind. A real factor becomes a 31-bit multiplier and a shift
(`quantize_multiplier`), and the kernels then round differently:

| function | second rounding | who |
|---|---|---|
| `multiply` | half away from zero | gemmlowp's, behind most: Add, Mul, PRelu, grouped Conv |
| `multiply_up` | half up | ruy: Conv, FC, BatchMatMul |
| `multiply_lanes` | half up in whole vectors | Depthwise, TransposeConv, Mean, Requantize |
| `multiply_once` | none, one rounding half up | FC of int16 with a bias |
| `multiply_wide` | none, one rounding half up | 64-bit sums of int16, 16-bit multiplier |
| `multiply_float` | none, one rounding half to even | XNNPACK's fp32 requantization, in float32 |

`multiply` and `multiply_up` round twice: once the 32x32 bit product, half up, and once the shift.
Kernels written in vector instructions round half up, and the rest that fills no vector as gemmlowp.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]
IntsLike = Ints | int


def quantize_multiplier(real: ArrayLike) -> tuple[Ints, Ints]:
    """Return multipliers of 31 bits and left shifts: `real = multiplier * 2 ** (shift - 31)`."""
    fraction, shift = np.frexp(np.asarray(real, np.float64))
    multiplier = np.floor(np.abs(fraction) * 2.0**31 + 0.5).astype(np.int64)
    multiplier = np.where(fraction < 0, -multiplier, multiplier)
    full = np.abs(multiplier) == 1 << 31
    multiplier = np.where(full, multiplier // 2, multiplier)
    shift = np.where(full, shift + 1, shift).astype(np.int64)
    tiny = shift < -31
    return np.where(tiny, 0, multiplier), np.where(tiny, 0, shift)


def high_mul(x: Ints, multiplier: IntsLike) -> Ints:
    """Return the upper half of twice the product of 32-bit integers, rounded half up."""
    return (x * multiplier + (1 << 30)) >> 31


def divide_by_pot(x: Ints, exponent: IntsLike) -> Ints:
    """Return `x / 2 ** exponent`, rounded half away from zero."""
    exponent = np.asarray(exponent, np.int64)
    half = np.left_shift(np.int64(1), exponent) >> 1
    # Half away from zero is half up, one less for negative values where a half is left over.
    return (x + half - ((x < 0) & (exponent > 0))) >> exponent


def multiply(x: Ints, multiplier: IntsLike, shift: IntsLike) -> Ints:
    """Multiply 32-bit sums; both roundings as gemmlowp does them."""
    left, right = _shifts(shift)
    return divide_by_pot(high_mul(wrapped(x << left), multiplier), right)


def multiply_up(x: Ints, multiplier: IntsLike, shift: IntsLike) -> Ints:
    """Multiply 32-bit sums; the second rounding is half up."""
    left, right = _shifts(shift)
    half = np.left_shift(np.int64(1), right) >> 1
    return (high_mul(wrapped(x << left), multiplier) + half) >> right


def multiply_lanes(x: Ints, multiplier: IntsLike, shift: IntsLike, lanes: int) -> Ints:
    """Multiply 32-bit sums; whole vectors of `lanes` on the last axis round half up."""
    whole = x.shape[-1] // lanes * lanes
    if whole == x.shape[-1]:
        return multiply_up(x, multiplier, shift)
    in_vectors = np.arange(x.shape[-1]) < whole
    return np.where(in_vectors, multiply_up(x, multiplier, shift), multiply(x, multiplier, shift))


def multiply_once(x: Ints, multiplier: IntsLike, shift: IntsLike) -> Ints:
    """Multiply sums by the whole multiplier, rounded once, half up."""
    total = 31 - np.asarray(shift, np.int64)
    return (x * multiplier + np.left_shift(np.int64(1), total - 1)) >> total


def multiply_wide(x: Ints, multiplier: IntsLike, shift: IntsLike) -> Ints:
    """Multiply 64-bit sums by the upper 16 bits of the multiplier, rounded once, half up."""
    multiplier = np.asarray(multiplier, np.int64)
    reduced = np.where(multiplier < 0x7FFF0000, (multiplier + (1 << 15)) >> 16, 0x7FFF)
    total = 15 - np.asarray(shift, np.int64)
    return (x * reduced + np.left_shift(np.int64(1), total - 1)) >> total


def multiply_float(x: Ints, scale: ArrayLike) -> Ints:
    """Multiply sums in float32 and round half to even."""
    product = x.astype(np.float32) * np.asarray(scale, np.float32)
    # Beyond 2**30 every grid is saturated; the bound keeps the cast defined.
    return np.rint(np.clip(product, -(2.0**30), 2.0**30)).astype(np.int64)


def wrapped(x: Ints) -> Ints:
    """Return integers as a 32-bit register holds them."""
    return x.astype(np.int32).astype(np.int64)


def _shifts(shift: IntsLike) -> tuple[Ints, Ints]:
    shift = np.asarray(shift, np.int64)
    return np.maximum(shift, 0), np.maximum(-shift, 0)
