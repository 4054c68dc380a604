"""What the integer kernels of TFLite take: op by op, the facts the writer goes by.

Operation versions are the first that take int8, from the converter's table; a newer version than
the op needs would be refused by older runtimes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_edgeq.spec.encoding import Encoding
from keras_edgeq.spec.quant_spec import QuantSpec


@dataclass(frozen=True)
class Weighted:
    """Where a weighted op keeps its data, weights and bias, and which axis is per channel."""

    data: int
    weight: int
    bias: int
    axis: int
    version: int
    per_channel_version: int


WEIGHTED = {
    "CONV_2D": Weighted(0, 1, 2, 0, 3, 3),
    "DEPTHWISE_CONV_2D": Weighted(0, 1, 2, 3, 3, 3),
    "FULLY_CONNECTED": Weighted(0, 1, 2, 0, 4, 12),
    "TRANSPOSE_CONV": Weighted(2, 1, 3, 0, 2, 2),
}

# Ops that move or compare integers: one grid for inputs and outputs.
SAME_GRID = {
    "RESHAPE": 1,
    "SQUEEZE": 1,
    "EXPAND_DIMS": 1,
    "TRANSPOSE": 2,
    "PAD": 2,
    "SLICE": 2,
    "STRIDED_SLICE": 2,
    "SPLIT": 2,
    "SPLIT_V": 2,
    "CONCATENATION": 2,
    "PACK": 2,
    "UNPACK": 2,
    "TILE": 2,
    "BROADCAST_TO": 2,
    "GATHER": 2,
    "MAX_POOL_2D": 2,
    "REDUCE_MAX": 2,
    "MAXIMUM": 2,
    "MINIMUM": 2,
    "SPACE_TO_BATCH_ND": 2,
    "BATCH_TO_SPACE_ND": 2,
    "SPACE_TO_DEPTH": 2,
    "DEPTH_TO_SPACE": 2,
    "RESIZE_NEAREST_NEIGHBOR": 2,
}

# Ops that round, but only onto their input's grid.
REGRID = {"AVERAGE_POOL_2D": 2, "RESIZE_BILINEAR": 2}

# Ops with scales of their own on every side.
REQUANTIZE = {
    "ADD": 2,
    "SUB": 2,
    "MUL": 2,
    "MEAN": 2,
    "RELU": 2,
    "RELU6": 2,
    "LEAKY_RELU": 2,
    "PRELU": 1,
    "BATCH_MATMUL": 2,
}

UNIT = QuantSpec(bits=8, signed=True)
FROM_0_TO_1 = Encoding(UNIT, np.array(1 / 256, np.float32), np.array(-128, np.int32))
AROUND_0 = Encoding(UNIT, np.array(1 / 128, np.float32), np.array(0, np.int32))
FIXED = {"LOGISTIC": (2, FROM_0_TO_1), "SOFTMAX": (2, FROM_0_TO_1), "TANH": (2, AROUND_0)}

VERSIONS = {**SAME_GRID, **REGRID, **REQUANTIZE, **{op: v for op, (v, _) in FIXED.items()}}

# Ops that read a shape only, and so take a tensor of any type.
SHAPE_ONLY = ("SHAPE", "RANK")

# The largest value that survives an op whose output grid stands in for its input's.
CLAMPS = {"RELU": np.inf, "RELU6": 6.0}
