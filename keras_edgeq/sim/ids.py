"""Which tensors hold ids: no grid may round these, however they reach the table they index."""

from __future__ import annotations

from collections.abc import Mapping

from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.layer_graph import GraphNode, LayerGraph
from keras_edgeq.ops import op_of, weights_of
from keras_edgeq.profiles.target_profile import TargetProfile
from keras_edgeq.sim.choose import moves_or_regrids
from keras_edgeq.spec.tensor_ref import TensorRef

CASTS = ("cast", "compat.v1.to_int32")
REASON = "holds ids, which no grid may round"


def id_tensors(graph: LayerGraph) -> frozenset[TensorRef]:
    """Return the tensors that are looked up in a table, and what they are made from.

    Followed backward from layers that read ids, and from casts of real numbers to whole ones, to
    model inputs and to layers with weights, whose outputs are not ids yet.
    """
    waiting = [ref for node in graph.nodes if _reads_ids(node) for ref in node.inputs[:1]]
    found: set[TensorRef] = set()
    while waiting:
        ref = waiting.pop()
        maker = graph.producer(ref)
        if ref in found or weights_of(maker.layer) is not None or not maker.is_float:
            # Whole numbers are never on a grid; what a cast reads is followed from the cast.
            continue
        found.add(ref)
        waiting += maker.inputs
    return frozenset(found)


def moving_ids(
    graph: LayerGraph,
    profile: TargetProfile,
    ids: frozenset[TensorRef],
    unsupported: Mapping[int, str | None],
) -> dict[int, str]:
    """Return why calls that make ids, or move what has no grid because of ids, stay float.

    Args:
        graph: of the prepared model.
        profile: the target.
        ids: what `id_tensors` found.
        unsupported: why the target has no kernel, by the `id` of the call; None if it has one.
    """
    found: dict[int, str] = {}
    without_grid = set(ids)
    for node in graph.nodes:
        reads = without_grid.intersection(node.inputs)
        if op_of(node.layer).transparent:
            without_grid.update(node.outputs if reads else ())
        elif unsupported[id(node)] is None:
            moves = reads and moves_or_regrids(profile, node)
            if moves or ids.intersection(node.outputs):
                found[id(node)] = REASON
    return found


def _reads_ids(node: GraphNode) -> bool:
    """Tell whether the first input of a call is an id, or becomes a whole number."""
    to_whole = keras_compat.op_symbol(node.layer) in CASTS and not node.is_float
    return (op_of(node.layer).reads_ids or to_whole) and bool(node.inputs)
