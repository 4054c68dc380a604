"""Which function executes which operation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from keras_edgeq.runtime.integer import (
    edges,
    elementwise,
    functions,
    moves,
    pools,
    resize,
    tables,
    weighted,
    wide_tables,
)
from keras_edgeq.runtime.integer.interpolated import interpolated
from keras_edgeq.runtime.integer.softmax import softmax
from keras_edgeq.runtime.integer.square_root import rsqrt

# Operations that work on values of any type, floats too.
MOVES: dict[str, Callable] = {
    "RESHAPE": moves.reshape,
    "SQUEEZE": moves.squeeze,
    "EXPAND_DIMS": moves.expand_dims,
    "TRANSPOSE": moves.transpose,
    "CONCATENATION": moves.concatenation,
    "PACK": moves.pack,
    "UNPACK": moves.unpack,
    "SPLIT": moves.split,
    "SPLIT_V": moves.split_v,
    "SLICE": moves.slice_,
    "STRIDED_SLICE": moves.strided_slice,
    "GATHER": moves.gather,
    "SELECT": moves.select,
    "SELECT_V2": moves.select,
    "TILE": moves.tile,
    "BROADCAST_TO": moves.broadcast_to,
    "PAD": moves.pad,
    "PADV2": moves.pad,
    "MIRROR_PAD": moves.mirror_pad,
    "SPACE_TO_DEPTH": moves.space_to_depth,
    "DEPTH_TO_SPACE": moves.depth_to_space,
    "SPACE_TO_BATCH_ND": moves.space_to_batch_nd,
    "BATCH_TO_SPACE_ND": moves.batch_to_space_nd,
    "REVERSE_V2": moves.reverse_v2,
    "SHAPE": moves.shape,
    "FILL": moves.fill,
    "ARG_MAX": moves.arg_max,
    "RESIZE_NEAREST_NEIGHBOR": resize.resize_nearest_neighbor,
    "REDUCE_MAX": pools.reduce_max,
    "REDUCE_MIN": pools.reduce_min,
    "QUANTIZE": edges.quantize,
    "DEQUANTIZE": edges.dequantize,
    "CAST": edges.cast,
}

INTEGER: dict[str, Callable] = {
    "CONV_2D": weighted.conv_2d,
    "DEPTHWISE_CONV_2D": weighted.depthwise_conv_2d,
    "FULLY_CONNECTED": weighted.fully_connected,
    "TRANSPOSE_CONV": weighted.transpose_conv,
    "BATCH_MATMUL": weighted.batch_matmul,
    "ADD": elementwise.add,
    "SUB": elementwise.sub,
    "MUL": elementwise.mul,
    "SQUARED_DIFFERENCE": elementwise.squared_difference,
    "MAXIMUM": elementwise.maximum,
    "MINIMUM": elementwise.minimum,
    "AVERAGE_POOL_2D": pools.average_pool_2d,
    "MAX_POOL_2D": pools.max_pool_2d,
    "MEAN": pools.mean,
    "SUM": pools.sum_,
    "REDUCE_PROD": pools.reduce_prod,
    "RESIZE_BILINEAR": resize.resize_bilinear,
    "SOFTMAX": softmax,
    "LOGISTIC": tables.table(functions.sigmoid, True, wide_tables.logistic),
    "TANH": tables.table(np.tanh, True, wide_tables.tanh),
    "ELU": tables.table(functions.elu, xnnpack=True),
    "EXP": tables.table(np.exp, wide=interpolated(np.exp)),
    "LOG": tables.table(functions.log),
    "GELU": tables.gelu,
    "RSQRT": rsqrt,
    "HARD_SWISH": tables.hard_swish,
    "RELU": tables.relu(0.0, None),
    "RELU6": tables.relu(0.0, 6.0),
    "RELU_N1_TO_1": tables.relu(-1.0, 1.0),
    "LEAKY_RELU": tables.leaky_relu,
    "PRELU": tables.prelu,
    "ABS": tables.absolute,
}

KERNELS = MOVES | INTEGER
