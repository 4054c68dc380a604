"""Onto a grid, off it, and from one to another."""

from __future__ import annotations

import numpy as np

from keras_edgeq.runtime.integer.call import Call
from keras_edgeq.runtime.integer.requantize import multiply, multiply_lanes, quantize_multiplier


def quantize(call: Call) -> np.ndarray:
    """Round floats to a grid, or bring integers to another."""
    x, out = call.values[0], call.out
    if x.dtype.kind == "f":
        return out.store(_steps(call, x).astype(np.int64) + out.zero_point)
    given = call.inputs[0]
    shifted = call.zeroed(0)
    if call.xnnpack and x.dtype == out.dtype == np.int8:
        factor = int(np.rint(np.float32(256.0) * (given.step / out.step)))
        made = (shifted * factor + 128) >> 8
    else:
        real = np.float64(given.step) / np.float64(out.step)
        factor = quantize_multiplier(real)
        if x.dtype == out.dtype == np.int8:
            made = multiply_lanes(shifted.ravel(), *factor, lanes=16).reshape(x.shape)
        else:
            made = multiply(shifted, *factor)
    return out.store(made + out.zero_point)


def _steps(call: Call, x: np.ndarray) -> np.ndarray:
    """Return floats in steps of the grid: times the inverse, rounded half to even.

    LiteRT's own kernel divides what fills no vector of 8, and rounds it half away from zero.
    """
    flat = x.ravel()
    steps = np.rint(flat * (np.float32(1.0) / call.out.step))
    whole = x.size // 8 * 8
    if not (call.xnnpack and call.out.dtype == np.int8):
        rest = flat[whole:] / call.out.step
        steps[whole:] = np.trunc(rest + np.copysign(np.float32(0.5), rest))
    return np.clip(steps, -(2.0**30), 2.0**30).reshape(x.shape)


def dequantize(call: Call) -> np.ndarray:
    """Return the real numbers that integers stand for, in float32."""
    given, x = call.inputs[0], call.values[0]
    if x.dtype.kind == "f":
        return x.astype(np.float32)
    if given.scale is not None and len(given.scale) > 1:
        shape = [1] * x.ndim
        shape[given.axis] = -1
        return x.astype(np.float32) * given.scale.reshape(shape)
    flat = x.ravel().astype(np.float32)
    real = (flat - np.float32(given.zero_point)) * given.step
    if x.dtype == np.int8 and not call.xnnpack:
        # Vectors of 8 subtract the zero point's share after the product.
        whole = x.size // 8 * 8
        real[:whole] = flat[:whole] * given.step + np.float32(-given.zero_point) * given.step
    return real.reshape(x.shape)


def cast(call: Call) -> np.ndarray:
    """Change the type of plain numbers."""
    return call.values[0].astype(call.out.dtype)
