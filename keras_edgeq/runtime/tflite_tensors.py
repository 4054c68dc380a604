"""Shapes and numbers as TFLite interpreters tell them."""

from __future__ import annotations

import numpy as np


def shapes(details: dict[str, dict]) -> dict[str, tuple]:
    """Return TFLite's shapes with None for a free size."""
    return {
        name: tuple(None if size < 0 else int(size) for size in detail["shape_signature"])
        for name, detail in details.items()
    }


def real_values(values: np.ndarray, quantization: tuple) -> np.ndarray:
    """Return the real numbers of an output that may be integer."""
    scale, zero_point = quantization
    if values.dtype.kind == "f" or not scale:
        return values
    return (values.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)


def as_input(array: np.ndarray, dtype: np.dtype, quantization: tuple) -> np.ndarray:
    """Return data in an input's type, quantized where that is integer and the data float."""
    scale, zero_point = quantization
    if array.dtype.kind == "f" and dtype.kind in "iu" and scale:
        limits = np.iinfo(dtype)
        array = np.clip(np.rint(array / np.float32(scale)) + zero_point, limits.min, limits.max)
    return np.ascontiguousarray(array.astype(dtype))
