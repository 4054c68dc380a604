"""Weighted layers as matrix products: the inputs of every output in a row, the kernel in columns.

A layer computes `rows @ columns` in each of its groups: one group for Dense and plain convolutions,
one per channel for depthwise convolutions.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class MatrixForm:
    """How one layer becomes a matrix product; as it stands, a Dense.

    Args:
        layer: a built layer.
        kernel_name: attribute name of its kernel.
    """

    layer: Any
    kernel_name: str = "kernel"

    @property
    def groups(self) -> int:
        """Number of independent products."""
        return int(getattr(self.layer, "groups", 1))

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Shape of the kernel as Keras holds it."""
        return tuple(int(size) for size in getattr(self.layer, self.kernel_name).shape)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Groups, inputs of each output, and outputs of each group."""
        return self.columns(np.broadcast_to(np.float32(0.0), self.kernel_shape)).shape

    def columns(self, kernel: NDArray) -> NDArray:
        """Return values per element of the kernel as `[groups, inputs, outputs]`."""
        flat = kernel.reshape(-1, kernel.shape[-1])
        return np.moveaxis(flat.reshape(len(flat), self.groups, -1), 1, 0)

    def kernel(self, columns: NDArray) -> NDArray:
        """Return the kernel that `columns` was made of."""
        return np.moveaxis(columns, 0, 1).reshape(self.kernel_shape)

    def of_bias(self, bias: NDArray) -> NDArray:
        """Return a bias of the layer as `[groups, 1, outputs]`."""
        return np.asarray(bias).reshape(self.groups, 1, -1)

    def bias(self, values: NDArray) -> NDArray:
        """Return `[groups, 1, outputs]` in the shape of the layer's bias."""
        return np.asarray(values).reshape(-1)

    def positions(self, inputs: Any) -> tuple[int, ...]:
        """Return the sizes of the axes along which the layer repeats itself in a sample."""
        return (prod(inputs.shape[1:-1]),) if len(inputs.shape) > 2 else ()

    def sites(self, inputs: Any) -> int:
        """Return how many rows a batch of inputs makes."""
        return len(inputs) * prod(self.positions(inputs))

    def rows(self, inputs: Any, every: int = 1, offset: int = 0) -> Any:
        """Return `[groups, rows, inputs]` of a batch, a tensor.

        Args:
            inputs: what the layer reads.
            every: take one output position of so many, along each axis of `positions`.
            offset: the first one, less than `every`.
        """
        return tf.reshape(inputs, [1, -1, inputs.shape[-1]])[:, offset::every]

    def products(self, outputs: Any) -> Any:
        """Return the layer's results for a batch as `[rows, groups * outputs]`."""
        return tf.reshape(outputs, [-1, outputs.shape[-1]])


class ConvolutionForm(MatrixForm):
    """A convolution of any number of axes, channels last."""

    def positions(self, inputs: Any) -> tuple[int, ...]:
        """Return the sizes of the output's axes between batch and channels."""
        return tuple(self.layer.compute_output_shape(inputs.shape)[1:-1])

    def rows(self, inputs: Any, every: int = 1, offset: int = 0) -> Any:
        """Return the window of each output position."""
        padded, strides, rates = self._padded(inputs)
        sizes = zip(padded.shape[1:-1], self.layer.kernel_size, strides, rates, strict=True)
        windows = np.meshgrid(*(_taps(*axis, every, offset) for axis in sizes), indexing="ij")
        taps = zip(*(axis.ravel() for axis in windows), strict=True)
        patches = tf.stack([padded[(slice(None), *tap)] for tap in taps], -2)
        return self._grouped(tf.reshape(patches, [-1, *patches.shape[-2:]]))

    def _grouped(self, patches: Any) -> Any:
        """Bring `[rows, taps, channels]` to `[groups, rows, inputs]`."""
        _, taps, channels = patches.shape
        split = tf.reshape(patches, [-1, taps, self.groups, channels // self.groups])
        return tf.reshape(
            tf.transpose(split, [2, 0, 1, 3]), [self.groups, -1, taps * (channels // self.groups)]
        )

    def _padded(self, inputs: Any) -> tuple[Any, tuple, tuple]:
        """Return the input with its padding, strides and dilations of the convolution."""
        layer, strides, rates = self.layer, self.layer.strides, self.layer.dilation_rate
        pads = [[0, 0]]
        sizes = zip(inputs.shape[1:-1], layer.kernel_size, strides, rates, strict=True)
        for size, kernel, stride, rate in sizes:
            reach = (kernel - 1) * rate
            total = max((-(-size // stride) - 1) * stride + reach + 1 - size, 0)
            ends = {
                "valid": [0, 0],
                "same": [total // 2, total - total // 2],
                "causal": [reach, 0],
            }
            pads.append(ends[layer.padding])
        return tf.pad(inputs, [*pads, [0, 0]]) if np.any(pads) else inputs, strides, rates


class DepthwiseForm(ConvolutionForm):
    """A depthwise convolution: a group per channel of the input."""

    @property
    def groups(self) -> int:
        """Number of input channels."""
        return self.kernel_shape[-2]

    def columns(self, kernel: NDArray) -> NDArray:
        """Return the taps of each channel, and a column per channel made of it."""
        return np.moveaxis(kernel.reshape(-1, *kernel.shape[-2:]), 1, 0)

    def _grouped(self, patches: Any) -> Any:
        return tf.transpose(patches, [2, 0, 1])


class TransposedForm(ConvolutionForm):
    """A transposed convolution, as a plain one over the input with zeros in between."""

    def columns(self, kernel: NDArray) -> NDArray:
        """Return the turned kernel, which holds the output's channels in front of the input's."""
        turned = np.flip(kernel, tuple(range(kernel.ndim - 2)))
        return np.swapaxes(turned, -1, -2).reshape(1, -1, kernel.shape[-2])

    def kernel(self, columns: NDArray) -> NDArray:
        """Return the kernel that `columns` was made of."""
        shape = self.kernel_shape
        turned = columns.reshape(*shape[:-2], shape[-1], shape[-2])
        return np.flip(np.swapaxes(turned, -1, -2), tuple(range(len(shape) - 2)))

    def _padded(self, inputs: Any) -> tuple[Any, tuple, tuple]:
        layer, pads = self.layer, [[0, 0]]
        for axis, (size, stride) in enumerate(
            zip(layer.kernel_size, layer.strides, strict=True), 1
        ):
            inputs = _spread(inputs, axis, stride)
            beyond = max(size - stride, 0)
            if layer.padding == "same":  # crops what a convolution of the output would pad
                pads.append([size - 1 - beyond // 2, beyond // 2])
            else:
                pads.append([size - 1, beyond])
        ones = (1,) * len(layer.kernel_size)
        return tf.pad(inputs, [*pads, [0, 0]]), ones, ones


def _taps(size: int, window: int, stride: int, rate: int, every: int, offset: int) -> NDArray:
    """Return, for each element of a window, where it lies on an axis at the outputs taken."""
    first, step = offset * stride, every * stride
    count = max((size - first - (window - 1) * rate - 1) // step + 1, 0)
    begins = [first + tap * rate for tap in range(window)]
    found = np.empty(window, object)
    found[:] = [slice(b, b + (count - 1) * step + 1 if count else b, step) for b in begins]
    return found


def _spread(inputs: Any, axis: int, stride: int) -> Any:
    """Put `stride - 1` zeros between the elements of an axis, and behind the last one."""
    if stride == 1:
        return inputs
    stacked = tf.stack([inputs] + [tf.zeros_like(inputs)] * (stride - 1), axis + 1)
    sizes = list(inputs.shape)
    sizes[axis] *= stride
    return tf.reshape(stacked, [-1, *sizes[1:]])
