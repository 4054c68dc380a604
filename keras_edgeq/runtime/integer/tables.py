"""Functions of one value: by table where there are 256 values, in fixed point elsewhere.

LiteRT's tables and XNNPACK's are the same function in float32 and part only in how they round.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from keras_edgeq.runtime.integer import functions
from keras_edgeq.runtime.integer.call import Call
from keras_edgeq.runtime.integer.interpolated import away, interpolated
from keras_edgeq.runtime.integer.requantize import (
    divide_by_pot,
    multiply,
    multiply_float,
    quantize_multiplier,
    wrapped,
)


def table(
    function: Callable[[np.ndarray], np.ndarray],
    xnnpack: bool = False,
    wide: Callable[[Call], np.ndarray] | None = None,
):
    """Return the kernel of a function that is looked up.

    Args:
        function: float64 to float64.
        xnnpack: whether XNNPACK has a table of its own, rounded half to even.
        wide: the kernel for int16.
    """

    def kernel(call: Call) -> np.ndarray:
        given, out = call.inputs[0], call.out
        if out.dtype == np.int16 and wide is not None:
            return wide(call)
        if out.dtype != np.int8:
            raise call.unlike(f"of {out.dtype}")
        integers = np.arange(-128, 128)
        real = (integers - given.zero_point).astype(np.float32) * given.step
        value = function(real.astype(np.float64)).astype(np.float32)
        if call.xnnpack and xnnpack:
            steps = np.rint(value / out.step)
        else:
            steps = away(value * (np.float32(1.0) / out.step))
        made = out.store(steps.astype(np.int64) + out.zero_point)
        return made[call.values[0].astype(np.int64) + 128]

    return kernel


def gelu(call: Call) -> np.ndarray:
    """Compute `x` times the share of a normal distribution below it."""
    function = functions.gelu(call)
    return table(function, wide=interpolated(function))(call)


def _multiplied(call: Call, x: np.ndarray, real: np.float64) -> np.ndarray:
    """Multiply integers by a real factor, as a kernel does or rounded once."""
    return multiply_float(x, real) if call.exact else multiply(x, *quantize_multiplier(real))


def relu(low: float | None, high: float | None):
    """Return the kernel that requantizes and cuts."""

    def kernel(call: Call) -> np.ndarray:
        given, out = call.inputs[0], call.out
        least, most = out.limits
        least = least if low is None else max(least, out.integer(low))
        most = most if high is None else min(most, out.integer(high))
        real = np.float64(given.step / out.step)
        made = _multiplied(call, call.zeroed(0), real)
        return out.store(made + out.zero_point, least, most)

    return kernel


def leaky_relu(call: Call) -> np.ndarray:
    """Scale values below zero by a factor, the others by one."""
    given, out = call.inputs[0], call.out
    x, alpha = call.zeroed(0), np.float32(call.option("alpha", 0.0))
    if call.xnnpack and not call.exact and out.dtype == np.int8:
        # Factors of 8 fractional bits; the product is rounded half up.
        positive = np.rint(np.float32(256.0) * (given.step / out.step))
        negative = np.rint(np.float32(256.0) * (given.step / out.step * alpha))
        factor = np.where(x > 0, int(positive), int(negative))
        return out.store(((x * factor + 128) >> 8) + out.zero_point)
    above, below = (
        _multiplied(call, x, np.float64(real))
        for real in (given.step / out.step, given.step * alpha / out.step)
    )
    return out.store(np.where(x >= 0, above, below) + out.zero_point)


def absolute(call: Call) -> np.ndarray:
    """Take the distance from zero; on the input's own grid without any rounding."""
    given, out = call.inputs[0], call.out
    made = np.abs(call.zeroed(0))
    if given.step != out.step:
        made = _multiplied(call, made, np.float64(given.step / out.step))
    return out.store(made + out.zero_point)


def prelu(call: Call) -> np.ndarray:
    """Scale values below zero by a factor per channel."""
    given, slopes, out = call.inputs[0], call.inputs[1], call.out
    x = call.zeroed(0)
    above = _multiplied(call, x, np.float64(given.step) / np.float64(out.step))
    real = np.float64(given.step * slopes.step) / np.float64(out.step)
    below = _multiplied(call, wrapped(x * call.zeroed(1)), real)
    return out.store(np.where(x >= 0, above, below) + out.zero_point)


def hard_swish(call: Call) -> np.ndarray:
    """Compute `x * relu6(x + 3) / 6` in 16-bit fixed point, as gemmlowp's operations do."""
    given, out = call.inputs[0], call.out
    hires = call.zeroed(0) << 7
    hires_scale = np.float32(1.0 / 128.0) * given.step
    factor, exponent = _narrow(hires_scale / out.step)
    preshift = _high_mul_16(hires, factor)
    relu_factor, relu_exponent = _narrow(hires_scale / np.float32(3.0 / 32768.0))
    gate = hires
    if relu_exponent > 0:
        gate = _saturated_16(gate << (relu_exponent - 1))
    gate = _high_mul_16(gate, relu_factor)
    if relu_exponent > 0:
        gate = _saturated_16(gate << 1)
    if relu_exponent < 0:
        gate = divide_by_pot(gate, -relu_exponent)
    gate = (gate + (1 << 15)) >> 1
    product = gate * preshift
    made = np.sign(product) * (np.abs(product) >> 15)  # towards zero
    return out.store(divide_by_pot(made, -exponent) + out.zero_point)


def _narrow(real: np.float32) -> tuple[int, int]:
    """Return a multiplier of 15 bits and its exponent."""
    multiplier, shift = (int(v) for v in quantize_multiplier(np.float64(real)))
    return min((multiplier + (1 << 15)) >> 16, 32767), shift


def _high_mul_16(x: np.ndarray, factor: int) -> np.ndarray:
    return (x * factor + (1 << 14)) >> 15


def _saturated_16(x: np.ndarray) -> np.ndarray:
    return np.clip(x, -32768, 32767)
