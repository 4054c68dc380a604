"""Which channel of its input and of its output every element of a layer's kernel belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_edgeq.ops.op import Unsupported

Numbers = NDArray[np.intp]
CHANNELS_FIRST = Unsupported("has its channels first")


@dataclass(frozen=True, eq=False)
class ChannelMap:
    """A kernel and the channels, on the last axes of input and output, that its elements connect.

    Args:
        layer: a built layer.
        kernel: name of its attribute.
        inputs: number of the input channel, of a shape that broadcasts to the kernel's.
        outputs: number of the output channel, same shape; None if one cannot be scaled alone.
        units: number of the sum to which an element adds (the element of the bias), same shape.
        bias_shape: of a bias with an element for each sum.
        with_bias: options of a layer that has such a bias.
    """

    layer: Any
    kernel: str
    inputs: Numbers
    outputs: Numbers | None
    units: Numbers
    bias_shape: tuple[int, ...]
    with_bias: Mapping[str, Any] = field(default_factory=lambda: {"use_bias": True})

    @property
    def bias_name(self) -> str | None:
        """Name of the bias's attribute, None if the layer has none."""
        return None if self.layer.bias is None else "bias"

    def values(self) -> NDArray[np.float64]:
        """Return the kernel."""
        return np.asarray(getattr(self.layer, self.kernel), np.float64)

    def bias(self) -> NDArray[np.float64]:
        """Return the bias, zeros where the layer has none, an element for each sum."""
        bias = 0.0 if self.layer.bias is None else np.asarray(self.layer.bias, np.float64)
        return np.broadcast_to(bias, self.bias_shape)

    def sums(self, channels: NDArray, kernel: NDArray | None = None) -> NDArray[np.float64]:
        """Return what an input of these constant channels adds up to, in the shape of the bias.

        Args:
            channels: a number per input channel.
            kernel: of the layer, by default its own; some taps of one do as well.
        """
        each = (self.values() if kernel is None else kernel) * channels[self.inputs]
        units = np.broadcast_to(self.units, each.shape)
        count = int(np.prod(self.bias_shape))
        added = np.bincount(units.ravel(), each.ravel(), count)
        return np.asarray(added, np.float64).reshape(self.bias_shape)

    @property
    def input_count(self) -> int:
        """Number of input channels."""
        return int(self.inputs.max()) + 1


def convolution(layer: Any) -> ChannelMap | Unsupported:
    """Return the map of a Dense, or of a convolution with any number of groups."""
    first, last = layer.kernel.shape[-2:]
    rows, columns = np.arange(first)[:, None], np.arange(last)[None, :]
    group = columns // (last // getattr(layer, "groups", 1))
    return _map(layer, "kernel", rows + group * first if group.any() else rows, columns)


def depthwise(layer: Any) -> ChannelMap | Unsupported:
    """Return the map of a depthwise convolution."""
    first, last = layer.depthwise_kernel.shape[-2:]
    rows, columns = np.arange(first)[:, None], np.arange(last)[None, :]
    return _map(layer, "depthwise_kernel", rows, rows * last + columns)


def transposed(layer: Any) -> ChannelMap | Unsupported:
    """Return the map of a transposed convolution, whose kernel has the output in front."""
    made, read = layer.kernel.shape[-2:]
    return _map(layer, "kernel", np.arange(read)[None, :], np.arange(made)[:, None])


def _map(layer: Any, kernel: str, inputs: Numbers, outputs: Numbers) -> ChannelMap | Unsupported:
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return CHANNELS_FIRST
    return ChannelMap(layer, kernel, inputs, outputs, outputs, (int(outputs.max()) + 1,))
