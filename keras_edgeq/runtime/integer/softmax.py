"""Softmax: a table of exponentials in float32 for int8, tables of 513 points for int16."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from keras_edgeq.runtime.integer.call import Call
from keras_edgeq.runtime.integer.interpolated import PIECES, corrected, look_up
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


def _table(function: Callable, low: float, high: float) -> np.ndarray:
    """Return the table of a function with values in -1..1."""
    real = function(np.linspace(low, high, 2 * PIECES + 1)) * 32768.0
    ends = real[::2]
    return corrected(ends, real[1::2], ends[-1:])


EXP = _table(np.exp, -10.0, 0.0)
INVERSE = _table(lambda x: 1.0 / (1.0 + x), 0.0, 1.0)
