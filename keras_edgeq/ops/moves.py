"""Calls that only move numbers, and what reads a tensor behind such calls."""

from __future__ import annotations

from keras_edgeq.graph.layer_graph import GraphNode, LayerGraph
from keras_edgeq.ops.table import op_of


def only_moves(node: GraphNode) -> bool:
    """Tell whether a call makes one tensor of the numbers of one, moved or as they are."""
    op = op_of(node.layer)
    return (op.transparent or op.spread == "moves") and len(node.inputs) == len(node.outputs) == 1


def readers_behind_moves(graph: LayerGraph, node: GraphNode) -> list[GraphNode]:
    """Return the calls that read the tensor of a call with nothing but moves between.

    Returns:
        The calls; none where an output of the model is among the tensors, or one that nobody reads.
    """
    found, open_ends = [], [node]
    while open_ends:
        (ref,) = open_ends.pop().outputs
        readers = graph.consumers(ref)
        if ref in graph.outputs or not readers:
            return []
        open_ends += filter(only_moves, readers)
        found += [reader for reader in readers if not only_moves(reader)]
    return found
