"""Operations with weights: convolutions, fully connected, transposed convolution, matmul.

The sums are exact: products of floats holding integers, in float32 where no sum can pass `2**24`
and else in float64. What the kernels make of the sums is in `requantize`; XNNPACK multiplies by
`s_in * s_w / s_out` in float32, LiteRT's own by that factor in double as multiplier and shift.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from keras_edgeq.runtime.integer.call import Call, Grid
from keras_edgeq.runtime.integer.requantize import (
    multiply,
    multiply_float,
    multiply_lanes,
    multiply_once,
    multiply_up,
    multiply_wide,
    quantize_multiplier,
    wrapped,
)
from keras_edgeq.runtime.integer.windows import Slides, Window

PIECE = 1 << 23  # elements of patches held at a time: 64 MiB in float64


def conv_2d(call: Call) -> np.ndarray:
    """Convolve; grouped where the input has more channels than the kernel."""
    weights = call.values[1]
    count, height, width, depth = weights.shape
    dtype = _exact(call, np.abs(weights.astype(np.int64)).sum((1, 2, 3)))
    matrix = weights.reshape(count, -1).T.astype(dtype)
    groups = call.values[0].shape[-1] // depth
    each = count // groups

    def sums(x):
        slides = _slides(x.astype(dtype) - dtype(call.inputs[0].zero_point), call, height, width)
        if groups == 1:
            return slides.patches() @ matrix
        parts = []
        for g in range(groups):
            seen = [cell[..., g * depth : (g + 1) * depth] for _, _, cell in slides.cells()]
            parts.append(np.concatenate(seen, -1) @ matrix[:, g * each : (g + 1) * each])
        return np.concatenate(parts, -1)

    return _in_pieces(call, sums, matrix.shape[0] * groups)


def depthwise_conv_2d(call: Call) -> np.ndarray:
    """Convolve each channel on its own, with one or several kernels."""
    weights = call.values[1]
    _, height, width, count = weights.shape
    dtype = _exact(call, np.abs(weights.astype(np.int64)).sum((0, 1, 2)))

    def sums(x):
        x = x.astype(dtype) - dtype(call.inputs[0].zero_point)
        x = np.repeat(x, count // x.shape[-1], axis=-1)
        slides = _slides(x, call, height, width)
        total = np.zeros((len(x), slides.height, slides.width, count), dtype)
        for row, column, cell in slides.cells():
            total += cell * weights[0, row, column].astype(dtype)
        return total

    return _in_pieces(call, sums, 2 * count)


def fully_connected(call: Call) -> np.ndarray:
    """Multiply rows by a matrix."""
    x, weights = call.values[0], call.values[1]
    dtype = _exact(call, np.abs(weights.astype(np.int64)).sum(1))
    rows = x.reshape(-1, weights.shape[1]).astype(dtype) - dtype(call.inputs[0].zero_point)
    other = weights.astype(dtype) - dtype(call.inputs[1].zero_point)
    made = _requantized(call, rows @ other.T, call.inputs[1].scale)
    keep = call.option("keepNumDims", False)
    return made.reshape(*x.shape[:-1], -1) if keep else made


def transpose_conv(call: Call) -> np.ndarray:
    """Spread each value over a window of the output."""
    shape, weights, x = call.values[0], call.values[1], call.values[2]
    count, height, width, _ = weights.shape
    down, right = call.option("strideH", 1), call.option("strideW", 1)
    out_h, out_w = int(shape[1]), int(shape[2])
    spread = np.einsum(
        "bhwi,okli->bhwklo",
        x.astype(np.float64) - call.inputs[2].zero_point,
        weights.astype(np.float64),
        optimize=True,
    )
    _, top, _ = Window(height, down).along(out_h, call.option("padding"))
    _, left, _ = Window(width, right).along(out_w, call.option("padding"))
    rows, columns = x.shape[1], x.shape[2]
    full_h = max((rows - 1) * down + height, top + out_h)
    full_w = max((columns - 1) * right + width, left + out_w)
    total = np.zeros((len(x), full_h, full_w, count))
    for row in range(height):
        for column in range(width):
            total[
                :,
                row : row + (rows - 1) * down + 1 : down,
                column : column + (columns - 1) * right + 1 : right,
            ] += spread[:, :, :, row, column]
    total = total[:, top : top + out_h, left : left + out_w]
    return _requantized(call, total, call.inputs[1].scale, data=2, bias=3)


def batch_matmul(call: Call) -> np.ndarray:
    """Multiply two stacks of matrices."""
    a, b = (call.zeroed(i).astype(np.float64) for i in (0, 1))
    a = np.swapaxes(a, -1, -2) if call.option("adjX", False) else a
    b = np.swapaxes(b, -1, -2) if call.option("adjY", False) else b
    return _requantized(call, a @ b, call.inputs[1].scale)


def _exact(call: Call, magnitude: np.ndarray) -> type:
    """Return the float type that holds every sum: weights' absolute sums times the largest step."""
    least, most = call.inputs[0].limits
    zero = call.inputs[0].zero_point
    far = max(zero - least, most - zero)
    return np.float32 if far * int(magnitude.max(initial=0)) < 1 << 24 else np.float64


def _slides(x: np.ndarray, call: Call, height: int, width: int) -> Slides:
    rows = Window(height, call.option("strideH", 1), call.option("dilationHFactor", 1))
    columns = Window(width, call.option("strideW", 1), call.option("dilationWFactor", 1))
    return Slides(x, rows, columns, call.option("padding"))


def _in_pieces(call: Call, sums, per_place: int) -> np.ndarray:
    """Compute few samples at a time, so that the patches fit into memory."""
    x = call.values[0]
    per_sample = max(x.shape[1] * x.shape[2] * per_place, 1)
    size = max(PIECE // per_sample, 1)
    parts = [
        _requantized(call, sums(x[start : start + size]), call.inputs[1].scale)
        for start in range(0, max(len(x), 1), size)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _requantized(call: Call, sums: np.ndarray, weight_scale, data: int = 0, bias: int = 2):
    """Return sums with their bias on the output's grid."""
    given, out = call.inputs[data], call.out
    has_bias = len(call.values) > bias and call.values[bias] is not None
    total = sums.astype(np.int64)
    if has_bias:
        total += call.values[bias].astype(np.int64)
    if _on_xnnpack(call, given):
        made = multiply_float(wrapped(total), given.step * weight_scale / out.step)
    else:
        real = np.float64(given.step) * weight_scale.astype(np.float64) / np.float64(out.step)
        multiply_as = _rounding(call, given.dtype == np.int16, has_bias)
        made = multiply_as(total, *quantize_multiplier(real))
    return out.store(made + out.zero_point, *call.fused())


def _on_xnnpack(call: Call, given: Grid) -> bool:
    """Tell whether XNNPACK takes the operation.

    It leaves int16, int4 convolutions and transposed ones whose output shape is computed.
    """
    if not call.xnnpack or given.dtype != np.int8:
        return False
    if call.name == "TRANSPOSE_CONV" and not call.inputs[0].const:
        return False
    return call.name == "FULLY_CONNECTED" or call.inputs[1].bits == 8


def _rounding(call: Call, wide: bool, has_bias: bool) -> Callable:
    """Return how LiteRT's own kernel multiplies its sums."""
    if wide and call.name != "FULLY_CONNECTED":
        return multiply_wide
    if wide and has_bias:
        return multiply_once
    multiply_as = multiply_up
    if call.name in ("DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"):
        multiply_as = partial(multiply_lanes, lanes=8)
    elif call.name == "CONV_2D" and call.values[0].shape[-1] != call.values[1].shape[-1]:
        multiply_as = multiply  # grouped ones run on the reference kernel
    return lambda total, *factor: multiply_as(wrapped(total), *factor)
