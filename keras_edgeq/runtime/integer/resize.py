"""Resize images.

LiteRT's bilinear kernel works on whole numbers with 10 fractional bits per axis; XNNPACK's has 11.
"""

from __future__ import annotations

import numpy as np

from keras_edgeq.runtime.integer.call import Call


def resize_nearest_neighbor(call: Call) -> np.ndarray:
    """Take the nearest pixel."""
    x = call.values[0]
    rows, columns = (
        _nearest(int(size), n, call)
        for size, n in zip(np.ravel(call.values[1]), x.shape[1:3], strict=True)
    )
    return x[:, rows][:, :, columns]


def _nearest(size: int, length: int, call: Call) -> np.ndarray:
    scale = _scale(size, length, call.option("alignCorners", False))
    offset = np.float32(0.5 if call.option("halfPixelCenters", False) else 0.0)
    at = (np.arange(size, dtype=np.float32) + offset) * scale
    if call.option("alignCorners", False):
        at = np.trunc(at + np.float32(0.5))
    return np.clip(np.floor(at).astype(np.int64), 0, length - 1)


def _scale(size: int, length: int, align: bool) -> np.float32:
    if align and size > 1:
        return np.float32(length - 1) / np.float32(size - 1)
    return np.float32(length) / np.float32(size)


def resize_bilinear(call: Call) -> np.ndarray:
    """Interpolate between four pixels."""
    x = call.values[0]
    if x.dtype.kind == "f":
        raise call.unlike("on floats")
    sizes = [int(s) for s in np.ravel(call.values[1])]
    make = _xnnpack_axis if call.xnnpack and x.dtype == np.int8 else _axis
    (top, bottom, down), (left, right, across) = (
        make(size, n, call) for size, n in zip(sizes, x.shape[1:3], strict=True)
    )
    x = x.astype(np.int64)
    down, across = down[:, None, None], across[None, :, None]
    upper, lower = x[:, top], x[:, bottom]
    if make is _xnnpack_axis:
        one = 1 << 11
        above = upper[:, :, left] * (one - across) + upper[:, :, right] * across
        below = lower[:, :, left] * (one - across) + lower[:, :, right] * across
        made = (above * (one - down) + below * down + (1 << 21)) >> 22
    else:
        one = 1 << 10
        made = (
            upper[:, :, left] * (one - down) * (one - across)
            + lower[:, :, left] * down * (one - across)
            + upper[:, :, right] * (one - down) * across
            + lower[:, :, right] * down * across
        )
        # Rounded half away from zero, as the division of C++ leaves it.
        half = 1 << 19
        made = np.where(made > 0, (made + half) >> 20, -((half - made) >> 20))
    return call.out.store(made)


def _axis(size: int, length: int, call: Call):
    """Return both neighbours and the share of the second in 1024ths, all in integers."""
    align = call.option("alignCorners", False) and size > 1
    scale = (1024 * length + size // 2) // size
    if align:
        scale = (1024 * (length - 1) + (size - 1) // 2) // (size - 1)
    at = np.arange(size, dtype=np.int64) * scale
    if call.option("halfPixelCenters", False):
        at = at + scale // 2 - 512
    low = np.maximum(at >> 10, 0)
    high = np.minimum((at + 1023) >> 10, length - 1)
    return low, high, at - (low << 10)


def _xnnpack_axis(size: int, length: int, call: Call):
    """Return both neighbours and the share of the second in 2048ths."""
    scale = _scale(size, length, call.option("alignCorners", False))
    at = np.arange(size, dtype=np.float32)
    if call.option("halfPixelCenters", False):
        offset = np.float32(0.5) * scale - np.float32(0.5)
        at = np.clip(at * scale + offset, np.float32(0), np.float32(length - 1))
    else:
        at = at * scale
    low = np.minimum(at.astype(np.int64), length - 1)
    high = np.minimum(low + 1, length - 1)
    share = np.rint((at - low.astype(np.float32)) * np.float32(2048.0)).astype(np.int64)
    return low, high, share
