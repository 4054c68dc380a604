"""Pools and reductions."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from keras_edgeq.runtime.integer.call import Call
from keras_edgeq.runtime.integer.requantize import (
    multiply,
    multiply_lanes,
    quantize_multiplier,
    wrapped,
)
from keras_edgeq.runtime.integer.windows import Slides, Window


def average_pool_2d(call: Call) -> np.ndarray:
    """Average windows; integers of the input's grid, rounded half away from zero."""
    x = call.values[0].astype(np.int32)
    slides = _slides(x, call)
    total = np.zeros((len(x), slides.height, slides.width, x.shape[-1]), np.int32)
    for _, _, cell in slides.cells():
        total += cell
    seen = _slides(np.ones((1, *x.shape[1:3], 1), np.int32), call)
    count = sum(cell for _, _, cell in seen.cells())
    half = count // 2
    # C++ divides towards zero.
    made = np.where(total > 0, (total + half) // count, -((half - total) // count))
    return call.out.store(made, *call.fused())


def max_pool_2d(call: Call) -> np.ndarray:
    """Take the largest value of each window."""
    x = call.values[0]
    slides = _slides(x, call, call.out.limits[0])
    made = slides.at(0, 0)
    for _, _, cell in slides.cells():
        made = np.maximum(made, cell)
    return call.out.store(made, *call.fused())


def _slides(x: np.ndarray, call: Call, fill: int = 0) -> Slides:
    rows = Window(call.option("filterHeight"), call.option("strideH"))
    columns = Window(call.option("filterWidth"), call.option("strideW"))
    return Slides(x, rows, columns, call.option("padding"), fill)


def mean(call: Call) -> np.ndarray:
    """Average over axes; three formulas.

    XNNPACK multiplies the sum by `s_in / s_out / count` and adds both zero points' share to the
    product, all in float32: far from zero that rounds to the neighbour. LiteRT's kernel for images
    (4-D, over height and width, axes kept) rounds the zero point's share to an integer ahead of the
    sum, which is up to half a step off, and shares the channels out to threads; its general one
    divides the multiplier by the count.
    """
    x, axes = call.values[0], _axes(call)
    given, out = call.inputs[0], call.out
    count = int(np.prod([x.shape[a] for a in axes]))
    keep = bool(call.option("keepDims", False))
    total = x.sum(axes, dtype=np.int64, keepdims=keep)
    if call.xnnpack and out.dtype == np.int8:
        scale = np.float32(given.step / out.step) / np.float32(count)
        zero = np.float32(out.zero_point) - np.float32(count * given.zero_point) * scale
        made = np.rint(total.astype(np.float32) * scale + zero)
    elif out.dtype == np.int8 and keep and x.ndim == 4 and axes == (1, 2):
        share = np.float32(given.zero_point) * given.step / out.step
        bias = int(share + np.float32(0.5 if share > 0 else -0.5))
        real = given.step / (np.float32(count) * out.step)
        factor = quantize_multiplier(real)
        each = _by_thread(total.shape[-1], call.threads)
        parts = [multiply_lanes(total[..., part], *factor, lanes=16) for part in each]
        made = np.concatenate(parts, -1) + (out.zero_point - bias)
    else:
        real = np.float64(given.step) / np.float64(out.step)
        multiplier, shift = (int(v) for v in quantize_multiplier(real))
        more = min(count.bit_length() - 1, 32, 31 + shift)
        made = multiply(
            wrapped(total - count * given.zero_point), (multiplier << more) // count, shift - more
        )
        made = made + out.zero_point
    return out.store(made)


def sum_(call: Call) -> np.ndarray:
    """Add over axes, in float32."""
    x, axes = call.values[0], _axes(call)
    if not call.out.is_integer:
        return x.sum(axes, dtype=call.out.dtype, keepdims=bool(call.option("keepDims", False)))
    given, out = call.inputs[0], call.out
    count = int(np.prod([x.shape[a] for a in axes]))
    total = x.sum(axes, dtype=np.int64, keepdims=bool(call.option("keepDims", False)))
    scale = given.step / out.step
    bias = np.float32(-given.zero_point * count) * scale
    steps = total.astype(np.float32) * scale + bias
    made = np.sign(steps) * np.floor(np.abs(steps) + np.float32(0.5))
    return out.store(made + out.zero_point)


def reduce_max(call: Call) -> np.ndarray:
    """Take the largest value over axes."""
    return call.values[0].max(_axes(call), keepdims=bool(call.option("keepDims", False)))


def reduce_min(call: Call) -> np.ndarray:
    """Take the smallest value over axes."""
    return call.values[0].min(_axes(call), keepdims=bool(call.option("keepDims", False)))


def reduce_prod(call: Call) -> np.ndarray:
    """Multiply over axes; sizes, not quantized values."""
    if call.inputs[0].is_integer or call.values[0].dtype.kind == "f":
        raise call.unlike("on quantized values or floats")
    keep = bool(call.option("keepDims", False))
    return call.values[0].prod(_axes(call), keepdims=keep).astype(call.out.dtype)


def _axes(call: Call) -> tuple[int, ...]:
    rank = call.values[0].ndim
    return tuple(sorted({int(a) % rank for a in np.ravel(call.values[1])}))


def _by_thread(channels: int, threads: int) -> list[slice]:
    """Return the channels that each thread computes, at least 8."""
    count = min(max(channels // 8, 1), threads)
    ends = [0]
    for left in range(count, 0, -1):
        ends.append(ends[-1] + (channels - ends[-1]) // left)
    return [slice(a, b) for a, b in pairwise(ends)]
