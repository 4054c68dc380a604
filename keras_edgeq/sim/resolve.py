"""From a prepared model and a profile to a `QuantPlan`: where quantizers stand, and which grid."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace

import tf_keras

from keras_edgeq.errors import UnsupportedModelError
from keras_edgeq.graph.layer_graph import GraphNode, LayerGraph
from keras_edgeq.ops import op_of, op_type, weights_of
from keras_edgeq.ops.cell_layers import CellPart
from keras_edgeq.ops.operands import selected_numbers
from keras_edgeq.ops.plain import SELECT
from keras_edgeq.ops.table import kept_channels
from keras_edgeq.plan.quant_plan import QuantPlan
from keras_edgeq.prepare.fold_batch_norms import fold_batch_norms
from keras_edgeq.profiles.target_profile import TargetProfile
from keras_edgeq.sim.block_rule import in_whole_blocks
from keras_edgeq.sim.chains import fused_chains
from keras_edgeq.sim.choose import choose_precisions
from keras_edgeq.sim.double_rounding import double_rounding, for_litert
from keras_edgeq.sim.ids import id_tensors, moving_ids
from keras_edgeq.sim.kernel_table import kernel_table
from keras_edgeq.sim.masked_scores import far_numbers
from keras_edgeq.sim.plan_check import check_joint
from keras_edgeq.sim.supported import why_unsupported, why_whole
from keras_edgeq.sim.taken_away import taken_away
from keras_edgeq.spec.quant_spec import QuantSpec
from keras_edgeq.spec.tensor_ref import TensorRef


def resolve(
    model: tf_keras.Model,
    profile: TargetProfile,
    precision: Mapping[str, str] | None = None,
    followers: Container[str] = (),
) -> QuantPlan:
    """Decide which tensors of a prepared model are quantized, and on which grid.

    Every operation the profile computes in integers gets grids on what it reads and makes, except
    inside a fused chain. An operation that only moves integers keeps its input's grid; several
    inputs of one share a grid. A tensor read in another precision than it was made in is quantized
    again at the reader (`conv2<0`). All other layers stay float and are named with the reason.

    Args:
        model: a prepared model. The plan is that of the model with its batch norms folded, which
            is what the target gets.
        profile: the target.
        precision: glob over layer names -> precision, where it is not the profile's own.
        followers: layers that only move or regrid integers and follow their neighbours, although
            `precision` names them.

    Raises:
        UnsupportedModelError: the profile quantizes nothing in this model.
        ProfileError: a precision that does not exist, or two rules that contradict each other.
    """
    graph = LayerGraph.of(fold_batch_norms(model))
    resolver = _Resolver(graph, profile, precision or {}, followers)
    for node in resolver.graph.nodes:
        resolver.visit(node)
    plan = resolver.plan()
    if not plan.specs and not precision:
        raise UnsupportedModelError(
            f"Profile {profile.name!r} has no integer kernel for any layer of {model.name!r}; "
            f"it has them for {', '.join(sorted(profile.quantized))}."
        )
    return plan


class _Resolver:
    """One walk over the graph; grids that must be equal are joined by union-find."""

    def __init__(
        self,
        graph: LayerGraph,
        profile: TargetProfile,
        asked: Mapping[str, str],
        followers: Container[str] = (),
    ):
        self.graph, self.profile = graph, profile
        self.ids = id_tensors(graph)
        self.unsupported = {id(n): why_unsupported(n, profile) for n in graph.nodes}
        self.far = far_numbers(graph)
        self.unsupported.update(self.far)
        taken = taken_away(graph).items()
        self.unsupported.update({n: why for n, why in taken if self.unsupported[n] is None})
        self.unsupported.update(moving_ids(graph, profile, self.ids, self.unsupported))
        chains = self.chains = fused_chains(graph, profile, self.unsupported)
        self.chosen = choose_precisions(graph, profile, asked, chains, followers)
        self.specs: dict[TensorRef, QuantSpec] = {}
        self.parent: dict[TensorRef, TensorRef] = {}
        self.quantized_on: dict[TensorRef, TensorRef] = {}
        self.lies_on: dict[TensorRef, TensorRef] = {}
        self.rounding: dict[TensorRef, str] = {}
        self.params: dict[TensorRef, QuantSpec] = {}
        self.floats: dict[str, str] = {}
        self.cells = {n.layer.name for n in graph.nodes if isinstance(n.layer, CellPart)}
        self.steps: dict[TensorRef, TensorRef] = {}
        self.inside = {
            ref
            for node in graph.nodes
            for part in [node, *chains[id(node)]][:-1]
            if self._on_grid(part)
            for ref in part.outputs
        }

    def visit(self, node: GraphNode) -> None:
        op, precision = op_type(node.layer), self.chosen[id(node)]
        unsupported = self.unsupported[id(node)]
        if op_of(node.layer).transparent and node.inputs:
            self._carry(node)
            return
        if unsupported is None and not precision.is_integer:
            self._add_params(node, op)
            self.floats[node.layer.name] = f"computes in {precision.name}"
        elif unsupported is not None and node.is_float and not op_of(node.layer).transparent:
            self.floats[node.layer.name] = unsupported + why_whole(node)
        if not self._on_grid(node):
            self._own_if_read(node)
            return
        self._requantize_inputs(node)
        if op in self.profile.same_grid:
            self._share(node)
        elif op in self.profile.regrid:
            self._regrid(node, self.profile.regrid[op])
        else:
            if precision.is_integer:
                self._add_params(node, op)
                last = [node, *self.chains[id(node)]][-1]
                twice = double_rounding(node, self.chosen[id(node)], self.profile)
                self.rounding.update({last.outputs[0]: twice} if twice else {})
            rule = self.profile.ops.get(op)
            if rule is None or rule.output:
                self._own(node, self._activation(node, op))

    def plan(self) -> QuantPlan:
        """Return the grids with joined ones under their first tensor."""
        root = self._root
        shared = {ref: root(on) for ref, on in self.quantized_on.items() if root(on) != ref}
        carriers = {ref: root(on) for ref, on in self.lies_on.items()}
        specs = {ref: spec for ref, spec in self.specs.items() if root(ref) == ref}
        kernels = kernel_table(self.graph, self.profile, self.chosen, self.chains, self.unsupported)
        grids = ({**specs, **self.params}, shared, carriers)
        return QuantPlan(*grids, self.rounding, self.floats, kernels)

    def _on_grid(self, node: GraphNode) -> bool:
        """Tell whether a call reads and makes tensors on the grids of its precision."""
        chosen = self.chosen[id(node)]
        return self.unsupported[id(node)] is None and chosen.activation is not None

    def _owner(self, ref: TensorRef) -> TensorRef | None:
        on = self.quantized_on.get(ref) or self.lies_on.get(ref)
        return None if on is None else self._root(on)

    def _input_owner(self, node: GraphNode, index: int = 0) -> TensorRef | None:
        """Return the grid a call reads an input on, None if the target left it float."""
        return self._owner(node.call.input_ref(index)) or self._owner(node.inputs[index])

    def _root(self, ref: TensorRef) -> TensorRef:
        while self.parent.get(ref, ref) != ref:
            ref = self.parent[ref]
        return ref

    def _activation(self, node: GraphNode, op: str) -> QuantSpec:
        """Return the grid of what a call makes."""
        precision, rule = self.chosen[id(node)], self.profile.ops.get(op)
        assert precision.activation is not None  # asked for calls on a grid only
        if precision.activation.is_half:
            return precision.activation
        fixed = precision.fixed_ranges.get(op)
        if rule is None:
            return replace(precision.activation, fixed_range=fixed)
        changes = {"fixed_range": rule.fixed_range or fixed, **rule.activation}
        return replace(precision.activation, **changes)

    def _own(self, node: GraphNode, spec: QuantSpec) -> None:
        for ref in node.outputs:
            if node.is_float and ref not in self.inside:
                self._found(ref, spec)

    def _own_if_read(self, node: GraphNode) -> None:
        """Put what a float operation makes on the widest grid among its readers'."""
        rule = self.profile.ops.get(op_type(node.layer))
        if (rule is not None and not rule.output) or id(node) in self.far:
            return
        for ref in node.outputs:
            wanted = self._read_on(ref) if node.is_float and ref not in self.ids else []
            if wanted:
                self._found(ref, max(wanted, key=lambda spec: spec.bits))

    def _found(self, ref: TensorRef, spec: QuantSpec) -> None:
        """Let a tensor own a grid, or share that of the same tensor of an earlier step."""
        first = self.steps.setdefault(replace(ref, call=0), ref) if ref.layer in self.cells else ref
        self.quantized_on[ref] = self.parent[ref] = first
        if first == ref:
            self.specs[ref] = spec

    def _read_on(self, ref: TensorRef) -> list[QuantSpec]:
        """Return the grids on which a tensor is read."""
        specs = []
        for node in self.graph.consumers(ref):
            if op_of(node.layer).transparent:
                specs += [spec for out in node.outputs for spec in self._read_on(out)]
            elif self._on_grid(node):
                activation = self.chosen[id(node)].activation
                assert activation is not None  # on a grid
                specs.append(activation)
        return specs

    def _requantize_inputs(self, node: GraphNode) -> None:
        """Quantize again what was made in another precision than the call reads."""
        wanted = self.chosen[id(node)].activation
        assert wanted is not None  # asked for calls on a grid only
        for index in range(len(node.inputs)):
            owner = self._input_owner(node, index)
            have = None if owner is None else self.specs[owner]
            if have is not None and (have.bits, have.dtype) != (wanted.bits, wanted.dtype):
                ref = node.call.input_ref(index)
                self._found(ref, wanted)
                if (
                    for_litert(self.profile)
                    and have.bits == 16
                    and not (have.is_half or wanted.is_half)
                ):
                    self.rounding[ref] = "twice_away"  # XNNPACK has no int16

    def _carry(self, node: GraphNode) -> None:
        owner = self._owner(node.inputs[0])
        if owner is not None:
            self.lies_on.update(dict.fromkeys(node.outputs, owner))

    def _regrid(self, node: GraphNode, rounding: str) -> None:
        owner = self._input_owner(node)
        if owner is None:
            return
        for ref in node.outputs:
            self.quantized_on[ref] = owner
            if rounding != "half_even":
                self.rounding[ref] = rounding

    def _share(self, node: GraphNode) -> None:
        """Put inputs and outputs on one grid; a fixed grid among several gets requantized."""
        reads = enumerate(node.call.reads)
        places = [index for index, symbol in reads if symbol.dtype.is_floating]
        found = [self._input_owner(node, index) for index in places]
        owners = [owner for owner in found if owner is not None]
        if len(owners) < len(found):
            return  # the target left an input float, so there is no grid to move on
        free = [o for o in owners if self.specs[o].fixed_range is None]
        if len(set(owners)) == 1:
            group = owners[0]
        elif free:
            check_joint({ref: self.specs[ref] for ref in free}, node, self.graph, self.profile)
            group = min((self._root(o) for o in free), key=list(self.specs).index)
            for owner in free:
                self.parent[self._root(owner)] = group
        else:
            group = node.outputs[0]
            self.specs[group] = self._activation(node, "")
            self.parent[group] = group
        for index, owner in zip(places, owners, strict=True):
            if self._root(owner) != self._root(group):
                self.quantized_on[node.call.input_ref(index)] = group
        # A number among the operands is rounded onto the grid.
        rounds = op_of(node.layer) is SELECT and selected_numbers(node.call.node)
        on = self.quantized_on if rounds else self.lies_on
        on.update(dict.fromkeys(node.outputs, group))

    def _add_params(self, node: GraphNode, op: str) -> None:
        trait, precision = weights_of(node.layer), self.chosen[id(node)]
        weight = self.profile.weight_spec(op, precision)
        if trait is None or weight is None:
            return
        name, per_channel = node.layer.name, op in self.profile.per_channel and not weight.is_half
        axes = kept_channels(node.layer) if per_channel else ()
        weight = in_whole_blocks(replace(weight, axes=axes), node.layer)
        self.params[TensorRef(name, "param", param=trait.kernel)] = weight
        bias, spec = trait.bias, precision.bias_spec
        if bias and getattr(node.layer, bias, None) is not None and spec is not None:
            self.params[TensorRef(name, "param", param=bias)] = spec
