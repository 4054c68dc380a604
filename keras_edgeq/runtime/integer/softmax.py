"""Softmax: a table of exponentials in float32 for int8, tables of 513 points for int16."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from keras_edgeq.runtime.integer.call import Call
from keras_edgeq.runtime.integer.requantize import multiply, quantize_multiplier


def softmax(call: Call) -> np.ndarray:
    """Compute `exp(beta * x)` over its sum on the last axis."""
    if call.out.dtype == np.int16:
        return _softmax_int16(call)
    given, out = call.inputs[0], call.out
    beta = np.float32(call.option("beta", 1.0))
    x = call.values[0].astype(np.int64)
    below = x.max(-1, keepdims=True) - x
    scale = -given.step * beta
    exps = np.exp((scale * np.arange(256, dtype=np.float32)).astype(np.float64))
    seen = exps.astype(np.float32)[below]
    # A running sum adds one by one, in the kernel's order.
    total = np.cumsum(seen, axis=-1, dtype=np.float32)[..., -1:]
    real = seen * (np.float32(1.0) / (total * out.step))
    return out.store(np.floor(real + np.float32(0.5)).astype(np.int64) + out.zero_point)


def _softmax_int16(call: Call) -> np.ndarray:
    given = call.inputs[0]
    beta = np.float32(call.option("beta", 1.0))
    x = call.values[0].astype(np.int64)
    real = np.float64(given.step * beta) / (10.0 / 65535.0)
    scaled = multiply(x - x.max(-1, keepdims=True), *quantize_multiplier(real))
    exps = look_up(EXP, np.clip(scaled + 32767, -32768, 32767))
    total = exps.sum(-1, keepdims=True)
    headroom = 31 - np.floor(np.log2(total)).astype(np.int64)
    shifted = ((total << (headroom - 1)) + (1 << 13)) >> 14
    inverse = look_up(INVERSE, np.clip(shifted - (1 << 15) - (1 << 16), -32768, 32767))
    right = 31 - headroom
    made = (exps * inverse + (np.int64(1) << (right - 1))) >> right
    return np.clip(made, 0, 32767).astype(np.int16)


def int16_table(function: Callable, low: float, high: float) -> np.ndarray:
    """Return 513 samples of a function with values in -1..1.

    Each is shifted by half of the error that interpolation makes in the middle of its interval.
    """
    points = np.linspace(low, high, 1025)
    real = function(points) * 32768.0
    ends, middles = real[::2], real[1::2]
    samples = _away(ends)
    between = _away((ends[1:] + samples[:-1]) / 2)
    bias = _away((between - _away(middles)) / 2)
    values = np.append(samples[:-1] - bias, samples[-1])
    return np.clip(values, -32768, 32767).astype(np.int64)


def look_up(table: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the table's values at 16-bit integers, interpolated."""
    index, rest = 256 + (x >> 7), x & 127
    return table[index] + (((table[index + 1] - table[index]) * rest + 64) >> 7)


def _away(x: np.ndarray) -> np.ndarray:
    return np.trunc(x + np.copysign(0.5, x))


EXP = int16_table(np.exp, -10.0, 0.0)
INVERSE = int16_table(lambda x: 1.0 / (1.0 + x), 0.0, 1.0)
