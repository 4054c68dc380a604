"""`Group`: quantizers that change their precision together, and what a search can give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from keras_edgeq.errors import ProfileError, UnsupportedModelError
from keras_edgeq.graph.layer_graph import GraphNode, LayerGraph
from keras_edgeq.ops import op_of, op_type, weights_of
from keras_edgeq.plan.kernel import parents_first
from keras_edgeq.prepare import fold_batch_norms
from keras_edgeq.profiles.target_profile import TargetProfile
from keras_edgeq.ptq.session import check_calibrated
from keras_edgeq.requantize import Requantizer
from keras_edgeq.sim.judge import say
from keras_edgeq.sim.neighbours import follow_neighbours
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.sim.strip import stripped

# Precision of each group, by the name of the group; in the order of the groups.
Choice = Mapping[str, str]


@dataclass(frozen=True)
class Group:
    """A kernel of the model: its weights, its inputs and its outputs.

    A layer that is called twice is one group. An activation fused into a layer goes with it, and
    layers without weights (sums, pools, concatenations) follow their inputs.

    Args:
        name: of the layer that holds the weights.
        op: operation, as `ops.op_type` calls it.
        candidates: names of the precisions it can have, in the order in which they were asked for.
    """

    name: str
    op: str
    candidates: tuple[str, ...]


class SearchSpace:
    """A sim, the groups of its model, and the precisions that each can have.

    Args:
        sim: of the model; its profile says which kernels there are.
        candidates: names of precisions, at least two.

    Attributes:
        candidates: each once.
        requantize: makes sims of the model in other precisions.
        graph: of the float model with batch norms folded.
        groups: in graph order.

    Raises:
        CalibrationDataError: the sim has no statistics.
        EdgeqError: it is not a sim, or not calibrated.
        ProfileError: the profile does not have one of them, or no layer of the model a kernel for
            it; what is possible is listed.
        UnsupportedModelError: no layer has weights that the profile quantizes.
    """

    def __init__(self, sim: QuantSim, candidates: Sequence[str]):
        check_calibrated(sim)
        self.sim, self.candidates = sim, tuple(dict.fromkeys(candidates))
        _check_names(self.candidates, sim.record.profile)
        self.requantize = Requantizer(sim)
        self.graph = self.requantize.graph
        self.groups = _groups(self.graph, sim, self.candidates)

    def sim_of(self, choice: Choice) -> QuantSim:
        """Return a sim whose groups have the precisions of a choice; other layers follow them."""
        names = all_precisions(self.graph, self.sim.record.profile, choice)
        return self.requantize(precision=names)


def find_groups(sim: QuantSim, candidates: Sequence[str]) -> tuple[Group, ...]:
    """Return the groups of a sim in graph order; errors are those of `SearchSpace`."""
    return SearchSpace(sim, candidates).groups


def _check_names(wanted: tuple[str, ...], profile: TargetProfile) -> None:
    """Raise unless there are two precisions of the profile."""
    for name in wanted:
        weight = profile.precision(name).weight
        if weight is not None and weight.block_size:
            raise ProfileError(
                f"{name} gives each block of {weight.block_size} weights a scale, which is not "
                "measured beside other precisions; leave it out of the candidates."
            )
    if len(wanted) < 2:
        raise ProfileError(
            f"A choice needs two candidates, got {list(wanted)}; profile {profile.name!r} has "
            f"{', '.join(profile.precision_names)}."
        )


def _groups(graph: LayerGraph, sim: QuantSim, wanted: tuple[str, ...]) -> tuple[Group, ...]:
    profile, kernels = sim.record.profile, sim.record.plan.known_kernels
    found: dict[str, Group] = {}
    for node in graph.nodes:
        name, op = node.layer.name, op_type(node.layer)
        if weights_of(node.layer) is None or not profile.quantizes_weights(op):
            continue
        if name in kernels or name in sim.record.plan.parts:
            own = tuple(n for n in wanted if n in profile.allowed(op))
            found[name] = Group(name, op, own)
    if not found:
        raise UnsupportedModelError(
            f"Model {sim.name!r} has no layer with weights that {profile.name!r} quantizes."
        )
    _check_candidates(tuple(found.values()), wanted, profile)
    return tuple(found.values())


def folded_graph(sim: QuantSim) -> LayerGraph:
    """Return the graph of the float model that a sim stands for, with batch norms folded."""
    return LayerGraph.of(fold_batch_norms(stripped(sim)))


def _check_candidates(
    groups: tuple[Group, ...], wanted: tuple[str, ...], profile: TargetProfile
) -> None:
    """Raise if a candidate fits no layer, or a layer no candidate."""
    ops = dict.fromkeys(group.op for group in groups)
    kernels = "; ".join(f"{op}: {', '.join(profile.allowed(op))}" for op in ops)
    for name in wanted:
        if not any(name in group.candidates for group in groups):
            raise ProfileError(
                f"Profile {profile.name!r} has no kernel of {name} for any layer of this model; "
                f"it has {kernels}."
            )
    bare = [group.name for group in groups if not group.candidates]
    if bare:
        raise ProfileError(
            f"Profile {profile.name!r} has no kernel of {', '.join(wanted)} for {bare[:10]}; "
            f"it has {kernels}."
        )


def all_precisions(
    graph: LayerGraph, profile: TargetProfile, choice: Choice, default: str | None = None
) -> dict[str, str]:
    """Return the precision of every layer that is to be asked for, names of layers to names.

    A layer without a group takes the widest precision among those it reads, where the target has
    such a kernel; what reads none takes that of its readers. A layer comes before its parts
    (`conv` before `conv/depthwise`), because a name asks for the parts as well and the last counts.

    Args:
        graph: of `folded_graph`.
        profile: the target.
        choice: precision of each group.
        default: precision of layers that neither read nor feed a group.
    """
    made: dict[str, str] = dict(choice)

    def follow(node: GraphNode, neighbours: Sequence[GraphNode]) -> bool:
        name, kernels = node.layer.name, profile.allowed(op_type(node.layer))
        near = [made.get(other.layer.name) for other in neighbours]
        allowed = [n for n in near if n is not None and n in kernels]
        if name not in made and allowed:
            made[name] = max(allowed, key=lambda n: width(profile, n))
        return name in made

    follow_neighbours(graph, follow, follow)
    rest = default or profile.own.name
    for node in graph.nodes:
        if op_of(node.layer).transparent:
            made.pop(node.layer.name, None)
        elif rest in profile.allowed(op_type(node.layer)):
            made.setdefault(node.layer.name, rest)
    return parents_first(made)


def sim_of_choice(sim: QuantSim, choice: Choice) -> QuantSim:
    """Return a sim whose groups have the precisions of a choice; the other layers follow them."""
    again = Requantizer(sim)
    made = again(precision=all_precisions(again.graph, sim.record.profile, choice))
    say(made)
    return made


def width(profile: TargetProfile, name: str) -> int:
    """Return the bits of a precision's activations; floats are 32 bits wide, half ones 16."""
    activation = profile.precision(name).activation
    if activation is None:
        return 32
    return activation.bits + (1 if activation.is_half else 0)
