"""Calls that are parts of a whole which needs wider numbers than what stands around it."""

from __future__ import annotations

from collections.abc import Iterator

from keras_edgeq.graph.layer_graph import GraphNode, LayerGraph
from keras_edgeq.ops import op_type
from keras_edgeq.ops.norm_parts import (
    BEFORE,
    INVERSE_ROOTS,
    MEAN,
    MOVES,
    MUL,
    SUB,
    WHOLE,
)
from keras_edgeq.ops.plain import INVERSE
from keras_edgeq.ops.table import scales_channels

NORMALIZATION = "normalization"
STATE = "state"


def part_kinds(graph: LayerGraph) -> dict[int, str]:
    """Return the kind of the calls that are parts of one, by the `id` of their node.

    `"normalization"`: a layer that is one; or what leads from a tensor to the inverse root of its
    variance or mean square, the product with that, and the gain and offset of each channel behind
    it. `"state"`: what carries a recurrent cell from step to step.
    """
    kinds = {id(n): STATE for n in graph.nodes if getattr(n.layer, "is_state", False)}
    for node in graph.nodes:
        if op_type(node.layer) in WHOLE:
            kinds[id(node)] = NORMALIZATION
        elif op_type(node.layer) in INVERSE_ROOTS:
            before = _before(graph, node)
            if any(op_type(maker.layer) == MEAN for maker in before):
                found = [node, *before, *_behind(graph, node)]
                kinds.update(dict.fromkeys(map(id, found), NORMALIZATION))
    return kinds


def _before(graph: LayerGraph, root: GraphNode) -> list[GraphNode]:
    """Return the calls in front of an inverse root, from the mean on."""
    found: list[GraphNode] = []
    waiting = [root]
    while waiting:
        node = waiting.pop()
        for maker in map(graph.producer, node.inputs):
            if maker not in found and _leads(graph, maker, op_type(node.layer)):
                found.append(maker)
                waiting.append(maker)
    return found


def _leads(graph: LayerGraph, node: GraphNode, to: str) -> bool:
    """Tell whether a call is a part of the normalization that an operation behind it is of."""
    op = op_type(node.layer)
    read = [op_type(graph.producer(ref).layer) for ref in node.inputs]
    if op not in BEFORE.get(to, ()):
        return False
    if op == SUB:  # a difference from a mean
        return MEAN in read
    if op == MUL and to == MEAN:  # a square
        return len(read) == 2 and len(set(node.inputs)) == 1
    if op == MUL and to == MUL:
        return INVERSE.name in read
    return op != MUL or read == [MEAN]  # a mean times the number of elements


def _behind(graph: LayerGraph, root: GraphNode) -> Iterator[GraphNode]:
    """Yield the products with an inverse root, and the gains and offsets behind them."""
    for node in _readers(graph, root):
        yield node
        waiting = _readers(graph, node)
        while waiting:
            after = waiting.pop()
            if op_type(after.layer) in MOVES:
                waiting += _readers(graph, after)
            elif _is_gain(after):
                yield after


def _is_gain(node: GraphNode) -> bool:
    """Tell whether a call multiplies by constants: one per channel, or one number."""
    is_number = op_type(node.layer) == MUL and len(node.inputs) == 1
    return is_number or scales_channels(node.layer)


def _readers(graph: LayerGraph, node: GraphNode) -> list[GraphNode]:
    return [reader for ref in node.outputs for reader in graph.consumers(ref)]
