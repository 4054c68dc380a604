"""Kernels of quantized layers as whole numbers of steps, read and written."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_edgeq.errors import EncodingsError
from keras_edgeq.layers import QuantizedLayer
from keras_edgeq.spec.encoding import Encoding


def encoding_of(layer: QuantizedLayer) -> Encoding:
    """Return the grid of a layer's kernel.

    Raises:
        EncodingsError: there is none yet.
    """
    encoding = layer.quantizers[layer.kernel_name].encoding
    if encoding is None:
        raise EncodingsError(
            f"The kernel of {layer.name!r} has no grid; calibrate the sim before its weights are "
            "rounded."
        )
    return encoding


def kernel_of(layer: QuantizedLayer) -> Any:
    """Return the variable of a layer's kernel."""
    return getattr(layer.layer, layer.kernel_name)


def ratio(layer: QuantizedLayer, kernel: NDArray) -> NDArray:
    """Return a kernel in real numbers of steps of the layer's grid."""
    unit = encoding_of(layer).unit(np.shape(kernel))
    return np.asarray(kernel, np.float64) / np.asarray(unit, np.float64)


def bounds(layer: QuantizedLayer) -> tuple[NDArray, NDArray]:
    """Return the least and the greatest number of steps, broadcastable to the kernel."""
    encoding = encoding_of(layer)
    low, high = encoding.bounds
    is_symmetric = encoding.spec.symmetric
    zero = np.zeros(()) if is_symmetric else np.asarray(encoding.zero_point, np.float64)
    return low - zero, high - zero


def steps(layer: QuantizedLayer) -> NDArray:
    """Return the kernel in the integers that it is rounded to."""
    return np.clip(np.rint(ratio(layer, kernel_of(layer).numpy())), *bounds(layer))


def assign_steps(layer: QuantizedLayer, values: NDArray) -> None:
    """Put the kernel onto its grid."""
    kernel_of(layer).assign(np.float32(values) * encoding_of(layer).unit(np.shape(values)))
