"""What is known of each operation: one row per operation, which techniques ask."""

from keras_edgeq.ops.op import Op, Operands, Unsupported, Weights
from keras_edgeq.ops.table import channel_map, matrix_form, op_of, op_type, weights_of

__all__ = [
    "Op",
    "Operands",
    "Unsupported",
    "Weights",
    "channel_map",
    "matrix_form",
    "op_of",
    "op_type",
    "weights_of",
]
