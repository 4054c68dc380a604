"""Which groups decide the precision of each call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from keras_edgeq.graph.layer_graph import GraphNode, LayerGraph
from keras_edgeq.measure.groups import Group
from keras_edgeq.ops import op_of
from keras_edgeq.profiles.target_profile import TargetProfile
from keras_edgeq.sim.chains import fused_chains
from keras_edgeq.sim.choose import moves_or_regrids
from keras_edgeq.sim.supported import why_unsupported


@dataclass(frozen=True)
class GroupMap:
    """Says for each call which groups it follows, by the `id` of the call.

    A call computes in the widest precision among the groups it follows.

    Args:
        graph: of the folded model.
        follows: numbers of the groups; empty where the model has none that is connected.
        heads: first call of the fused chain it is in; itself in none.
        floats: calls that the target has no kernel for.
    """

    graph: LayerGraph
    follows: dict[int, frozenset[int]]
    heads: dict[int, GraphNode]
    floats: frozenset[int]

    @classmethod
    def of(cls, graph: LayerGraph, profile: TargetProfile, groups: Sequence[Group]) -> GroupMap:
        """Walk the graph as `all_precisions` does."""
        unsupported = {id(node): why_unsupported(node, profile) for node in graph.nodes}
        heads = {id(node): node for node in graph.nodes}
        chains = fused_chains(graph, profile, unsupported)
        for node in graph.nodes:
            heads.update({id(part): heads[id(node)] for part in chains[id(node)]})
        floats = {
            id(node)
            for node in graph.nodes
            if unsupported[id(node)] is not None and not op_of(node.layer).transparent
        }
        number = {group.name: i for i, group in enumerate(groups)}
        return cls(graph, _follow(graph, profile, heads, number), heads, frozenset(floats))


def _follow(
    graph: LayerGraph,
    profile: TargetProfile,
    heads: dict[int, GraphNode],
    number: dict[str, int],
) -> dict[int, frozenset[int]]:
    follows: dict[int, frozenset[int]] = {}
    # What only moves a model input takes the precision of its readers, as `choose_precisions` has
    # it, and so does what reads no group.
    open_ends: set[int] = set()
    for node in graph.nodes:
        head, own = heads[id(node)], number.get(node.layer.name)
        makers = [graph.producer(ref) for ref in node.inputs]
        if head is not node:
            follows[id(node)] = follows[id(head)]
        elif own is not None:
            follows[id(node)] = frozenset({own})
        elif not makers or (
            moves_or_regrids(profile, node) and open_ends & {id(m) for m in makers}
        ):
            follows[id(node)] = frozenset()
            open_ends.add(id(node))
        else:
            follows[id(node)] = frozenset().union(*(follows[id(maker)] for maker in makers))
    for node in reversed(graph.nodes):
        if not follows[id(node)]:
            readers = [follows[id(r)] for ref in node.outputs for r in graph.consumers(ref)]
            follows[id(node)] = frozenset().union(*readers)
    return follows
