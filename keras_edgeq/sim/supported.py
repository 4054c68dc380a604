"""Which calls of a prepared model a target has a kernel for."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.layer_graph import GraphNode
from keras_edgeq.layers.layer_traits import op_type
from keras_edgeq.spec.target_profile import TargetProfile


def why_unsupported(node: GraphNode, profile: TargetProfile) -> str | None:
    """Return why the target has no kernel for a call, None where it has one."""
    op = op_type(node.layer)
    if op == "Input":
        return "model input"
    if op == "Identity":
        return "no computation"
    if not node.is_float:
        return "makes integers or booleans, not real numbers"
    if not profile.computes(op):
        return f"{op} has no integer kernel in profile {profile.name!r}"
    if getattr(node.layer, "data_format", "channels_last") == "channels_first":
        return "data_format='channels_first'; integer kernels are channels_last"
    if _operands(node.call.node, op) is None:
        return f"{op} with a constant operand that is not a scalar"
    if op == "Pad" and not _pads_zero(node.call.node):
        return "pads with something else than zeros"
    return None


def _operands(keras_node: Any, op: str) -> int | None:
    """Return how many tensors an elementwise call reads; None with a constant it cannot take."""
    if op not in ("Add", "Sub", "Mul", "Maximum", "Minimum", "MatMul", "Concat"):
        return 1
    flat = keras_compat.operands(keras_node)
    symbols = [v for v in flat if keras_compat.is_keras_tensor(v)]
    scalars_taken = op in ("Add", "Sub", "Mul")
    for value in flat[: 2 if op != "Concat" else None]:
        if keras_compat.is_keras_tensor(value) or (op == "Concat" and np.ndim(value) == 0):
            continue
        if not scalars_taken or np.size(value) != 1:
            return None
    return len(symbols)


def _pads_zero(keras_node: Any) -> bool:
    if keras_compat.op_symbol(keras_node.layer) is None:
        return True
    # tf.pad is recorded as compat.v1.pad(tensor, paddings, mode, name, constant_values).
    names = ("tensor", "paddings", "mode", "name", "constant_values")
    options = dict(zip(names, keras_node.call_args, strict=False)) | dict(keras_node.call_kwargs)
    value = np.asarray(options.get("constant_values", 0))
    return options.get("mode", "CONSTANT") == "CONSTANT" and bool(np.all(value == 0))
