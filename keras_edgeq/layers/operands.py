"""How each operation reads its operands: in steps of a grid or in real numbers, and constants."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_edgeq.graph import keras_compat


@dataclass(frozen=True)
class Operands:
    """What an elementwise or joining operation takes beside tensors.

    Args:
        count: number of operands; None takes all there are.
        scalars: whether a kernel takes a constant of one element, in real units. Other constants
            are taken by none: a kernel that compares or moves integers reads every operand in steps
            of one grid, which a constant is not on.
    """

    count: int | None
    scalars: bool = False


OPERANDS = {
    "Add": Operands(2, scalars=True),
    "Sub": Operands(2, scalars=True),
    "Mul": Operands(2, scalars=True),
    "Maximum": Operands(2),
    "Minimum": Operands(2),
    "MatMul": Operands(2),
    "Concat": Operands(None),
}
# Operations that read whole numbers, whatever the type that holds them: no grid may round these.
READ_IDS = frozenset(
    {"Embedding", "CategoryEncoding", "IntegerLookup", "StringLookup", "Hashing", "HashedCrossing"}
)


def takes_constants(keras_node: Any, op: str) -> bool:
    """Tell whether the target's kernel takes the constants among the operands of a call."""
    taken = OPERANDS.get(op)
    if taken is None:
        return True
    for value in keras_compat.operands(keras_node)[: taken.count]:
        if keras_compat.is_keras_tensor(value):
            continue
        # The axis of a concatenation is no operand.
        is_axis = taken.count is None and np.ndim(value) == 0
        if not is_axis and (not taken.scalars or np.size(value) != 1):
            return False
    return True


def pads_zero(keras_node: Any) -> bool:
    """Tell whether a call of a padding adds zeros, which lie on every grid."""
    if keras_compat.op_symbol(keras_node.layer) is None:
        return True
    # tf.pad is recorded as compat.v1.pad(tensor, paddings, mode, name, constant_values).
    names = ("tensor", "paddings", "mode", "name", "constant_values")
    options = dict(zip(names, keras_node.call_args, strict=False)) | dict(keras_node.call_kwargs)
    value = np.asarray(options.get("constant_values", 0))
    mode = str(options.get("mode", "CONSTANT")).upper()
    return mode == "CONSTANT" and bool(np.all(value == 0))


def reads_mask(keras_node: Any) -> bool:
    """Tell whether a call is given a mask."""
    given: Iterable[Any] = (keras_node.call_kwargs.get(n) for n in ("mask", "attention_mask"))
    return any(value is not None for value in given)
