"""From a prepared model and a profile to a `QuantPlan`: where quantizers stand, and which grid."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import tf_keras

from keras_edgeq.errors import UnsupportedModelError
from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.layer_graph import GraphNode, LayerGraph
from keras_edgeq.layers.layer_traits import kept_channels, op_type, weight_trait
from keras_edgeq.spec.quant_plan import QuantPlan
from keras_edgeq.spec.quant_spec import BIAS_SPEC, QuantSpec
from keras_edgeq.spec.target_profile import TargetProfile
from keras_edgeq.spec.tensor_ref import TensorRef

TRANSPARENT = ("Input", "Identity")


def resolve(model: tf_keras.Model, profile: TargetProfile) -> QuantPlan:
    """Decide which tensors of a prepared model are quantized, and on which grid.

    Every operation the profile computes in integers gets grids on what it reads and makes, except
    inside a fused chain. An operation that only moves integers keeps its input's grid; several
    inputs of one share a grid. All other layers stay float and are named with the reason.

    Raises:
        UnsupportedModelError: the profile quantizes nothing in this model.
    """
    resolver = _Resolver(LayerGraph(model), profile)
    for node in resolver.graph.nodes:
        resolver.visit(node)
    plan = resolver.plan()
    if not plan.specs:
        raise UnsupportedModelError(
            f"Profile {profile.name!r} has an integer kernel for no layer of {model.name!r}; "
            f"it computes in integers: {', '.join(sorted(profile.quantized))}."
        )
    return plan


class _Resolver:
    """One walk over the graph; grids that must be equal are joined by union-find."""

    def __init__(self, graph: LayerGraph, profile: TargetProfile):
        self.graph, self.profile = graph, profile
        self.reasons = {id(n): _why_float(n, profile) for n in graph.nodes}
        self.specs: dict[TensorRef, QuantSpec] = {}
        self.parent: dict[TensorRef, TensorRef] = {}
        self.quantized_on: dict[TensorRef, TensorRef] = {}
        self.lies_on: dict[TensorRef, TensorRef] = {}
        self.rounding: dict[TensorRef, str] = {}
        self.params: dict[TensorRef, QuantSpec] = {}
        self.floats: dict[str, str] = {}
        self.inside = {ref for node in graph.nodes for ref in self._fused(node)}

    def visit(self, node: GraphNode) -> None:
        op, why_float = op_type(node.layer), self.reasons[id(node)]
        if op in TRANSPARENT and node.inputs:
            self._carry(node)
        elif why_float is not None:
            if op not in TRANSPARENT:
                self.floats[node.layer.name] = why_float
            self._own(node, self.profile.activation, only_if_read=True)
        elif op in self.profile.same_grid:
            self._share(node)
        elif op in self.profile.regrid:
            self._regrid(node, self.profile.regrid[op])
        else:
            self._add_params(node, op)
            fixed = self.profile.fixed_ranges.get(op)
            self._own(node, replace(self.profile.activation, fixed_range=fixed))

    def plan(self) -> QuantPlan:
        """Return the grids with joined ones under their first tensor."""
        root = self._root
        shared = {ref: root(on) for ref, on in self.quantized_on.items() if root(on) != ref}
        carriers = {ref: root(on) for ref, on in self.lies_on.items()}
        specs = {ref: spec for ref, spec in self.specs.items() if root(ref) == ref}
        return QuantPlan({**specs, **self.params}, shared, carriers, self.rounding, self.floats)

    def _integer(self, node: GraphNode) -> bool:
        return self.reasons[id(node)] is None

    def _owner(self, ref: TensorRef) -> TensorRef | None:
        on = self.quantized_on.get(ref) or self.lies_on.get(ref)
        return None if on is None else self._root(on)

    def _input_owner(self, ref: TensorRef) -> TensorRef:
        owner = self._owner(ref)
        assert owner is not None  # what an integer operation reads has a grid
        return owner

    def _root(self, ref: TensorRef) -> TensorRef:
        while self.parent.get(ref, ref) != ref:
            ref = self.parent[ref]
        return ref

    def _own(self, node: GraphNode, spec: QuantSpec, only_if_read: bool = False) -> None:
        for ref in node.outputs:
            if not node.is_float or ref in self.inside:
                continue
            if only_if_read and not self._read_by_integers(ref):
                continue
            self.specs[ref] = spec
            self.quantized_on[ref] = self.parent[ref] = ref

    def _read_by_integers(self, ref: TensorRef) -> bool:
        for node in self.graph.consumers(ref):
            if op_type(node.layer) == "Identity":
                if any(self._read_by_integers(out) for out in node.outputs):
                    return True
            elif self._integer(node):
                return True
        return False

    def _carry(self, node: GraphNode) -> None:
        owner = self._owner(node.inputs[0])
        if owner is not None:
            self.lies_on.update(dict.fromkeys(node.outputs, owner))

    def _regrid(self, node: GraphNode, rounding: str) -> None:
        owner = self._input_owner(node.inputs[0])
        for ref in node.outputs:
            self.quantized_on[ref] = owner
            if rounding != "half_even":
                self.rounding[ref] = rounding

    def _share(self, node: GraphNode) -> None:
        """Put inputs and outputs on one grid; a fixed grid among several gets requantized."""
        owners = [self._input_owner(ref) for ref in node.inputs]
        free = [o for o in owners if self.specs[o].fixed_range is None]
        if len(set(owners)) == 1:
            group = owners[0]
        elif free:
            group = min((self._root(o) for o in free), key=list(self.specs).index)
            for owner in free:
                self.parent[self._root(owner)] = group
        else:
            group = node.outputs[0]
            self.specs[group] = self.profile.activation
            self.parent[group] = group
        for index, owner in enumerate(owners):
            if self._root(owner) != self._root(group):
                self.quantized_on[node.call.input_ref(index)] = group
        self.lies_on.update(dict.fromkeys(node.outputs, group))

    def _add_params(self, node: GraphNode, op: str) -> None:
        trait = weight_trait(node.layer)
        if trait is None:
            return
        name = node.layer.name
        axes = kept_channels(node.layer) if op in self.profile.per_channel else ()
        kernel = replace(self.profile.weight, axes=axes)
        self.params[TensorRef(name, "param", param=trait.kernel)] = kernel
        bias = trait.bias
        if bias and getattr(node.layer, bias, None) is not None and self.profile.bias == "int32":
            self.params[TensorRef(name, "param", param=bias)] = BIAS_SPEC

    def _fused(self, node: GraphNode) -> list[TensorRef]:
        """Return the tensors inside the longest fused chain that starts at `node`."""
        best: list[TensorRef] = []
        for chain in self.profile.fused:
            inner = self._match(node, chain)
            if len(inner) > len(best):
                best = inner
        return best

    def _match(self, node: GraphNode, chain: tuple[str, ...]) -> list[TensorRef]:
        inner = []
        for position, op in enumerate(chain):
            if op_type(node.layer) != op or not self._integer(node):
                return []
            if position + 1 < len(chain):
                inner.append(node.outputs[0])
                reader = self.graph.only_consumer(node.outputs[0])
                if reader is None:
                    return []
                node = reader
        return inner


def _why_float(node: GraphNode, profile: TargetProfile) -> str | None:
    """Return why a call stays float, None where the target computes it in integers."""
    op = op_type(node.layer)
    if op == "Input":
        return "model input"
    if op == "Identity":
        return "no computation"
    if not node.is_float:
        return "makes integers or booleans, not real numbers"
    if op not in profile.quantized:
        return f"{op} has no integer kernel in profile {profile.name!r}"
    if getattr(node.layer, "data_format", "channels_last") == "channels_first":
        return "data_format='channels_first'; integer kernels are channels_last"
    if _operands(node.call.node, op) is None:
        return f"{op} with a constant operand that is not a scalar"
    if op == "Pad" and not _pads_zero(node.call.node):
        return "pads with something else than zeros"
    return None


def _operands(keras_node: Any, op: str) -> int | None:
    """Return how many tensors an elementwise call reads; None with a constant it cannot take."""
    if op not in ("Add", "Sub", "Mul", "Maximum", "Minimum", "MatMul", "Concat"):
        return 1
    flat = keras_compat.operands(keras_node)
    symbols = [v for v in flat if keras_compat.is_keras_tensor(v)]
    scalars_taken = op in ("Add", "Sub", "Mul")
    for value in flat[: 2 if op != "Concat" else None]:
        if keras_compat.is_keras_tensor(value) or (op == "Concat" and np.ndim(value) == 0):
            continue
        if not scalars_taken or np.size(value) != 1:
            return None
    return len(symbols)


def _pads_zero(keras_node: Any) -> bool:
    if keras_compat.op_symbol(keras_node.layer) is None:
        return True
    # tf.pad is recorded as compat.v1.pad(tensor, paddings, mode, name, constant_values).
    names = ("tensor", "paddings", "mode", "name", "constant_values")
    options = dict(zip(names, keras_node.call_args, strict=False)) | dict(keras_node.call_kwargs)
    value = np.asarray(options.get("constant_values", 0))
    return options.get("mode", "CONSTANT") == "CONSTANT" and bool(np.all(value == 0))
