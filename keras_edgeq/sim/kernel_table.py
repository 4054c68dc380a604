"""Which kernels the layers of a resolved model have, and could have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from keras_edgeq.graph.layer_graph import GraphNode, LayerGraph
from keras_edgeq.ops import op_type, weights_of
from keras_edgeq.plan.kernel import Bits, Kernel
from keras_edgeq.profiles.target_profile import TargetProfile
from keras_edgeq.sim.choose import Chains, Choice, allowed_precisions
from keras_edgeq.sim.part_kinds import part_kinds


def kernel_table(
    graph: LayerGraph,
    profile: TargetProfile,
    chosen: Choice,
    chains: Chains,
    unsupported: Mapping[int, str | None],
) -> dict[str, Kernel]:
    """Return the kernel of each layer that the target computes, in graph order.

    A layer that is called twice is one kernel; an operation fused into a layer is part of it.

    Args:
        graph: of the prepared model, batch norms folded.
        profile: the target.
        chosen: precision of each call.
        chains: the other layers of each fused chain, by the `id` of the first.
        unsupported: why the target has no kernel, by the `id` of the call; None if it has one.
    """
    heads: dict[int, str] = {}
    parts: dict[str, list[str]] = {}
    kernels: dict[str, Kernel] = {}
    kinds = part_kinds(graph)
    for node in graph.nodes:
        name: str = node.layer.name
        op = op_type(node.layer)
        head = heads.get(id(node), name)
        heads.update({id(part): head for part in chains.get(id(node), ())})
        if head != name:
            parts.setdefault(head, []).append(name)
        elif unsupported[id(node)] is None:
            allowed = _allowed(node, profile, op, kinds.get(id(node)))
            kernel = Kernel(op, chosen[id(node)].name, allowed)
            kernels.setdefault(name, kernel)
    ends = _at_ends(graph)
    return {
        name: replace(
            kernel, parts=tuple(dict.fromkeys(parts.get(name, ()))), ends=ends.get(name, ())
        )
        for name, kernel in kernels.items()
    }


def _allowed(node: GraphNode, profile: TargetProfile, op: str, kind: str | None) -> dict[str, Bits]:
    """Return the bits of the weights and activations of each precision an operation can have."""
    weighted = weights_of(node.layer) is not None
    allowed: dict[str, Bits] = {}
    for name in allowed_precisions(node, profile, kind):
        precision = profile.precision(name)
        weight = profile.weight_spec(op, precision) if weighted else None
        allowed[name] = (None, None)
        if precision.is_integer:
            allowed[name] = (None if weight is None else weight.bits, precision.activation_bits)
    return allowed


def _at_ends(graph: LayerGraph) -> dict[str, tuple[str, ...]]:
    """Return for each layer the ends of the model it stands at.

    A way inward from an end passes layers without weights and ends at one with weights, or at one
    that reads several tensors.
    """
    makers = {id(node): [graph.producer(ref) for ref in node.inputs] for node in graph.nodes}
    readers = {
        id(node): [r for ref in node.outputs for r in graph.consumers(ref)] for node in graph.nodes
    }
    inputs = [r for node in graph.nodes if not node.inputs for r in readers[id(node)]]
    outputs = [graph.producer(ref) for ref in graph.outputs]
    found: dict[str, tuple[str, ...]] = {}
    for end, starts, onward in (("input", inputs, readers), ("output", outputs, makers)):
        waiting, seen = list(starts), set()
        while waiting:
            node = waiting.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            name = node.layer.name
            found[name] = tuple(dict.fromkeys((*found.get(name, ()), end)))
            if weights_of(node.layer) is None and len(node.inputs) <= 1:
                waiting += onward[id(node)]
    return found
