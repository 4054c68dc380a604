"""Which channel of its input and of its output every element of a layer's kernel belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tf_keras
from numpy.typing import NDArray

from keras_edgeq.layers.layer_traits import activation_name, op_type

L = tf_keras.layers
CONVOLUTIONS = ("Conv1D", "Conv2D", "Conv3D")
TRANSPOSED = ("ConvTranspose1D", "ConvTranspose2D", "ConvTranspose3D")
DEPTHWISE = ("DepthwiseConv1D", "DepthwiseConv2D")
NORMS = (L.LayerNormalization, L.BatchNormalization)


@dataclass(frozen=True, eq=False)
class ChannelKernel:
    """A kernel and the channels that its elements connect.

    Args:
        kernel: name of the layer's attribute.
        bias: name of the layer's attribute, None where it has none.
        inputs: number of the input channel, of a shape that broadcasts to the kernel's; None where
            the kernel does not multiply single channels of the input.
        outputs: number of the output channel, likewise.
    """

    kernel: str
    bias: str | None
    inputs: NDArray[np.intp] | None
    outputs: NDArray[np.intp] | None


def channel_kernel(layer: Any, norms: bool = False) -> ChannelKernel | None:
    """Return how a layer's kernel connects channels on the last axis; None where it has no such.

    Args:
        layer: a linear layer of a prepared model.
        norms: also take gamma and beta of normalizations as a kernel of the output's channels, and
            the kernel of EinsumDense as one of the input's.
    """
    op = op_type(layer)
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return None
    if norms and type(layer) in NORMS:
        return _norm(layer)
    if norms and op == "EinsumDense":
        return _einsum(layer)
    name = "depthwise_kernel" if op in DEPTHWISE else "kernel"
    if op not in (*CONVOLUTIONS, *TRANSPOSED, *DEPTHWISE, "Dense") or not _is_linear(layer):
        return None
    bias = "bias" if layer.use_bias else None
    first, last = getattr(layer, name).shape[-2:]
    rows, columns = np.arange(first)[:, None], np.arange(last)[None, :]
    if op in DEPTHWISE:
        return ChannelKernel(name, bias, rows, rows * last + columns)
    if op in TRANSPOSED:
        return ChannelKernel(name, bias, columns, rows)
    group = columns // (last // getattr(layer, "groups", 1))
    return ChannelKernel(name, bias, rows + group * first if group.any() else rows, columns)


def _norm(layer) -> ChannelKernel | None:
    axes = np.ravel(layer.axis)
    if len(axes) != 1 or layer.gamma is None or layer.beta is None:
        return None
    if axes[0] not in (-1, len(layer.input_shape) - 1):
        return None
    return ChannelKernel("gamma", "beta", None, np.arange(layer.gamma.shape[0]))


def _einsum(layer) -> ChannelKernel | None:
    """Return a kernel of the input's last axis, where each element reads one channel of it."""
    if not _is_linear(layer):
        return None
    source, _, rest = layer.equation.replace(" ", "").partition(",")
    kernel, letter = rest.partition("->")[0], source[-1]
    if not letter.isalpha() or kernel.count(letter) != 1 or source.count(letter) != 1:
        return None
    axis = kernel.replace("...", "").index(letter)
    shape = [1] * layer.kernel.shape.rank
    shape[axis] = -1
    inputs = np.arange(layer.kernel.shape[axis]).reshape(shape)
    return ChannelKernel("kernel", None, inputs, None)


def _is_linear(layer) -> bool:
    return activation_name(layer.activation) == "linear"
