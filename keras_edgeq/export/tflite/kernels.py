"""What the integer kernels of TFLite take: op by op, the facts the writer goes by.

Operation versions are the first that take the types, from the converter's table; a newer version
than the op needs would be refused by older runtimes. All were loaded by LiteRT 2.3 with XNNPACK,
its own and its reference kernels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_edgeq.spec.encoding import Encoding
from keras_edgeq.spec.quant_spec import QuantSpec

# First version of an op by the width of its activations. What has no 16 has no int16 kernel.
Versions = dict[int, int]


@dataclass(frozen=True)
class Weighted:
    """Where a weighted op keeps its data, weights and bias, and which axis is per channel.

    Args:
        data, weight, bias: positions among the inputs.
        axis: axis of the weight that may own a scale per index.
        versions: first version by width of the activations.
        per_channel_version: first version that takes a scale per index of the axis.
        int4_version: first version that takes int4 weights with int8 activations; None for none.
            LiteRT's kernels for int16 activations misread int4 weights.
    """

    data: int
    weight: int
    bias: int
    axis: int
    versions: Versions
    per_channel_version: int = 1
    int4_version: int | None = None


WEIGHTED = {
    "CONV_2D": Weighted(0, 1, 2, 0, {8: 3, 16: 4}, int4_version=7),
    # The table says 7 for int4; the reference kernels are registered up to 6, and take it.
    "DEPTHWISE_CONV_2D": Weighted(0, 1, 2, 3, {8: 3, 16: 5}, int4_version=6),
    "FULLY_CONNECTED": Weighted(0, 1, 2, 0, {8: 4, 16: 7}, 12, int4_version=10),
    "TRANSPOSE_CONV": Weighted(2, 1, 3, 0, {8: 2, 16: 3}),
}

# Ops that move or compare integers: one grid for inputs and outputs.
SAME_GRID: dict[str, Versions] = {
    "RESHAPE": {8: 1, 16: 1},
    "SQUEEZE": {8: 1, 16: 1},
    "EXPAND_DIMS": {8: 1, 16: 1},
    "TRANSPOSE": {8: 2, 16: 5},
    "PAD": {8: 2, 16: 3},
    "MIRROR_PAD": {8: 2, 16: 3},
    "SLICE": {8: 2, 16: 4},
    "STRIDED_SLICE": {8: 2, 16: 2},
    "SPLIT": {8: 2, 16: 4},
    "SPLIT_V": {8: 2, 16: 2},
    "CONCATENATION": {8: 2, 16: 3},
    "PACK": {8: 2, 16: 3},
    "UNPACK": {8: 2, 16: 4},
    "TILE": {8: 2, 16: 2},
    "BROADCAST_TO": {8: 3, 16: 3},
    "SELECT": {8: 1, 16: 1},
    "SELECT_V2": {8: 1, 16: 1},
    "GATHER": {8: 2, 16: 4},
    "MAX_POOL_2D": {8: 2, 16: 3},
    "REDUCE_MAX": {8: 2, 16: 3},
    "REDUCE_MIN": {8: 2, 16: 3},
    "MAXIMUM": {8: 2, 16: 4},
    "MINIMUM": {8: 2, 16: 4},
    "RELU_N1_TO_1": {8: 1},
    "SPACE_TO_BATCH_ND": {8: 2, 16: 4},
    "BATCH_TO_SPACE_ND": {8: 2, 16: 4},
    "SPACE_TO_DEPTH": {8: 2},
    "DEPTH_TO_SPACE": {8: 2},
    "RESIZE_NEAREST_NEIGHBOR": {8: 2, 16: 4},
}

# Of these, what compares with numbers, which has to be done on the grid of the result.
COMPARES = ("MAXIMUM", "MINIMUM", "RELU_N1_TO_1")

# Ops that round, but only onto their input's grid.
REGRID: dict[str, Versions] = {
    "AVERAGE_POOL_2D": {8: 2, 16: 3},
    # Loads with int16 as well, and weighs with few bits.
    "RESIZE_BILINEAR": {8: 2},
}

# Ops with scales of their own on every side.
REQUANTIZE: dict[str, Versions] = {
    "ADD": {8: 2, 16: 3},
    "SUB": {8: 2, 16: 5},
    "MUL": {8: 2, 16: 4},
    "MEAN": {8: 2, 16: 3},
    "RELU": {8: 2, 16: 3},
    "RELU6": {8: 2, 16: 3},
    "LEAKY_RELU": {8: 2, 16: 2},
    "ABS": {8: 2, 16: 3},
    # With int16 these load as well, as tables of 512 points of the whole grid: wrong by many steps
    # where the result's grid ends, and slower than a float kernel between int16 tensors.
    "GELU": {8: 2},
    "EXP": {8: 2},
    "ELU": {8: 1},
    "LOG": {8: 2},
    "RSQRT": {8: 2},
    # Loads with int16 as well, and makes other numbers.
    "PRELU": {8: 1},
    "BATCH_MATMUL": {8: 2, 16: 3},
}


def grid(bits: int, scale: float, zero_point: int = 0) -> Encoding:
    """Return a grid with numbers, one scale."""
    spec = QuantSpec(bits=bits, signed=True)
    return Encoding(spec, np.array(scale, np.float32), np.array(zero_point, np.int32))


FROM_0_TO_1 = {8: grid(8, 1 / 256, -128), 16: grid(16, 1 / 32768)}
AROUND_0 = {8: grid(8, 1 / 128), 16: grid(16, 1 / 32768)}
# Ops whose result has one grid per width, for all inputs.
FIXED: dict[str, tuple[Versions, dict[int, Encoding]]] = {
    "LOGISTIC": ({8: 2, 16: 3}, FROM_0_TO_1),
    "SOFTMAX": ({8: 2, 16: 3}, FROM_0_TO_1),
    "TANH": ({8: 2, 16: 3}, AROUND_0),
}

VERSIONS = {**SAME_GRID, **REGRID, **REQUANTIZE, **{op: v for op, (v, _) in FIXED.items()}}

# Ops between two grids or a grid and float numbers, by the width on the integer side.
QUANTIZE: Versions = {8: 1, 16: 2}
DEQUANTIZE: Versions = {8: 2, 16: 3}
DEQUANTIZE_HALF = 3
# First version that takes a scale per channel.
DEQUANTIZE_CHANNELS = 5

# Ops that read a shape only, and so take a tensor of any type.
SHAPE_ONLY = ("SHAPE", "RANK")

# Between which numbers the results of an op lie.
CLAMPS = {"RELU": (0.0, np.inf), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0)}

# Ops that read float tensors and integer weights, and the first version that rounds rows of the
# tensor around a zero point, with a scale per channel of the weights.
HYBRID = {"FULLY_CONNECTED": 12}

# Operation -> the TFLite op that computes it; other weights are operands without int4 kernels.
OPERATIONS = {
    "Conv1D": "CONV_2D",
    "Conv2D": "CONV_2D",
    "DepthwiseConv1D": "DEPTHWISE_CONV_2D",
    "DepthwiseConv2D": "DEPTHWISE_CONV_2D",
    "Dense": "FULLY_CONNECTED",
    "EinsumDense": "FULLY_CONNECTED",
    "ConvTranspose1D": "TRANSPOSE_CONV",
    "ConvTranspose2D": "TRANSPOSE_CONV",
}
