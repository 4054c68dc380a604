"""Insert the quantizers of a plan into a prepared model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.graph.rebuild import clone, copy_weights, rebuild
from keras_edgeq.layers import FakeQuant, FreezableBatchNorm, QuantizedLayer
from keras_edgeq.layers.layer_traits import op_type, weight_trait
from keras_edgeq.layers.quantized_layer import HALF_BITS
from keras_edgeq.numerics.round_to_steps import TWICE
from keras_edgeq.prepare.fold_batch_norms import batch_norms_behind
from keras_edgeq.sim.quant_sim import QuantSim, SimRecord
from keras_edgeq.spec.quant_plan import QuantPlan
from keras_edgeq.spec.target_profile import TargetProfile
from keras_edgeq.spec.tensor_ref import TensorRef, part_name

FUSED_ACTIVATIONS = {"Relu": "relu", "Relu6": "relu6"}


def insert(
    prepared: tf_keras.Model,
    plan: QuantPlan,
    profile: TargetProfile,
    output_names: Sequence[str],
    policies: Mapping[str, str] | None = None,
) -> QuantSim:
    """Return an uncalibrated sim: the prepared model with the plan's quantizers.

    Layers keep their names; a quantizer is named after the tensor that owns its grid. A weighted
    layer reads the steps of its input's quantizer, and the scale; the quantizer behind it reads its
    integer sums. A fused ReLU becomes a bound of that quantizer. What the plan says of a layer that
    a batch norm folds into holds for the output of the batch norm, which becomes one that can be
    frozen. Layers train under the mixed policies that `mixed_policies` gave, by name, where half
    precision holds their steps.
    """
    work = _Insertion(prepared, plan, profile, policies or {})
    sim = rebuild(
        prepared, work.on_layer, work.quantize, work.quantize, work.on_call, make=QuantSim
    )
    for old, new in work.copies:
        copy_weights(old, new)
    for old, new in work.batch_norms:
        new.set_weights([*old.get_weights(), np.zeros((), np.float32)])
    sim.attach(SimRecord(profile, plan, tuple(output_names), policies=policies or {}))
    return sim


class _Insertion:
    """One rebuild on its way; tensors are known by their id and kept alive here.

    Attributes:
        steps: rounded tensor -> itself and the same in whole steps.
        sums: output of a layer that sums whole numbers -> itself, the sums, and their scale.
        scales: owner of a grid -> its scale.
        fused: tensor -> activation that its quantizer takes over.
        behind: batch norm -> layer that it folds into.
    """

    def __init__(
        self,
        prepared: tf_keras.Model,
        plan: QuantPlan,
        profile: TargetProfile,
        policies: Mapping[str, str],
    ):
        self.graph, self.plan, self.profile = LayerGraph(prepared), plan, profile
        self.policies = policies
        self.nodes = {(n.layer.name, n.call.number): n for n in self.graph.nodes}
        self.params: dict[str, dict] = {}
        for ref, spec in plan.specs.items():
            if ref.kind == "param":
                self.params.setdefault(ref.layer, {})[ref.param] = spec
        self.quantizers: dict[TensorRef, FakeQuant] = {}
        self.steps: dict[int, tuple] = {}
        self.sums: dict[int, tuple] = {}
        self.scales: dict[TensorRef, Any] = {}
        self.fused: dict[TensorRef, str] = {}
        self.copies: list[tuple[Any, Any]] = []
        self.behind = batch_norms_behind(prepared)
        self.batch_norms: list[tuple[Any, Any]] = []

    def on_layer(self, layer):
        """Wrap a layer that has parameters to quantize; exchange a batch norm that trains."""
        if layer.name in self.behind and type(layer) is tf_keras.layers.BatchNormalization:
            new = FreezableBatchNorm.from_config(layer.get_config())
            self.batch_norms.append((layer, new))
            return new
        if layer.name not in self.params:
            return None
        inner = clone(layer)
        self.copies.append((layer, inner))
        specs = self.params[layer.name]
        own = {n: s for n, s in specs.items() if getattr(layer, n, None) is not None}
        return QuantizedLayer(inner, own, dtype=self._policy(layer))

    def on_call(self, call, new, args, kwargs):
        """Call a layer on whole numbers where it works on them, and as it is elsewhere."""
        node, op = self.nodes[call.layer.name, call.number], op_type(call.layer)
        if isinstance(new, QuantizedLayer):
            return self._call_quantized(new, node, args[0])
        in_steps = self._in_steps(args)
        if in_steps is not None:
            owner = self._owner(node)
            if op in self.profile.regrid and owner is not None:
                return self._as_sums(new(*in_steps, **kwargs), owner)
            if self._moves(node) and self._takes_steps(node.outputs[0]):
                moved = new(*in_steps, **kwargs)
                self.steps[id(moved)] = (moved, moved)
                return moved
        out = node.outputs[0]
        is_inside = op in FUSED_ACTIVATIONS and self._lies_on(node.inputs[0]) is None
        if is_inside and self._quantized_on(out) is not None:
            self.fused[out] = FUSED_ACTIVATIONS[op]
            return args[0]
        return new(*args, **kwargs)

    def quantize(self, ref: TensorRef, tensor):
        """Put the plan's quantizer on a tensor, if there is one."""
        owner = self._quantized_on(ref)
        if owner is None:
            return tensor
        planned = self._planned(ref)
        assert planned is not None  # it has an owner
        options: dict[str, Any] = {"tensor": str(planned)}
        if planned in self.plan.rounding:
            options["rounding"] = self.plan.rounding[planned]
        if ref in self.fused:
            options["activation"] = self.fused[ref]
        if id(tensor) in self.sums:
            _, tensor, options["input_scale"] = self.sums[id(tensor)]
        elif ref.kind == "input" and id(tensor) in self.steps:
            source = self._lies_on(self.nodes[ref.layer, ref.call].inputs[ref.index])
            assert source is not None  # what has steps lies on a grid
            tensor, options["input_scale"] = self.steps[id(tensor)][1], self.scales[source]
        elif options.get("rounding") in TWICE:
            del options["rounding"]  # no integers, so no kernel that rounds them
        rounded, in_steps, self.scales[owner] = self._quantizer(owner)(tensor, **options)
        if not self._is_half(owner):
            self.steps[id(rounded)] = (rounded, in_steps)
        return rounded

    def _in_steps(self, args):
        """Return arguments in whole steps, None where a tensor among them is not known in steps."""
        flat = tf.nest.flatten(args)
        if not any(id(value) in self.steps for value in flat):
            return None
        if any(keras_compat.is_keras_tensor(v) and id(v) not in self.steps for v in flat):
            return None
        return tf.nest.map_structure(
            lambda v: self.steps[id(v)][1] if id(v) in self.steps else v, args
        )

    def _call_quantized(self, new: QuantizedLayer, node, tensor):
        if not new.sums_integers:
            return new(tensor)[0]
        owner = self._owner(node)
        if owner is None or self._is_half(owner):
            return new(tensor)[0]
        scale = self.scales[owner]
        if id(tensor) in self.steps:
            outputs = new(self.steps[id(tensor)][1], input_scale=scale, in_steps=True)
        else:
            outputs = new(tensor, input_scale=scale)
        self.sums[id(outputs[0])] = outputs
        return outputs[0]

    def _as_sums(self, tensor, owner: TensorRef):
        """Remember an average or interpolation of whole numbers, so that ties stay ties."""
        self.sums[id(tensor)] = (tensor, tensor, self.scales[owner])
        return tensor

    def _quantizer(self, owner: TensorRef) -> FakeQuant:
        if owner not in self.quantizers:
            spec = self.plan.specs[owner]
            self.quantizers[owner] = FakeQuant(spec, str(owner), name=layer_name(owner))
        return self.quantizers[owner]

    def _quantized_on(self, ref: TensorRef) -> TensorRef | None:
        """Return the owner of the grid that a tensor is rounded onto, None where it is not."""
        planned = self._planned(ref)
        if planned is None:
            return None
        return planned if planned in self.plan.specs else self.plan.shared.get(planned)

    def _planned(self, ref: TensorRef) -> TensorRef | None:
        """Return what the plan calls a tensor, None for one that a batch norm still changes."""
        if ref.kind == "output" and ref.layer in self.behind:
            return replace(ref, layer=self.behind[ref.layer])
        if ref.kind == "output" and ref.layer in self.behind.values():
            return None
        return ref

    def _lies_on(self, ref: TensorRef) -> TensorRef | None:
        planned = self._planned(ref)
        return None if planned is None else self.plan.owner(planned)

    def _owner(self, node) -> TensorRef | None:
        """Return the grid of the first tensor a call reads, None where it is float."""
        return self.plan.owner(node.call.input_ref(0)) or self._lies_on(node.inputs[0])

    def _policy(self, layer) -> str:
        """Return the policy under which a layer trains: float32 where it reads more than a byte."""
        read = [self._owner(node) for node in self.graph.nodes if node.layer is layer]
        if any(owner and self.plan.specs[owner].bits > HALF_BITS for owner in read):
            return "float32"
        # The parts of a split layer, `name/part`, are under its policy.
        whole = layer.name.rpartition("/")[0]
        return self.policies.get(layer.name) or self.policies.get(whole, "float32")

    def _is_half(self, owner: TensorRef) -> bool:
        return self.plan.specs[owner].is_half

    def _moves(self, node) -> bool:
        if node.layer.activity_regularizer is not None:
            return False  # its loss is in real units
        kinds = self.profile.same_grid | {"Identity"}
        return op_type(node.layer) in kinds and len(node.outputs) == 1

    def _takes_steps(self, ref: TensorRef) -> bool:
        """Tell whether everything that reads a tensor works on whole numbers of steps."""
        return ref not in self.graph.outputs and all(
            self._sums_products(reader.layer)
            or op_type(reader.layer) in self.profile.regrid
            or (self._moves(reader) and self._takes_steps(reader.outputs[0]))
            for reader in self.graph.consumers(ref)
        )

    def _sums_products(self, layer) -> bool:
        trait, specs = weight_trait(layer), self.params.get(layer.name, {})
        if trait is None or trait.bias is None or trait.kernel not in specs:
            return False
        return not specs[trait.kernel].is_half


def layer_name(ref: TensorRef) -> str:
    """Return the Keras layer name of the quantizer of a tensor."""
    kind = f".in{ref.index}" if ref.kind == "input" else f".out{ref.index}" if ref.index else ""
    call = f".call{ref.call}" if ref.call else ""
    return part_name(f"{ref.layer}{call}{kind}", "quant")
