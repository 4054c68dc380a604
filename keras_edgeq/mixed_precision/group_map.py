"""Which groups decide the precision of each call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from keras_edgeq.graph.layer_graph import GraphNode, LayerGraph
from keras_edgeq.measure.groups import Group
from keras_edgeq.ops import op_of
from keras_edgeq.plan.quant_plan import QuantPlan
from keras_edgeq.profiles.target_profile import TargetProfile
from keras_edgeq.sim.choose import moves_or_regrids
from keras_edgeq.sim.neighbours import follow_neighbours, makers_of
from keras_edgeq.sim.quant_sim import QuantSim


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
    def of(cls, graph: LayerGraph, sim: QuantSim, groups: Sequence[Group]) -> GroupMap:
        """Follow neighbours as `all_precisions` does, with kernels as the sim's plan has them."""
        heads, floats = _kernels(graph, sim.record.plan)
        number = {group.name: i for i, group in enumerate(groups)}
        return cls(graph, _follow(graph, sim.record.profile, heads, number), heads, floats)


def _kernels(graph: LayerGraph, plan: QuantPlan) -> tuple[dict[int, GraphNode], frozenset[int]]:
    """Return the first call of each fused chain, and the calls without a kernel."""
    heads: dict[int, GraphNode] = {}
    floats: set[int] = set()
    for node in graph.nodes:
        name = node.layer.name
        before = (heads[id(maker)] for maker in makers_of(graph, node))
        head = next((h for h in before if h.layer.name == plan.parts.get(name)), node)
        heads[id(node)] = head
        if head is node and name not in plan.known_kernels and not op_of(node.layer).transparent:
            floats.add(id(node))
    return heads, frozenset(floats)


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

    def follow_makers(node: GraphNode, makers: Sequence[GraphNode]) -> bool:
        head, own = heads[id(node)], number.get(node.layer.name)
        moves = moves_or_regrids(profile, node)
        if head is not node:
            follows[id(node)] = follows[id(head)]
        elif own is not None:
            follows[id(node)] = frozenset({own})
        elif not makers or (moves and open_ends & {id(maker) for maker in makers}):
            open_ends.add(id(node))
            follows[id(node)] = frozenset()
        else:
            follows[id(node)] = _together(makers)
        return bool(follows[id(node)])

    def follow_readers(node: GraphNode, readers: Sequence[GraphNode]) -> bool:
        follows[id(node)] = _together(readers)
        return bool(follows[id(node)])

    def _together(nodes: Sequence[GraphNode]) -> frozenset[int]:
        return frozenset().union(*(follows[id(node)] for node in nodes))

    follow_neighbours(graph, follow_makers, follow_readers)
    return follows
