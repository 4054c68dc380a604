"""The ONNX operation types of AIMET configurations in the vocabulary of the profiles."""

from __future__ import annotations

CONV = ("Conv1D", "Conv2D", "Conv3D", "DepthwiseConv1D", "DepthwiseConv2D")
CONV_TRANSPOSE = ("ConvTranspose1D", "ConvTranspose2D", "ConvTranspose3D")
DENSE = ("Dense", "EinsumDense")

# A type that is not listed names something no Keras layer becomes; its rules change nothing.
OPS: dict[str, tuple[str, ...]] = {
    "Conv": CONV,
    "ConvTranspose": CONV_TRANSPOSE,
    "Gemm": DENSE,
    "MatMul": (*DENSE, "MatMul"),
    "Gather": ("Embedding", "Gather", "tf.gather_nd"),
    "PRelu": ("PRelu",),
    "Relu": ("Relu",),
    "Clip": ("Relu6", "CappedRelu", "Clip"),
    "LeakyRelu": ("LeakyRelu",),
    "Sigmoid": ("Sigmoid",),
    "Tanh": ("Tanh",),
    "Softmax": ("Softmax", "SoftmaxOverAxis"),
    "Elu": ("Elu", "ScaledElu"),
    "Selu": ("Selu",),
    "Gelu": ("Gelu",),
    "Softplus": ("Softplus",),
    "Softsign": ("Softsign",),
    "HardSigmoid": ("HardSigmoid",),
    "Add": ("Add",),
    "Sub": ("Sub",),
    "Mul": ("Mul",),
    "Div": ("Div",),
    "Max": ("Maximum",),
    "Min": ("Minimum",),
    "Mean": ("Average",),
    "Concat": ("Concat",),
    "MaxPool": ("MaxPool", "MaxPool3D"),
    "GlobalMaxPool": ("ReduceMax",),
    "ReduceMax": ("ReduceMax",),
    "ReduceMin": ("ReduceMin",),
    "AveragePool": ("AveragePool", "AveragePool3D"),
    "GlobalAveragePool": ("Mean",),
    "ReduceMean": ("Mean",),
    "Upsample": ("Repeat", "Resize"),
    "Resize": ("Repeat", "Resize"),
    "LayerNormalization": ("LayerNormalization",),
    "GroupNormalization": ("GroupNormalization",),
    "BatchNormalization": ("BatchNorm",),
    "LSTM": ("LSTM",),
    "GRU": ("GRU",),
    "Reshape": ("Reshape",),
    "Flatten": ("Reshape",),
    "Squeeze": ("Reshape",),
    "Unsqueeze": ("Reshape",),
    "Transpose": ("Transpose",),
    "Tile": ("Tile",),
    "Expand": ("BroadcastTo",),
    "DepthToSpace": ("DepthToSpace",),
    "SpaceToDepth": ("SpaceToDepth",),
    "Pad": ("Pad",),
    "Slice": ("Slice",),
    "StridedSlice": ("Slice",),
    "Split": ("Split",),
    "Cast": ("tf.cast",),
    "Abs": ("Abs",),
    "Exp": ("Exp",),
    "Log": ("Log",),
    "Sqrt": ("Sqrt",),
    "Reciprocal": ("Reciprocal",),
    "Erf": ("Erf",),
    "Sin": ("Sin",),
    "Cos": ("Cos",),
    "Atan": ("Atan",),
    "Sign": ("Sign",),
    "Mish": ("Mish",),
}

WEIGHTED = (*CONV, *CONV_TRANSPOSE, *DENSE, "Embedding", "PRelu")
WITH_CHANNELS = (*CONV, *CONV_TRANSPOSE, *DENSE)

# A quantizer behind these finds the very numbers, and so the grid, of the one in front.
REORDERS = ("Reshape", "Transpose", "Tile", "Repeat", "DepthToSpace", "SpaceToDepth")
# What these make lies on the grid of what they read, unless they get one of their own.
PICKS = (
    *("MaxPool", "MaxPool3D", "ReduceMax", "ReduceMin", "Slice", "Split", "Gather", "BroadcastTo"),
    "Pad",
)

# Outputs that are never negative: a lower end of 0 is what any rule finds.
NOT_NEGATIVE = ("Relu", "Relu6", "CappedRelu", "Sigmoid", "Softmax", "SoftmaxOverAxis")
