"""Give tensors that lie on a grid a pair of their own, as ONNX runtimes look for them.

The sim needs no quantizer behind an operation that only moves or compares numbers of one grid. A
runtime recognizes an integer operation by the pairs around it, and a second pair of the same grid
changes no number.
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from keras_edgeq.export.onnx_convert import DEQUANTIZE, QUANTIZE
from keras_edgeq.export.onnx_graph import OnnxGraph, attributes

# Operation -> how many of its inputs are data; None for all. Runtimes see through the first group.
SEEN_THROUGH = {"Identity": 1, "Reshape": 1, "Transpose": 1, "Squeeze": 1, "Unsqueeze": 1}
PAIRED = {
    "Concat": None,
    "DepthToSpace": 1,
    "Gather": 1,
    "Max": None,
    "MaxPool": 1,
    "Min": None,
    "Pad": 1,
    "ReduceMax": 1,
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
    grids: dict[str, Grid] = {}
    written: list[NodeProto] = []
    readers = graph.readers()
    for node in list(graph.nodes):
        if node.op_type == QUANTIZE and _merges(graph, grids.get(node.input[0]), node):
            written.append(_clip_before(graph, node))
        written.append(node)
        grid = _grid_of(graph, node, grids)
        if grid is None:
            continue
        grids.update(dict.fromkeys(node.output, grid))
        if node.op_type in paired:
            for place, result in enumerate(node.output):
                ops = {reader.op_type for reader in readers.get(result, [node])}
                if ops != {QUANTIZE} and (node.op_type, *ops) not in MERGED:
                    written.extend(_pair(graph, node, place, grid))
    graph.nodes = written


def _grid_of(graph: OnnxGraph, node: NodeProto, grids: dict[str, Grid]) -> Grid | None:
    """Return the scale and zero point of what a node makes, None where it computes."""
    if node.op_type == DEQUANTIZE:
        return None if node.input[0] in graph.constants else (node.input[1], node.input[2])
    table = {**SEEN_THROUGH, **PAIRED}
    if node.op_type not in table or not _only_moves(graph, node):
        return None
    found = [grids.get(name) for name in node.input[: table[node.op_type]]]
    first = found[0]
    if first is None or not all(grid and _same(graph, grid, first) for grid in found):
        return None
    return first


def _merges(graph: OnnxGraph, before: Grid | None, node: NodeProto) -> bool:
    """Tell whether ONNX Runtime would take the rounding onto the grid `before` out.

    It merges two pairs in a row whose integers have one type.
    """
    own = (node.input[1], node.input[2])
    if before is None or _same(graph, before, own):
        return False
    return graph.constants[before[1]].dtype == graph.constants[own[1]].dtype


def _clip_before(graph: OnnxGraph, node: NodeProto) -> NodeProto:
    """Put a Clip before a pair that changes no integer: a quarter step inside of the grid's ends.

    One at the ends themselves would be optimized away.
    """
    scale, zero_point = (graph.constants[name] for name in node.input[1:])
    limits = np.iinfo(zero_point.dtype)
    ends = {
        side: (np.float64(end) - zero_point) * scale
        for side, end in (("min", limits.min + 0.25), ("max", limits.max - 0.25))
    }
    bounds = [
        graph.add_constant(f"{node.output[0]}/{side}", np.float32(end))
        for side, end in ends.items()
    ]
    clipped = graph.free_name(f"{node.output[0]}/clipped")
    clip = graph.node("Clip", [node.input[0], *bounds], clipped)
    node.input[0] = clipped
    return clip


def _same(graph: OnnxGraph, one: Grid, other: Grid) -> bool:
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
