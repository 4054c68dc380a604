"""Read the markers out of a converted graph, and let grids flow where kernels keep them."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np

from keras_edgeq.errors import ExportError
from keras_edgeq.export.marked import FENCE, MarkedModel, Marker
from keras_edgeq.export.tflite.kernels import CLAMPS, SAME_GRID, VERSIONS, WEIGHTED
from keras_edgeq.runtime.tflite_file import Op, TfliteGraph

REQUANT = "QUANTIZE"
# Operations behind which converters copy a marker.
KEEPS_MARKERS = (*SAME_GRID, *CLAMPS, "MEAN", "SHAPE")


def take_markers(graph: TfliteGraph, marked: MarkedModel) -> dict[int, Marker]:
    """Remove fences and marker pairs, and return the grid of every tensor that had a marker.

    Some ops read the quantized half of a pair directly. Of several pairs with one id the first in
    topological order counts: converters copy pairs behind reshapes and means. Two markers in a row
    become a requantization between two tensors, and so does the grid on which one of several
    readers takes a tensor: the others read what was there before.

    Raises:
        ExportError: the converter lost a marker; the tensor is named.
    """
    grids: dict[int, Marker] = {}
    alias: dict[int, int] = {}
    made: dict[tuple[int, int], int] = {}
    seen: set[int] = set()
    ops: list[Op] = []
    readers = _readers(graph)
    for op in graph.ops:
        op.inputs = [alias.get(i, i) for i in op.inputs]
        if op.name == "DEQUANTIZE" and graph.is_float(op.inputs[0]):
            alias[op.outputs[0]] = op.inputs[0]  # the other half of a pair, or a copy of one
        elif op.name == "QUANTIZE":
            source, number = op.inputs[0], _marker_number(graph, op.outputs[0])
            if number < FENCE and number not in seen:
                seen.add(number)
                marker = marked.markers[number]
                made[number, source] = source
                if source in grids or _has_other_readers(graph, marker, readers[source]):
                    target = made[number, source] = graph.add_float_like(source, str(marker.ref))
                    ops.append(Op(REQUANT, [source], [target]))
                grids[made[number, source]] = marker
            alias[op.outputs[0]] = made.get((number, source), source)
        else:
            ops.append(op)
    missing = [str(m.ref) for n, m in marked.markers.items() if n not in seen]
    if missing:
        raise ExportError(
            f"The converter dropped the quantized tensors {missing}; report the model."
        )
    graph.ops = ops
    graph.set_signature({}, {i: alias.get(i, i) for i in graph.outputs})
    return grids


def _has_other_readers(graph: TfliteGraph, marker: Marker, readers: set[Any]) -> bool:
    """Tell whether a tensor is also read in front of a marker that stands on it.

    Converters compute equal operations once: what a float layer needs inside may be what another
    layer makes. Moves read there what they copied the marker behind.
    """
    if marker.ref.kind == "input":
        return len(readers) > 1
    ops = [graph.ops[reader[1]].name for reader in readers if reader[0] == "op"]
    return any(name not in KEEPS_MARKERS for name in ops)


def _readers(graph: TfliteGraph) -> dict[int, set[object]]:
    """Return who reads each tensor, through fences; all copies of a marker are one reader."""
    roots: dict[int, int] = {}
    readers: dict[int, set[object]] = defaultdict(set)
    for place, op in enumerate(graph.ops):
        inputs = [roots.get(i, i) for i in op.inputs]
        number = _marker_number(graph, op.outputs[0]) if op.name == "QUANTIZE" else None
        if (number or 0) >= FENCE or (op.name == "DEQUANTIZE" and op.inputs[0] in roots):
            roots[op.outputs[0]] = inputs[0]
            continue
        for tensor in inputs:
            readers[tensor].add(("op", place) if number is None else ("marker", number))
    for output in graph.outputs:
        readers[roots.get(output, output)].add("output")
    return readers


def spread_grids(graph: TfliteGraph, grids: dict[int, Marker]) -> None:
    """Give a grid to every tensor whose kernel keeps its neighbour's."""
    reads = Counter(i for op in graph.ops for i in op.inputs)
    reads.update(graph.outputs)
    for op in graph.ops:
        if op.name in SAME_GRID:
            _forward(graph, grids, op)
    for op in reversed(graph.ops):
        _backward(graph, grids, op, reads)


def _forward(graph, grids, op) -> None:
    sources = [i for i in op.inputs if graph.is_float(i)]
    first = grids.get(sources[0]) if sources else None
    if first is None or any(
        s not in grids or not grids[s].encoding.same_grid(first.encoding) for s in sources
    ):
        return
    for out in op.outputs:
        grids.setdefault(out, first)


def _backward(graph, grids, op, reads) -> None:
    """Let a tensor take the grid of the op behind it, where nothing else reads it."""
    marker = grids.get(op.outputs[0]) if op.outputs else None
    if marker is None or not (op.name in SAME_GRID or _clamp_is_range(op, marker)):
        return
    makers = {out: o for o in graph.ops for out in o.outputs}
    for source in op.inputs:
        maker = makers.get(source)
        if source in grids or maker is None or reads[source] != 1 or not graph.is_float(source):
            continue
        if maker.name in VERSIONS or maker.name in WEIGHTED:
            grids[source] = marker


def _clamp_is_range(op, marker) -> bool:
    """Tell whether the grid's own ends do what the activation does, or its op does it after.

    With 16 bits zero lies in the middle; clamping there and rounding can change places.
    """
    if op.name not in CLAMPS:
        return False
    encoding = marker.encoding
    if encoding.spec.bits == 16 and not np.any(encoding.zero_point):
        return True
    low, high = CLAMPS[op.name]
    return low * (1 + 1e-6) <= float(encoding.min) and float(encoding.max) <= high * (1 + 1e-6)


def _marker_number(graph: TfliteGraph, tensor: int) -> int:
    scale = graph.tensors[tensor].quantization.scale
    return int(np.rint(scale[0]))
