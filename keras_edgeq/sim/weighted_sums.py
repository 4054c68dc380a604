"""Mean, variance and bounds of a layer's sums from those of its input.

Reference:
    Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
    arXiv:1906.04721, section 4.2.1.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_edgeq.layers.layer_traits import op_type, weight_trait
from keras_edgeq.numerics.quantiles import Quantiles

Sums = Callable[[Any, NDArray, NDArray], NDArray]


def weighted_sums(layer: Any, points: NDArray, quantiles: Quantiles) -> NDArray | None:
    """Return the distribution of a layer's sums, one column per output channel.

    The mean is exact but for padding. The variance is that of independent inputs, which overlapping
    pixels and related channels are not; what sums many of them is near normal. The bounds are those
    that no input in its own bounds can exceed, and the normal distribution's ends.

    Args:
        layer: without an activation.
        points: distribution of the input, `[points, channels]`.
        quantiles: what made it.

    Returns:
        Points of as many columns as the layer has biases; None for a layer that is not known, or
        not channels last.
    """
    trait = weight_trait(layer)
    last = getattr(layer, "data_format", "channels_last") == "channels_last"
    if op_type(layer) not in _SUMS or trait is None or not last:
        return None
    kernel = np.asarray(getattr(layer, trait.kernel), np.float64)
    bias = np.asarray(0.0 if layer.bias is None else layer.bias, np.float64).ravel()
    if _scales_channels(layer, kernel):
        return (points * kernel.ravel() + bias).astype(np.float32)
    if "Transpose" not in op_type(layer):
        return _normal_sums(layer, kernel, bias, points, quantiles)
    # Where a transposed convolution lands between its strides decides which taps reach a pixel.
    starts = itertools.product(*(range(stride) for stride in layer.strides))
    taps = [
        kernel[tuple(slice(i, None, n) for i, n in zip(start, layer.strides, strict=True))]
        for start in starts
    ]
    phases = [_normal_sums(layer, part, bias, points, quantiles) for part in taps]
    return quantiles.mixture(np.stack(phases, axis=1))


def _normal_sums(
    layer: Any, kernel: NDArray, bias: NDArray, points: NDArray, quantiles: Quantiles
) -> NDArray:
    low, high = points.min(axis=0), points.max(axis=0)
    if getattr(layer, "padding", "valid") != "valid" or "Transpose" in op_type(layer):
        low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    up, down = np.maximum(kernel, 0.0), np.minimum(kernel, 0.0)
    mean, variance = quantiles.moments(points)

    def total(vector, weights):
        return sums(layer, np.broadcast_to(vector, _inputs(layer, weights)), weights)

    sums = _SUMS[op_type(layer)]
    return quantiles.within(
        total(mean, kernel) + bias,
        total(variance, kernel**2),
        total(low, up) + total(high, down) + bias,
        total(high, up) + total(low, down) + bias,
    )


def _inputs(layer, kernel: NDArray) -> int:
    """Return how many input channels a kernel takes."""
    if "Transpose" in op_type(layer):
        return kernel.shape[-1]
    if op_type(layer) == "EinsumDense":
        letters, last, _ = _einsum(layer)
        return kernel.shape[letters.index(last)]
    return kernel.shape[-2] * getattr(layer, "groups", 1)


def _scales_channels(layer, kernel: NDArray) -> bool:
    """Tell whether a depthwise layer only scales: then shape and ends stay what they are."""
    depthwise = op_type(layer).startswith("Depthwise")
    return depthwise and kernel.shape[-1] == 1 and kernel.size == kernel.shape[-2]


def _convolution(layer, vector: NDArray, kernel: NDArray) -> NDArray:
    groups = getattr(layer, "groups", 1)
    taps = kernel.reshape(-1, kernel.shape[-2], groups, kernel.shape[-1] // groups)
    return np.einsum("kigo,gi->go", taps, vector.reshape(groups, -1)).ravel()


def _depthwise(_, vector: NDArray, kernel: NDArray) -> NDArray:
    taps = kernel.reshape(-1, *kernel.shape[-2:])
    return np.einsum("kcm,c->cm", taps, vector).ravel()


def _transposed(_, vector: NDArray, kernel: NDArray) -> NDArray:
    return np.einsum("koi,i->o", kernel.reshape(-1, *kernel.shape[-2:]), vector)


def _einsum_dense(layer, vector: NDArray, kernel: NDArray) -> NDArray:
    letters, last, kept = _einsum(layer)
    return np.einsum(f"{letters},{last}->{kept}", kernel, vector).ravel()


def _einsum(layer) -> tuple[str, str, str]:
    """Return letters of the kernel, of the input's last axis, and of the kernel's output axes."""
    inputs, _, output = layer.equation.replace(" ", "").partition("->")
    data, letters = inputs.split(",")
    return letters, data[-1], "".join(letter for letter in letters if letter in output)


_SUMS: dict[str, Sums] = {
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D", "Dense"), _convolution),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _depthwise),
    **dict.fromkeys(("ConvTranspose1D", "ConvTranspose2D", "ConvTranspose3D"), _transposed),
    "EinsumDense": _einsum_dense,
}
