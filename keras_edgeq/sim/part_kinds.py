"""Calls that are parts of a whole which needs wider numbers than what stands around it."""

from __future__ import annotations

from keras_edgeq.graph.layer_graph import GraphNode, LayerGraph
from keras_edgeq.ops import op_type

NORMALIZATION = "normalization"
STATE = "state"
KINDS = (NORMALIZATION, STATE)
INVERSE_ROOT = "Rsqrt"


def part_kinds(graph: LayerGraph) -> dict[int, str]:
    """Return the kind of the calls that are parts of one, by the `id` of their node.

    `"normalization"`: what leads from a tensor to the inverse root of its variance or mean square,
    and the product with that. `"state"`: what carries a recurrent cell from step to step.
    """
    kinds = {id(n): STATE for n in graph.nodes if getattr(n.layer, "is_state", False)}
    for node in graph.nodes:
        if op_type(node.layer) == INVERSE_ROOT:
            kinds.update(dict.fromkeys(map(id, _normalization(graph, node)), NORMALIZATION))
    return kinds


def _normalization(graph: LayerGraph, root: GraphNode) -> list[GraphNode]:
    """Return the calls around the inverse root of a variance: from the mean to the product."""
    found = [root, *(r for out in root.outputs for r in graph.consumers(out))]
    waiting = [root]
    while waiting:
        node = waiting.pop()
        for maker in map(graph.producer, node.inputs):
            if op_type(maker.layer) not in _BEFORE.get(op_type(node.layer), ()) or maker in found:
                continue
            found.append(maker)
            waiting.append(maker)
    return found


# Operation -> what may stand in front of it in a normalization: the inverse root of a mean, with
# epsilon, of the square of a difference from the mean.
_BEFORE = {
    INVERSE_ROOT: ("Add", "Mean", "Mul"),
    "Add": ("Mean", "Mul"),
    "Mean": ("Mul",),
    "Mul": ("Sub",),
    "Sub": ("Mean",),
}
