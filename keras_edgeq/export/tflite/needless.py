"""Caps of an integer graph that the ends of a grid are already."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container

import numpy as np

from keras_edgeq.export.tflite.kernels import CLAMPS
from keras_edgeq.runtime.tflite_file import Op, TfliteGraph


def remove_needless_caps(graph: TfliteGraph, named: Container[str]) -> int:
    """Remove operations that cut off where their tensor's integers end; return their number.

    What made their input makes their result instead. They stay where their input is read elsewhere,
    or has one of the names.
    """
    reads = Counter(tensor for op in graph.ops for tensor in op.inputs)
    reads.update((*graph.outputs, *graph.inputs))
    makers = {out: op for op in graph.ops for out in op.outputs}
    kept: list[Op] = []
    for op in graph.ops:
        source = _source(graph, op)
        if source not in makers or reads[source] != 1 or graph.name(source) in named:
            kept.append(op)
            continue
        maker = makers[op.outputs[0]] = makers[source]
        maker.outputs = [op.outputs[0] if out == source else out for out in maker.outputs]
    removed = len(graph.ops) - len(kept)
    graph.ops = kept
    return removed


def _source(graph: TfliteGraph, op: Op) -> int | None:
    """Return what a needless cap reads, None for any other operation."""
    ends = _ends(graph, op)
    if ends is None:
        return None
    source, low, high = ends
    given, made = graph.tensors[source], graph.tensors[op.outputs[0]]
    grids = [tensor.quantization for tensor in (given, made)]
    if given.type != made.type or list(given.shape) != list(made.shape):
        return None
    if any(grid is None or grid.scale is None or len(grid.scale) != 1 for grid in grids):
        return None
    same = all(
        np.array_equal(getattr(grids[0], part), getattr(grids[1], part))
        for part in ("scale", "zeroPoint")
    )
    limits = graph.integer_limits(source)
    if limits is None or not same:
        return None
    scale, zero = float(grids[0].scale[0]), int(grids[0].zeroPoint[0])
    least, most = (np.clip(np.rint(end / scale) + zero, *limits) for end in (low, high))
    return source if (least, most) == limits else None


def _ends(graph: TfliteGraph, op: Op) -> tuple[int, float, float] | None:
    """Return what an operation caps, and the real numbers between which its results lie."""
    if op.name in CLAMPS:
        return op.inputs[0], *CLAMPS[op.name]
    if op.name not in ("MINIMUM", "MAXIMUM"):
        return None
    constants = {tensor: graph.constant(tensor) for tensor in op.inputs}
    numbers = [t for t, value in constants.items() if value is not None and value.size == 1]
    others = [t for t in op.inputs if t not in numbers]
    if len(numbers) != 1 or len(others) != 1 or graph.integer_limits(numbers[0]) is None:
        return None
    grid, value = graph.tensors[numbers[0]].quantization, constants[numbers[0]]
    assert value is not None  # one of the numbers
    real = (float(value.ravel()[0]) - int(grid.zeroPoint[0])) * float(grid.scale[0])
    return (others[0], -np.inf, real) if op.name == "MINIMUM" else (others[0], real, np.inf)
