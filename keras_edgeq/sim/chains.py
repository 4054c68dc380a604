"""Which calls a target computes as one kernel."""

from __future__ import annotations

from collections.abc import Mapping

from keras_edgeq.graph.layer_graph import GraphNode, LayerGraph
from keras_edgeq.ops import op_type
from keras_edgeq.profiles.target_profile import TargetProfile


def fused_chains(
    graph: LayerGraph, profile: TargetProfile, unsupported: Mapping[int, str | None]
) -> dict[int, list[GraphNode]]:
    """Return the calls behind each in the longest fused chain that starts there.

    Args:
        graph: the prepared model.
        profile: the target.
        unsupported: why the target has no kernel, by the `id` of the call; None if it has one.

    Returns:
        The others of each chain in order, by the `id` of the first; an empty list for no chain.
    """

    def match(node: GraphNode, ops: tuple[str, ...]) -> list[GraphNode]:
        behind: list[GraphNode] = []
        for position, op in enumerate(ops):
            if op_type(node.layer) != op or unsupported[id(node)] is not None:
                return []
            if position:
                behind.append(node)
            if position + 1 < len(ops):
                reader = graph.only_consumer(node.outputs[0])
                if reader is None:
                    return []
                node = reader
        return behind

    return {
        id(node): max((match(node, ops) for ops in profile.fused), key=len, default=[])
        for node in graph.nodes
    }
