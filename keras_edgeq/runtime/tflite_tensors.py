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
