"""The one walk by which calls follow their neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from keras_edgeq.graph.layer_graph import GraphNode, LayerGraph

# A call and its neighbours on one side -> whether it is settled.
Follow = Callable[[GraphNode, Sequence[GraphNode]], bool]


def follow_neighbours(graph: LayerGraph, makers: Follow, readers: Follow) -> None:
    """Let each call follow what it reads, and where that settles nothing, what reads it.

    Args:
        graph: walked forward, so that what a call reads was asked before; then the calls that
            were not settled, backward.
        makers: a call, and the calls that make what it reads.
        readers: a call, and the calls that read what it makes.
    """
    left = [node for node in graph.nodes if not makers(node, makers_of(graph, node))]
    for node in reversed(left):
        readers(node, [reader for ref in node.outputs for reader in graph.consumers(ref)])


def makers_of(graph: LayerGraph, node: GraphNode) -> list[GraphNode]:
    """Return the calls that make what a call reads."""
    return [graph.producer(ref) for ref in node.inputs]
