"""What each Keras layer is to a quantizer: its operation, its parameters, their channel axes."""

from __future__ import annotations

from dataclasses import dataclass
from types import FunctionType
from typing import Any

import tf_keras

from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.rebuild import is_users
from keras_edgeq.layers.freezable_batch_norm import FreezableBatchNorm

L = tf_keras.layers


@dataclass(frozen=True)
class WeightTrait:
    """Parameters of a weighted layer: attribute names, and the axes of the kernel's channels."""

    kernel: str
    axes: tuple[int, ...]
    bias: str | None = "bias"


# Exact classes: a user's subclass may compute something else, so it is not in the table.
WEIGHTED: dict[type, tuple[str, WeightTrait]] = {
    L.Conv1D: ("Conv1D", WeightTrait("kernel", (2,))),
    L.Conv2D: ("Conv2D", WeightTrait("kernel", (3,))),
    L.Conv3D: ("Conv3D", WeightTrait("kernel", (4,))),
    L.Conv1DTranspose: ("ConvTranspose1D", WeightTrait("kernel", (1,))),
    L.Conv2DTranspose: ("ConvTranspose2D", WeightTrait("kernel", (2,))),
    L.Conv3DTranspose: ("ConvTranspose3D", WeightTrait("kernel", (3,))),
    L.DepthwiseConv1D: ("DepthwiseConv1D", WeightTrait("depthwise_kernel", (1, 2))),
    L.DepthwiseConv2D: ("DepthwiseConv2D", WeightTrait("depthwise_kernel", (2, 3))),
    L.Dense: ("Dense", WeightTrait("kernel", (1,))),
    L.EinsumDense: ("EinsumDense", WeightTrait("kernel", ())),
    L.Embedding: ("Embedding", WeightTrait("embeddings", (1,), None)),
    L.PReLU: ("PRelu", WeightTrait("alpha", (), None)),
}

# Layers that pass on what they read at inference. RandomCrop takes the middle then.
AUGMENTATIONS = (
    *(L.RandomBrightness, L.RandomContrast, L.RandomFlip, L.RandomHeight),
    *(L.RandomRotation, L.RandomTranslation, L.RandomWidth, L.RandomZoom),
)
# Of what is nothing at inference: what computes in real units while a model trains.
TRAINS_IN_REAL_UNITS = (*AUGMENTATIONS, L.GaussianNoise, L.AlphaDropout)

SIMPLE: dict[type, str] = {
    **dict.fromkeys(AUGMENTATIONS, "Identity"),
    L.InputLayer: "Input",
    L.Add: "Add",
    L.Subtract: "Sub",
    L.Multiply: "Mul",
    L.Maximum: "Maximum",
    L.Minimum: "Minimum",
    L.Concatenate: "Concat",
    L.MaxPooling1D: "MaxPool",
    L.MaxPooling2D: "MaxPool",
    L.AveragePooling1D: "AveragePool",
    L.AveragePooling2D: "AveragePool",
    L.GlobalMaxPooling1D: "ReduceMax",
    L.GlobalMaxPooling2D: "ReduceMax",
    L.GlobalAveragePooling1D: "Mean",
    L.GlobalAveragePooling2D: "Mean",
    L.Reshape: "Reshape",
    L.Flatten: "Reshape",
    L.Permute: "Transpose",
    L.RepeatVector: "Tile",
    L.ZeroPadding1D: "Pad",
    L.ZeroPadding2D: "Pad",
    L.ZeroPadding3D: "Pad",
    L.Cropping1D: "Slice",
    L.Cropping2D: "Slice",
    L.Cropping3D: "Slice",
    L.UpSampling1D: "Repeat",
    L.Dropout: "Identity",
    L.SpatialDropout1D: "Identity",
    L.SpatialDropout2D: "Identity",
    L.SpatialDropout3D: "Identity",
    L.GaussianNoise: "Identity",
    L.GaussianDropout: "Identity",
    L.AlphaDropout: "Identity",
    L.ActivityRegularization: "Identity",
    L.BatchNormalization: "BatchNorm",
    FreezableBatchNorm: "BatchNorm",
    L.LeakyReLU: "LeakyRelu",
}

ACTIVATIONS: dict[str, str] = {
    "linear": "Identity",
    "relu": "Relu",
    "relu6": "Relu6",
    "leaky_relu": "LeakyRelu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "softmax": "Softmax",
    "swish": "Swish",
    "silu": "Swish",
}

OP_SYMBOLS: dict[str, str] = {
    "__operators__.add": "Add",
    "math.add": "Add",
    "math.subtract": "Sub",
    "math.multiply": "Mul",
    "math.truediv": "Div",
    "math.divide": "Div",
    "math.maximum": "Maximum",
    "math.minimum": "Minimum",
    "nn.relu": "Relu",
    "nn.relu6": "Relu6",
    "nn.leaky_relu": "LeakyRelu",
    "math.sigmoid": "Sigmoid",
    "nn.sigmoid": "Sigmoid",
    "math.tanh": "Tanh",
    "nn.tanh": "Tanh",
    "nn.softmax": "Softmax",
    "nn.silu": "Swish",
    "reshape": "Reshape",
    "expand_dims": "Reshape",
    "squeeze": "Reshape",
    "compat.v1.squeeze": "Reshape",
    "transpose": "Transpose",
    "compat.v1.transpose": "Transpose",
    "concat": "Concat",
    "split": "Split",
    "__operators__.getitem": "Slice",
    "strided_slice": "Slice",
    "slice": "Slice",
    "pad": "Pad",
    "compat.v1.pad": "Pad",
    "identity": "Identity",
    "math.reduce_mean": "Mean",
    "math.reduce_max": "ReduceMax",
    "nn.max_pool": "MaxPool",
    "nn.max_pool2d": "MaxPool",
    "nn.avg_pool": "AveragePool",
    "nn.avg_pool2d": "AveragePool",
    "image.resize": "Resize",
    "linalg.matmul": "MatMul",
}


# Operations whose results lie between the least and the greatest of their inputs and zero.
STAYS_IN_RANGE = frozenset(
    {"AveragePool", "Concat", "Identity", "Maximum", "MaxPool", "Mean", "Minimum", "Pad", "Relu",
     "ReduceMax", "Relu6", "Repeat", "Reshape", "Resize", "Slice", "Split", "Tile", "Transpose"}
)  # fmt: skip


def op_type(layer: Any) -> str:
    """Return the operation of a layer in the vocabulary of the profiles.

    A layer that is not known returns its class name, which no profile lists: it stays float.
    """
    symbol = keras_compat.op_symbol(layer)
    if symbol is not None:
        return OP_SYMBOLS.get(symbol, f"tf.{symbol}")
    kind = type(layer)
    if kind in WEIGHTED:
        return WEIGHTED[kind][0]
    if kind in SIMPLE:
        return SIMPLE[kind]
    return _BY_CONFIG[kind](layer) if kind in _BY_CONFIG else kind.__name__


def scales_channels(layer: Any) -> bool:
    """Tell whether a layer has one weight per channel, which any grid per channel holds exactly."""
    if type(layer) not in (L.DepthwiseConv1D, L.DepthwiseConv2D):
        return False
    return layer.depth_multiplier == 1 and set(layer.kernel_size) == {1}


def weight_trait(layer: Any) -> WeightTrait | None:
    """Return the parameters of a layer that owns quantizable ones, None for others."""
    if type(layer) not in WEIGHTED:
        return None
    trait = WEIGHTED[type(layer)][1]
    if isinstance(layer, L.EinsumDense):
        return WeightTrait("kernel", _einsum_axes(layer), "bias")
    return trait


def kept_channels(layer: Any) -> tuple[int, ...]:
    """Return the channel axes of a layer's kernel that may own a scale each.

    None remain where the bias does not have one element per channel: its int32 grid
    (input scale times weight scale) would not exist.
    """
    trait = weight_trait(layer)
    if trait is None:
        return ()
    bias = getattr(layer, trait.bias, None) if trait.bias else None
    kernel = getattr(layer, trait.kernel)
    channels = 1
    for axis in trait.axes:
        channels *= int(kernel.shape[axis])
    return trait.axes if bias is None or int(bias.shape.num_elements()) == channels else ()


def activation_name(activation: Any) -> str:
    """Return the registered name of an activation function, or its Python name."""
    own = getattr(activation, "__name__", str(activation))
    if isinstance(activation, FunctionType) and is_users(activation):
        # The user's `relu` may be another than the one that is known.
        return f"own_{own}" if own in ACTIVATIONS else own
    name = tf_keras.activations.serialize(activation)
    return name if isinstance(name, str) else own


def _einsum_axes(layer) -> tuple[int, ...]:
    """Return the kernel axes of an EinsumDense that make up the last axes of its output."""
    inputs, _, output = layer.equation.replace(" ", "").partition("->")
    kernel = inputs.split(",")[1].replace("...", "")
    axes = tuple(i for i, letter in enumerate(kernel) if letter in output)
    return axes if output.endswith("".join(kernel[i] for i in axes)) else ()


def _relu(layer) -> str:
    if float(layer.threshold) != 0.0:
        return "ThresholdedRelu"
    if float(layer.negative_slope or 0.0) != 0.0:
        return "LeakyRelu" if layer.max_value is None else "CappedLeakyRelu"
    caps = {None: "Relu", 6.0: "Relu6"}
    return caps.get(None if layer.max_value is None else float(layer.max_value), "CappedRelu")


def _softmax(layer) -> str:
    return "Softmax" if layer.axis in (-1, [-1]) else "SoftmaxOverAxis"


def _resize(layer) -> str:
    kinds = {"nearest": "Repeat", "bilinear": "Resize"}
    return kinds.get(layer.interpolation, f"Resize by {layer.interpolation}")


def _resizing(layer) -> str:
    if layer.crop_to_aspect_ratio:
        return "ResizeCrop"
    kinds = {"nearest": "Resize", "bilinear": "Resize"}
    return kinds.get(layer.interpolation, f"Resize by {layer.interpolation}")


_BY_CONFIG = {
    L.Activation: lambda layer: ACTIVATIONS.get(
        activation_name(layer.activation), activation_name(layer.activation)
    ),
    L.ReLU: _relu,
    L.Softmax: _softmax,
    L.UpSampling2D: _resize,
    L.Resizing: _resizing,
}
