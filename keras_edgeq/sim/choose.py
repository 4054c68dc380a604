"""Which precision each call of a prepared model computes in."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from keras_edgeq.errors import ProfileError
from keras_edgeq.graph.layer_graph import GraphNode, LayerGraph
from keras_edgeq.nearest import did_you_mean
from keras_edgeq.ops import op_of, op_type
from keras_edgeq.ops.norm_parts import WHOLE
from keras_edgeq.ops.table import keeps_8_bits
from keras_edgeq.plan.kernel import names_layer
from keras_edgeq.profiles.precision import ALL, Precision
from keras_edgeq.profiles.target_profile import TargetProfile
from keras_edgeq.sim.neighbours import follow_neighbours
from keras_edgeq.sim.part_kinds import part_kinds

WIDE = 8
# Bits in which no part is kept float that may be an integer.
ENOUGH = 16

# Calls by the `id` of their node.
Choice = dict[int, Precision]
Chains = Mapping[int, Sequence[GraphNode]]


def choose_precisions(
    graph: LayerGraph,
    profile: TargetProfile,
    asked: Mapping[str, str],
    chains: Chains,
    followers: Container[str] = (),
) -> Choice:
    """Return the precision of every call.

    A layer gets the precision of the last glob in `asked` that matches its name or that of what it
    is a part of (`conv` for `conv/relu`, a nested model for the layers inside), otherwise the first
    one the profile allows its operation. Parts of a normalization or of a recurrent state have
    more bits where the profile says so, unless a glob is their whole name. A fused chain computes
    in the precision of its first layer. An operation that only moves or regrids integers, and is
    named by no glob, follows what it reads, or behind a model input what reads it.

    Args:
        graph: the prepared model.
        profile: the target.
        asked: glob over layer names -> name of a precision.
        chains: the other layers of each fused chain, by the `id` of the first.
        followers: layers that follow although a glob names them.

    Raises:
        ProfileError: a glob matches no layer, the profile has no such precision, or none for the
            operation; what is possible is listed.
    """
    for name in asked.values():
        profile.of_kind(name, None)  # raises where there is none
    chosen = _by_name(graph, profile, asked)
    for node in graph.nodes:
        for part in chains.get(id(node), ()):
            chosen[id(part)] = chosen[id(node)]
    pinned = {
        id(node)
        for node in graph.nodes
        if node.layer.name not in followers
        and _is_pinned(_globs(node, asked, profile), asked, profile)
    }
    _follow_neighbours(graph, profile, chosen, pinned)
    return chosen


def allowed_precisions(
    node: GraphNode, profile: TargetProfile, kind: str | None
) -> tuple[str, ...]:
    """Return the names of the precisions a call has kernels for, its own first.

    That has 8 bits for the weights of a layer with one per channel, such as a Rescaling or a batch
    norm becomes, and for constants that are added: fewer save nothing, and make the sums coarse.
    For parts of a `kind` it is the one the profile has for them.
    """
    names = profile.allowed(op_type(node.layer))
    own = profile.precision(_widened(names[0], names, profile, kind, node))
    names = tuple(dict.fromkeys((own.name, *names)))
    if own.weight is None or own.weight.bits >= WIDE or not keeps_8_bits(node.layer):
        return names
    others = map(profile.precision, names)
    wide = [
        other.name
        for other in others
        if other.weight is not None
        and other.is_integer
        and other.weight.bits >= WIDE
        and other.activation_bits == own.activation_bits
    ]
    return tuple(dict.fromkeys((*wide[:1], *names)))


def _widened(
    name: str, allowed: Container[str], profile: TargetProfile, kind: str | None, node: GraphNode
) -> str:
    """Return a precision, or that of a profile for parts of a kind where it has more bits.

    Parts that are float beside few bits stay in integers of many bits where those are asked for.
    What a target computes as a whole is no part.
    """
    wide = None if op_type(node.layer) in WHOLE else profile.parts.get(kind or "")
    if wide is None or wide not in allowed or not profile.precision(name).is_integer:
        return name
    now, then = (profile.precision(one).activation_bits for one in (name, wide))
    return wide if now < min(then, ENOUGH) else name


def _by_name(graph: LayerGraph, profile: TargetProfile, asked: Mapping[str, str]) -> Choice:
    unused, chosen, kinds = set(asked), {}, part_kinds(graph)
    for node in graph.nodes:
        op, layer, kind = op_type(node.layer), node.layer.name, kinds.get(id(node))
        globs, allowed = _globs(node, asked, profile), allowed_precisions(node, profile, kind)
        unused.difference_update(globs)
        name = allowed[0]
        if globs:
            name = profile.of_kind(asked[globs[-1]], kind)
            if asked[globs[-1]] in profile.mixtures and name not in allowed:
                name = allowed[0]
            if globs[-1] != layer:
                name = _widened(name, allowed, profile, kind, node)
        if name not in allowed:
            raise ProfileError(
                f"Layer {layer!r} was asked for {name}, but profile {profile.name!r} has no such "
                f"kernel for {op}; it has {', '.join(allowed)}." + did_you_mean(name, allowed)
            )
        chosen[id(node)] = profile.precision(name)
    if unused:
        raise ProfileError(_unmatched(graph, asked, sorted(unused)))
    return chosen


def _unmatched(graph: LayerGraph, asked: Mapping[str, str], unused: Sequence[str]) -> str:
    if ALL in unused:
        return f"No layer has a kernel of {asked[ALL]}; name a precision that some layer has."
    layers = [node.layer.name for node in graph.nodes]
    return (
        f"No layer matches {', '.join(map(repr, unused))}; `keras-edgeq inspect` lists the names."
        + did_you_mean(unused[0], layers)
    )


def _is_pinned(globs: Sequence[str], asked: Mapping[str, str], profile: TargetProfile) -> bool:
    """Tell whether globs name a call that could follow; a mixture for all leaves that open."""
    return bool(globs) and (globs[-1] != ALL or asked[ALL] not in profile.mixtures)


def _globs(node: GraphNode, asked: Mapping[str, str], profile: TargetProfile) -> list[str]:
    """Return the globs that name a call."""
    if op_of(node.layer).transparent:
        return []
    every = asked.get(ALL)
    can = every in profile.mixtures or every in profile.allowed(op_type(node.layer))
    return [g for g in asked if names_layer(node.layer.name, g) and (can or g != ALL)]


def _follow_neighbours(
    graph: LayerGraph, profile: TargetProfile, chosen: Choice, pinned: Container[int]
) -> None:
    """Give operations without arithmetic of their own the precision of their neighbours."""
    open_ends: set[int] = set()

    def follow_makers(node: GraphNode, makers: Sequence[GraphNode]) -> bool:
        moves = moves_or_regrids(profile, node) and id(node) not in pinned
        if not makers or (moves and any(id(maker) in open_ends for maker in makers)):
            open_ends.add(id(node))
            return False
        if moves and len({chosen[id(maker)].name for maker in makers}) == 1:
            _follow(profile, chosen, node, chosen[id(makers[0])])
        return True

    def follow_readers(node: GraphNode, readers: Sequence[GraphNode]) -> bool:
        wanted = [p for reader in readers if (p := chosen[id(reader)]).activation is not None]
        if wanted:
            _follow(profile, chosen, node, max(wanted, key=_width))
        return bool(wanted)

    follow_neighbours(graph, follow_makers, follow_readers)


def _follow(profile: TargetProfile, chosen: Choice, node: GraphNode, other: Precision) -> None:
    """Let a call compute in the precision of a neighbour where it has such a kernel."""
    if other.name in profile.allowed(op_type(node.layer)):
        chosen[id(node)] = other


def _width(precision: Precision) -> int:
    return 0 if precision.activation is None else precision.activation.bits


def moves_or_regrids(profile: TargetProfile, node: GraphNode) -> bool:
    """Tell whether a call computes nothing of its own: it has the precision of what it reads."""
    op = op_type(node.layer)
    return op_of(node.layer).transparent or op in profile.same_grid or op in profile.regrid
