"""Operations on pairs of values: sums, products, maxima.

LiteRT's own Add and Sub bring both operands to twice the larger scale with 20 fractional bits (15
for int16), add, and come back; XNNPACK multiplies both by integers of about 20 bits, adds and
shifts once. Products are requantized as any sum.
"""

from __future__ import annotations

import numpy as np

from keras_edgeq.runtime.integer.call import Call
from keras_edgeq.runtime.integer.requantize import (
    multiply,
    multiply_float,
    quantize_multiplier,
    wrapped,
)


def add(call: Call) -> np.ndarray:
    """Add."""
    return _sum(call, 1)


def sub(call: Call) -> np.ndarray:
    """Subtract."""
    return _sum(call, -1)


def _sum(call: Call, sign: int) -> np.ndarray:
    if not call.out.is_integer:
        return _plain(call, np.add if sign > 0 else np.subtract)
    a, b = (grid.step for grid in call.inputs)
    if call.xnnpack and call.out.dtype == np.int8:
        return _xnnpack_sum(call, sign)
    if call.out.dtype == np.int16 and call.option("potScaleInt16", False):
        raise call.unlike("of 16 bits with scales that are powers of two")
    bits = 15 if call.out.dtype == np.int16 else 20
    twice = np.float64(2 * max(a, b))
    left, right = (
        multiply(call.zeroed(index) << bits, *quantize_multiplier(np.float64(scale) / twice))
        for index, scale in enumerate((a, b))
    )
    real = twice / np.float64(np.float32(1 << bits) * call.out.step)
    made = multiply(wrapped(left + sign * right), *quantize_multiplier(real))
    return call.out.store(made + call.out.zero_point, *call.fused())


def _xnnpack_sum(call: Call, sign: int) -> np.ndarray:
    """Add as XNNPACK's QS8 vadd does; the shift leaves the larger factor 21 bits."""
    scales = [np.float32(grid.step / call.out.step) for grid in call.inputs]
    exponent = int(np.frexp(max(scales))[1]) - 1
    shift = 20 - exponent
    factors = [int(np.rint(np.ldexp(np.float64(s), shift))) for s in scales]
    total = call.zeroed(0) * factors[0] + call.zeroed(1) * (sign * factors[1])
    made = (wrapped(total) + (1 << (shift - 1))) >> shift
    return call.out.store(made + call.out.zero_point, *call.fused())


def mul(call: Call) -> np.ndarray:
    """Multiply."""
    if not call.out.is_integer:
        return _plain(call, np.multiply)
    a, b, out = call.inputs[0].step, call.inputs[1].step, call.out
    product = call.zeroed(0) * call.zeroed(1)
    real = a * b / out.step
    if call.xnnpack and out.dtype == np.int8:
        made = multiply_float(product, real)
    else:
        made = multiply(wrapped(product), *quantize_multiplier(real))
    return out.store(made + out.zero_point, *call.fused())


def squared_difference(call: Call) -> np.ndarray:
    """Square the difference of both, in 7 fractional bits."""
    a, b, out = call.inputs[0].step, call.inputs[1].step, call.out
    twice = np.float64(2 * max(a, b))
    parts = []
    for index, scale in enumerate((a, b)):
        multiplier, shift = quantize_multiplier(np.float64(scale) / twice)
        parts.append(multiply(call.zeroed(index) << 7, multiplier, shift))
    difference = parts[0] - parts[1]
    real = twice * twice / (np.float64(1 << 14) * np.float64(out.step))
    made = multiply(wrapped(difference * difference), *quantize_multiplier(real))
    return out.store(made + out.zero_point)


def maximum(call: Call) -> np.ndarray:
    """Take the larger one; both have the output's grid."""
    return _plain(call, np.maximum)


def minimum(call: Call) -> np.ndarray:
    """Take the smaller one; both have the output's grid."""
    return _plain(call, np.minimum)


def _plain(call: Call, compute) -> np.ndarray:
    """Compute on numbers as they are: integers that count something, or one grid for all."""
    if any(v.dtype.kind == "f" for v in call.values):
        raise call.unlike("on floats")
    return compute(call.values[0], call.values[1]).astype(call.out.dtype)
