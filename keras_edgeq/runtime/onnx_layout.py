"""Where an ONNX file holds tensors with channels first, and how to read them as the sim does."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

# Nodes after which the axes are those of the sim again: tf2onnx gives them NHWC data only.
NEW_AXES = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Gemm", "MatMul", "Gather", "Einsum"}


def axis_orders(content: bytes) -> dict[str, tuple[int, ...]]:
    """Return, for tensors that do not lie as in the sim, which axis of the sim each axis holds.

    A convolution reads `(samples, channels, height, width)`, which is `(0, 3, 1, 2)`. What it reads
    and makes is followed through all nodes that keep the axes.
    """
    nodes = onnx.load_model_from_string(content).graph.node
    orders: dict[str, tuple[int, ...]] = {}
    for node in nodes:
        order = _spatial_order(node) or next(
            (orders[name] for name in node.input if name in orders), None
        )
        if node.op_type == "Transpose":
            permutation = tuple(onnx.helper.get_node_attr_value(node, "perm"))
            order = tuple((order or range(len(permutation)))[axis] for axis in permutation)
        if order is not None and node.op_type not in NEW_AXES and order != tuple(sorted(order)):
            orders.update(dict.fromkeys(node.output, order))
    for node in reversed(nodes):
        order = _spatial_order(node) or orders.get(node.output[0])
        if order is not None and node.op_type not in {*NEW_AXES, "Transpose"}:
            orders.setdefault(node.input[0], order)
    return orders


def as_in_sim(
    tensors: Mapping[str, np.ndarray], orders: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """Return tensors with their axes in the order of the sim."""
    return {
        name: value.transpose(np.argsort(orders[name]))
        if name in orders and len(orders[name]) == value.ndim
        else value
        for name, value in tensors.items()
    }


def _spatial_order(node: onnx.NodeProto) -> tuple[int, ...] | None:
    """Return the axes of what a convolution or pool reads and makes."""
    kernel = next((a.ints for a in node.attribute if a.name == "kernel_shape"), None)
    if kernel is None:
        return None
    return (0, len(kernel) + 1, *range(1, len(kernel) + 1))
