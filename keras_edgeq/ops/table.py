"""The rows of all operations, and which of them a layer is."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np
import tf_keras

from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.rebuild import is_users
from keras_edgeq.ops import functions, plain, weighted
from keras_edgeq.ops.cell_layers import CellActivation, CellOp
from keras_edgeq.ops.constant_operands import AddConstant, MultiplyConstant
from keras_edgeq.ops.op import Op, Unsupported, Weights

if TYPE_CHECKING:
    from keras_edgeq.ops.channel_map import ChannelMap
    from keras_edgeq.ops.matrix_form import MatrixForm

L = tf_keras.layers
OPS: Mapping[str, Op] = {op.name: op for op in (*weighted.ROWS, *plain.ROWS, *functions.ROWS)}
CLASSES: Mapping[type, Op] = {kind: op for op in OPS.values() for kind in op.classes}
SYMBOLS: Mapping[str, Op] = {symbol: op for op in OPS.values() for symbol in op.symbols}
# Name of a Keras activation function -> its operation.
FUNCTIONS: Mapping[str, str] = {name: op.name for op in OPS.values() for name in op.functions}
# Layers with parameters that are quantized.
WEIGHTED = tuple(kind for kind, op in CLASSES.items() if op.weights is not None)


def op_type(layer: Any) -> str:
    """Return the operation of a layer in the vocabulary of the profiles.

    A layer that is not known returns its class name, which no profile lists: it stays float.
    """
    symbol = keras_compat.op_symbol(layer)
    if symbol is not None:
        return SYMBOLS[symbol].name if symbol in SYMBOLS else f"tf.{symbol}"
    kind = type(layer)
    if kind in CLASSES:
        return CLASSES[kind].name
    return _BY_OPTIONS[kind](layer) if kind in _BY_OPTIONS else kind.__name__


def op_of(layer: Any) -> Op:
    """Return the row of a layer's operation; one that says nothing where it is not known."""
    name = op_type(layer)
    return OPS.get(name) or Op(name=name)


def is_known(layer: Any) -> bool:
    """Tell whether a layer's operation has a row."""
    return op_type(layer) in OPS


def weights_of(layer: Any) -> Weights | None:
    """Return the parameters of a layer that owns quantizable ones, None for others."""
    op = CLASSES.get(type(layer))
    return None if op is None or op.weights is None else op.weights(layer)


def matrix_form(layer: Any) -> MatrixForm | Unsupported:
    """Return a layer as a matrix product."""
    answer = op_of(layer).matrix
    return answer(layer) if callable(answer) else answer


def channel_map(layer: Any) -> ChannelMap | Unsupported:
    """Return which channels a layer's kernel connects."""
    answer = op_of(layer).channels
    return answer(layer) if callable(answer) else answer


def sees_all(layer: Any) -> bool:
    """Tell whether each output of a layer sees the whole kernel on real inputs, no padding."""
    answer = op_of(layer).sees_all
    return answer is not None and answer(layer)


def scales_channels(layer: Any) -> bool:
    """Tell whether a layer has one weight per channel, which any grid per channel holds exactly."""
    if type(layer) not in (L.DepthwiseConv1D, L.DepthwiseConv2D):
        return False
    return layer.depth_multiplier == 1 and set(layer.kernel_size) == {1}


def keeps_8_bits(layer: Any) -> bool:
    """Tell whether fewer than 8 bits of a layer's weights save nothing, and cost much."""
    return scales_channels(layer) or type(layer) in (AddConstant, MultiplyConstant)


def kept_channels(layer: Any) -> tuple[int, ...]:
    """Return the channel axes of a layer's kernel that may own a scale each.

    None remain where the bias does not have one element per channel: its int32 grid
    (input scale times weight scale) would not exist.
    """
    weights = weights_of(layer)
    if weights is None:
        return ()
    bias = getattr(layer, weights.bias, None) if weights.bias else None
    kernel = getattr(layer, weights.kernel)
    channels = 1
    for axis in weights.axes:
        channels *= int(kernel.shape[axis])
    return weights.axes if bias is None or int(bias.shape.num_elements()) == channels else ()


def in_blocks(layer: Any) -> bool:
    """Tell whether blocks of a layer's inputs may own a scale each."""
    answer = op_of(layer).in_blocks
    return answer is not None and answer(layer)


def activation_name(activation: Any) -> str:
    """Return the registered name of an activation function, or its Python name."""
    own = getattr(activation, "__name__", str(activation))
    if isinstance(activation, FunctionType) and is_users(activation):
        # The user's `relu` may be another than the one that is known.
        return f"own_{own}" if own in FUNCTIONS else own
    if isinstance(activation, partial):  # which Keras does not write
        return own
    name = tf_keras.activations.serialize(activation)
    return name if isinstance(name, str) else own


def is_linear(layer: Any) -> bool:
    """Tell whether a layer has no activation of its own."""
    function = getattr(layer, "activation", None)
    return function is None or activation_name(function) == "linear"


def _relu(layer: Any) -> str:
    if float(layer.threshold) != 0.0:
        return "ThresholdedRelu"
    if float(layer.negative_slope or 0.0) != 0.0:
        return "LeakyRelu" if layer.max_value is None else "CappedLeakyRelu"
    caps = {None: "Relu", 6.0: "Relu6"}
    return caps.get(None if layer.max_value is None else float(layer.max_value), "CappedRelu")


def _elu(layer: Any) -> str:
    return functions.ELU.name if float(layer.alpha) == 1.0 else "ScaledElu"


def _softmax(layer: Any) -> str:
    return "Softmax" if np.ravel(layer.axis).tolist() == [-1] else "SoftmaxOverAxis"


def _resize(layer: Any) -> str:
    kinds = {"nearest": "Repeat", "bilinear": "Resize"}
    return kinds.get(layer.interpolation, f"Resize by {layer.interpolation}")


def _resizing(layer: Any) -> str:
    if layer.crop_to_aspect_ratio:
        return "ResizeCrop"
    kinds = {"nearest": "Resize", "bilinear": "Resize"}
    return kinds.get(layer.interpolation, f"Resize by {layer.interpolation}")


def _activation(layer: Any) -> str:
    name = activation_name(layer.activation)
    return FUNCTIONS.get(name, name)


_BY_OPTIONS = {
    L.Activation: _activation,
    L.ELU: _elu,
    CellActivation: _activation,
    CellOp: lambda layer: layer.op,
    L.ReLU: _relu,
    L.Softmax: _softmax,
    L.UpSampling2D: _resize,
    L.Resizing: _resizing,
}
