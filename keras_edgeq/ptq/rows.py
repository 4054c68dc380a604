"""Weighted layers as matrix products: the inputs of every output in a row, the kernel in columns.

A layer computes `rows @ columns` in each of its groups: one group for Dense and plain convolutions,
one per channel for depthwise convolutions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_edgeq.layers.layer_traits import op_type, weight_trait

TRANSPOSED = {"ConvTranspose1D", "ConvTranspose2D"}
CONVOLUTIONS = {"Conv1D", "Conv2D", "DepthwiseConv1D", "DepthwiseConv2D"}
SUPPORTED = {"Dense", *CONVOLUTIONS, *TRANSPOSED}


@dataclass(frozen=True, eq=False)
class Rows:
    """How one layer becomes a matrix product.

    Args:
        layer: a built layer of `SUPPORTED`.
    """

    layer: Any

    @staticmethod
    def can(layer: Any) -> bool:
        """Tell whether a layer is a matrix product that this module knows."""
        if op_type(layer) in TRANSPOSED:
            plain = all(rate == 1 for rate in layer.dilation_rate)
            if not plain or layer.output_padding is not None:
                return False
        last = getattr(layer, "data_format", "channels_last") == "channels_last"
        return op_type(layer) in SUPPORTED and last

    @property
    def op(self) -> str:
        """The layer's operation."""
        return op_type(self.layer)

    @property
    def groups(self) -> int:
        """Number of independent products."""
        if self.op.startswith("Depthwise"):
            return int(self.kernel_shape[-2])
        return int(getattr(self.layer, "groups", 1))

    @property
    def kernel_name(self) -> str:
        """Attribute name of the kernel."""
        trait = weight_trait(self.layer)
        assert trait is not None  # `can` was asked
        return trait.kernel

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Shape of the kernel as Keras holds it."""
        return tuple(getattr(self.layer, self.kernel_name).shape)

    def columns(self, kernel: NDArray) -> NDArray:
        """Return a kernel (or what broadcasts over its channels) as `[groups, inputs, outputs]`."""
        shape, groups = kernel.shape, self.groups
        if self.op.startswith("Depthwise"):
            return np.moveaxis(kernel.reshape(-1, *shape[-2:]), 1, 0)
        if self.op in TRANSPOSED:
            turned = np.flip(kernel, tuple(range(kernel.ndim - 2)))
            return np.swapaxes(turned, -1, -2).reshape(1, -1, shape[-2])
        flat = kernel.reshape(-1, shape[-1])
        return np.moveaxis(flat.reshape(len(flat), groups, -1), 1, 0)

    def kernel(self, columns: NDArray) -> NDArray:
        """Return the kernel that `columns` was made of."""
        shape = self.kernel_shape
        if self.op.startswith("Depthwise"):
            return np.moveaxis(columns, 0, 1).reshape(shape)
        if self.op in TRANSPOSED:
            turned = columns.reshape(*shape[:-2], shape[-1], shape[-2])
            return np.flip(np.swapaxes(turned, -1, -2), tuple(range(len(shape) - 2)))
        return np.moveaxis(columns, 0, 1).reshape(shape)

    def per_output(self, values: NDArray) -> NDArray:
        """Return what the layer holds per output channel, flat, as `[groups, 1, outputs]`."""
        return np.asarray(values).reshape(self.groups, 1, -1)

    def flat(self, values: NDArray) -> NDArray:
        """Return `[groups, 1, outputs]` in the order of the layer's output channels."""
        return np.asarray(values).reshape(-1)

    def mean_row(self, channels: NDArray) -> NDArray:
        """Return `[groups, inputs, 1]`, the mean row of inputs with these means per channel.

        Borders are left out. A transposed convolution reads each input at one output in
        `strides`, and zeros at the others.
        """
        sites = int(np.prod(self.kernel_shape[:-2])) if self.op != "Dense" else 1
        if self.op.startswith("Depthwise"):
            return np.repeat(channels[:, None], sites, axis=1)[:, :, None]
        share = 1.0 / np.prod(self.layer.strides) if self.op in TRANSPOSED else 1.0
        split = np.reshape(channels * share, (self.groups, -1))
        return np.tile(split, (1, sites))[:, :, None]

    def positions(self, inputs) -> tuple[int, ...]:
        """Return the sizes of the axes along which the layer repeats itself in a sample."""
        if self.op == "Dense":
            return (int(np.prod(inputs.shape[1:-1])),) if len(inputs.shape) > 2 else ()
        return tuple(self.layer.compute_output_shape(inputs.shape)[1:-1])

    def sites(self, inputs) -> int:
        """Return how many rows a batch of inputs makes."""
        return len(inputs) * int(np.prod(self.positions(inputs)))

    def rows(self, inputs, every: int = 1, offset: int = 0):
        """Return `[groups, rows, inputs]` of a batch, a tensor.

        Args:
            inputs: what the layer reads.
            every: take one output position of so many, along each axis of a convolution.
            offset: the first one, less than `every`.
        """
        op = self.op
        if op == "Dense":
            return tf.reshape(inputs, [1, -1, inputs.shape[-1]])[:, offset::every]
        if op.endswith("1D"):
            inputs = tf.expand_dims(inputs, 1)
        padded, strides, rates = (self._spread if op in TRANSPOSED else self._padded)(inputs)
        window = _two(self.layer.kernel_size, 1)
        # A 1D layer has an axis of one position in front, which is always taken.
        thin = [(1, 0) if op.endswith("1D") else (every, offset), (every, offset)]
        axes = zip(padded.shape[1:3], window, strides, rates, thin, strict=True)
        downs, rights = (_taps(*axis) for axis in axes)
        patches = tf.stack([padded[:, down, right] for down in downs for right in rights], -2)
        sites = int(np.prod(self.layer.kernel_size))
        channels = int(inputs.shape[-1])
        if op.startswith("Depthwise"):
            return tf.transpose(tf.reshape(patches, [-1, sites, channels]), [2, 0, 1])
        groups = self.groups
        split = tf.reshape(patches, [-1, sites, groups, channels // groups])
        return tf.reshape(
            tf.transpose(split, [2, 0, 1, 3]), [groups, -1, sites * (channels // groups)]
        )

    def _padded(self, inputs):
        """Return the input with its padding, strides and dilations of the convolution."""
        layer = self.layer
        window, strides = _two(layer.kernel_size, 1), _two(layer.strides, 1)
        rates = _two(layer.dilation_rate, 1)
        pads = [[0, 0]]
        sizes = inputs.shape[1:3]
        for size, kernel, stride, rate in zip(sizes, window, strides, rates, strict=True):
            reach = (kernel - 1) * rate
            total = max((-(-size // stride) - 1) * stride + reach + 1 - size, 0)
            ends = {
                "valid": [0, 0],
                "same": [total // 2, total - total // 2],
                "causal": [reach, 0],
            }
            pads.append(ends[layer.padding])
        padded = tf.pad(inputs, [*pads, [0, 0]]) if np.any(pads) else inputs
        return padded, strides, rates

    def _spread(self, inputs):
        """Return the input with zeros between its elements: a transposed convolution is plain."""
        layer, pads = self.layer, [[0, 0]]
        window, strides = _two(layer.kernel_size, 1), _two(layer.strides, 1)
        for axis, (size, stride) in enumerate(zip(window, strides, strict=True), 1):
            inputs = _spread(inputs, axis, stride)
            beyond = max(size - stride, 0)
            if layer.padding == "same":  # crops what a convolution of the output would pad
                pads.append([size - 1 - beyond // 2, beyond // 2])
            else:
                pads.append([size - 1, beyond])
        return tf.pad(inputs, [*pads, [0, 0]]), (1, 1), (1, 1)


def _two(values, missing: int) -> tuple[int, int]:
    values = tuple(int(v) for v in values)
    return (missing, *values) if len(values) == 1 else values  # type: ignore[return-value]


def _taps(size: int, window: int, stride: int, rate: int, thin: tuple[int, int]) -> list[slice]:
    """Return, for each element of a window, where it lies on an axis at the outputs taken."""
    every, offset = thin
    first, step = offset * stride, every * stride
    count = max((size - first - (window - 1) * rate - 1) // step + 1, 0)
    begins = [first + tap * rate for tap in range(window)]
    return [slice(b, b + (count - 1) * step + 1 if count else b, step) for b in begins]


def _spread(inputs, axis: int, stride: int):
    """Put `stride - 1` zeros between the elements of an axis, and behind the last one."""
    if stride == 1:
        return inputs
    stacked = tf.stack([inputs] + [tf.zeros_like(inputs)] * (stride - 1), axis + 1)
    sizes = list(inputs.shape)
    sizes[axis] *= stride
    return tf.reshape(stacked, [-1, *sizes[1:]])
