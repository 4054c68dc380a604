"""Keep a runtime's optimizer from computing something else than the graph says.

ONNX Runtime (1.31) changes results in two places where a Clip that changes no number stops it. It
merges two pairs in a row whose integers have one type, and so takes out a rounding. And it
quantizes the float weights of a product between pairs, per tensor to 8 bits.
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from keras_edgeq.export.onnx_carriers import Grid, grids_of, same_grid
from keras_edgeq.export.onnx_convert import DEQUANTIZE, QUANTIZE
from keras_edgeq.export.onnx_graph import OnnxGraph

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def guard(graph: OnnxGraph) -> None:
    """Put a Clip that changes no number where optimizers must not look through."""
    grids, producers = grids_of(graph), graph.producers()
    for node in list(graph.nodes):
        grid = grids.get(node.input[0]) if node.input else None
        if node.op_type == QUANTIZE:
            own = (node.input[1], node.input[2])
            if grid is not None and _merge(graph, grid, own):
                # A quarter step inside of the ends: a Clip at the ends would be optimized away.
                _clip(graph, node, own, 0.25)
        elif node.op_type in PRODUCTS and grid is not None:
            weight = producers.get(node.input[1])
            if weight is None or weight.op_type != DEQUANTIZE:
                _clip(graph, node, grid, 0.0)


def _merge(graph: OnnxGraph, one: Grid, other: Grid) -> bool:
    """Tell whether two pairs in a row differ, with integers of one type."""
    same_type = graph.constants[one[1]].dtype == graph.constants[other[1]].dtype
    return same_type and not same_grid(graph, one, other)


def _clip(graph: OnnxGraph, node: NodeProto, grid: Grid, inside: float) -> None:
    """Clip the first input of a node to the ends of a grid, or steps `inside` of them."""
    scale, zero_point = (graph.constants[name] for name in grid)
    limits, zero = np.iinfo(zero_point.dtype), np.float32(zero_point)
    ends = {"min": limits.min + np.float32(inside), "max": limits.max - np.float32(inside)}
    bounds = [
        graph.add_constant(f"{node.output[0]}/{side}", (end - zero) * scale)
        for side, end in ends.items()
    ]
    clipped = graph.free_name(f"{node.input[0]}/clipped")
    graph.nodes.insert(graph.place_of(node), graph.node("Clip", [node.input[0], *bounds], clipped))
    node.input[0] = clipped
