"""Give tensors that lie on a grid a pair of their own, as ONNX runtimes look for them.

The sim needs no quantizer behind an operation that only moves or compares numbers of one grid. A
runtime recognizes an integer operation by the pairs around it, and a second pair of the same grid
changes no number.
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from keras_edgeq.export.onnx.graph import DEQUANTIZE, QUANTIZE, OnnxGraph, attributes

# Operation -> how many of its inputs are data; None for all. Runtimes see through the first group.
SEEN_THROUGH = {"Identity": 1, "Reshape": 1, "Transpose": 1, "Squeeze": 1, "Unsqueeze": 1}
PAIRED = {
    "Concat": None,
    "DepthToSpace": 1,
    "Expand": 1,
    "Gather": 1,
    "Max": None,
    "MaxPool": 1,
    "Min": None,
    "Pad": 1,
    "ReduceMax": 1,
    "ReduceMin": 1,
    "Resize": 1,
    "Slice": 1,
    "SpaceToDepth": 1,
    "Split": 1,
    "Tile": 1,
}
# Runtimes merge the first into the second, unless a pair stands between.
MERGED = {("Pad", "Conv")}

Grid = tuple[str, str]


def pair_carriers(graph: OnnxGraph, everywhere: bool = False) -> None:
    """Put a pair behind each operation whose result lies on its inputs' one grid.

    Args:
        graph: changed in place.
        everywhere: also behind operations that runtimes see through.
    """
    paired = {**PAIRED, **SEEN_THROUGH} if everywhere else PAIRED
    written: list[NodeProto] = []
    readers, grids = graph.readers(), grids_of(graph)
    for node in list(graph.nodes):
        written.append(node)
        if node.op_type not in paired or node.output[0] not in grids:
            continue
        for place, result in enumerate(node.output):
            ops = {reader.op_type for reader in readers.get(result, [node])}
            if ops != {QUANTIZE} and (node.op_type, *ops) not in MERGED:
                written.extend(_pair(graph, node, place, grids[result]))
    graph.nodes = written


def grids_of(graph: OnnxGraph) -> dict[str, Grid]:
    """Return the grid of each tensor that lies on one, as names of its scale and zero point."""
    grids: dict[str, Grid] = {}
    for node in graph.nodes:
        grid = _grid_of(graph, node, grids)
        if grid is not None:
            grids.update(dict.fromkeys(node.output, grid))
    return grids


def _grid_of(graph: OnnxGraph, node: NodeProto, grids: dict[str, Grid]) -> Grid | None:
    """Return the scale and zero point of what a node makes, None if it computes."""
    if node.op_type == DEQUANTIZE:
        return None if node.input[0] in graph.constants else (node.input[1], node.input[2])
    table = {**SEEN_THROUGH, **PAIRED}
    if node.op_type not in table or not _only_moves(graph, node):
        return None
    found = [grids.get(name) for name in node.input[: table[node.op_type]]]
    first = found[0]
    if first is None or not all(grid and same_grid(graph, grid, first) for grid in found):
        return None
    return first


def same_grid(graph: OnnxGraph, one: Grid, other: Grid) -> bool:
    """Tell whether integers of one grid mean the same on the other, and have its type."""
    pairs = [(graph.constants[a], graph.constants[b]) for a, b in zip(one, other, strict=True)]
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)


def _only_moves(graph: OnnxGraph, node: NodeProto) -> bool:
    options = attributes(node)
    if node.op_type == "Resize":
        return options.get("mode", b"nearest") == b"nearest"
    if node.op_type == "Pad" and options.get("mode", b"constant") == b"constant":
        value = node.input[2] if len(node.input) > 2 else ""
        return not value or (value in graph.constants and not np.any(graph.constants[value]))
    return True


def _pair(graph: OnnxGraph, node: NodeProto, place: int, grid: Grid) -> list[NodeProto]:
    result = node.output[place]
    moved, integers = graph.free_name(f"{result}/moved"), graph.free_name(f"{result}/quantized")
    node.output[place] = moved
    return [
        graph.node(QUANTIZE, [moved, *grid], integers),
        graph.node(DEQUANTIZE, [integers, *grid], result),
    ]
