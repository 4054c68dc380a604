"""Mean, variance and bounds of a layer's sums from those of its input.

Reference:
    Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
    arXiv:1906.04721, section 4.2.1.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_edgeq.numerics.quantiles import Quantiles
from keras_edgeq.ops import channel_map, op_of
from keras_edgeq.ops.channel_map import ChannelMap
from keras_edgeq.ops.table import scales_channels, sees_all


def weighted_sums(layer: Any, points: NDArray, quantiles: Quantiles) -> NDArray | None:
    """Return the distribution of a layer's sums, one column per output channel.

    The mean is exact except for padding. The variance is that of independent inputs, although
    overlapping pixels and related channels are not independent; a sum of many of them is near
    normal. The bounds are those that no input in its own bounds can exceed, and the ends of the
    normal distribution.

    Args:
        layer: without an activation.
        points: distribution of the input, `[points, channels]`.
        quantiles: what made it.

    Returns:
        Points of as many columns as the layer has biases; None for a layer whose channels are not
        known.
    """
    channels = channel_map(layer)
    if not channels or channels.outputs is None:
        return None
    kernel, bias = channels.values(), channels.bias()
    if scales_channels(layer):  # then shape and ends stay as they are
        return (points * kernel.ravel() + bias).astype(np.float32)
    if op_of(layer).macs != "input":
        return _normal_sums(channels, kernel, points, quantiles)
    # Where a transposed convolution lands between its strides decides which taps reach a pixel.
    starts = itertools.product(*(range(stride) for stride in layer.strides))
    taps = [
        kernel[tuple(slice(i, None, n) for i, n in zip(start, layer.strides, strict=True))]
        for start in starts
    ]
    phases = [_normal_sums(channels, part, points, quantiles) for part in taps]
    return quantiles.mixture(np.stack(phases, axis=1))


def _normal_sums(
    channels: ChannelMap, kernel: NDArray, points: NDArray, quantiles: Quantiles
) -> NDArray:
    low, high = points.min(axis=0), points.max(axis=0)
    if not sees_all(channels.layer):
        low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    up, down = np.maximum(kernel, 0.0), np.minimum(kernel, 0.0)
    mean, variance = quantiles.moments(points)

    def total(vector: NDArray, weights: NDArray) -> NDArray:
        each = np.broadcast_to(vector, channels.input_count)
        return channels.sums(each, weights).ravel()

    bias = channels.bias().ravel()
    return quantiles.within(
        total(mean, kernel) + bias,
        total(variance, kernel**2),
        total(low, up) + total(high, down) + bias,
        total(high, up) + total(low, down) + bias,
    )
