"""Insert the quantizers of a plan into a prepared model."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from keras_edgeq.graph.rebuild import clone, copy_weights, rebuild
from keras_edgeq.layers import FakeQuant, FreezableBatchNorm, QuantizedLayer
from keras_edgeq.layers.half_precision import HALF_BITS
from keras_edgeq.numerics.round_to_steps import TWICE
from keras_edgeq.ops import op_of, op_type
from keras_edgeq.ops.operands import caps
from keras_edgeq.ops.plain import RELU, RELU6
from keras_edgeq.sim.masked_scores import masked_keys
from keras_edgeq.sim.planned_grids import PlannedGrids
from keras_edgeq.sim.quant_sim import QuantSim, SimRecord
from keras_edgeq.sim.stepwise import stepwise_calls
from keras_edgeq.spec.tensor_ref import TensorRef, part_name

# The names by which quantizers know activations; others by their bounds.
NAMED = {RELU.name: "relu", RELU6.name: "relu6"}


def insert(prepared: tf_keras.Model, record: SimRecord) -> QuantSim:
    """Return an uncalibrated sim: the prepared model with the quantizers of a record's plan.

    Layers keep their names; a quantizer is named after the tensor that owns its grid. A weighted
    layer reads the steps of its input's quantizer, and the scale; the quantizer behind it reads its
    integer sums. A fused ReLU becomes a bound of that quantizer. What the plan says of a layer that
    a batch norm folds into holds for the output of the batch norm, which becomes one that can be
    frozen. Layers train under the record's mixed policies, by name, where half precision holds
    their steps; its constants never train.
    """
    work = _Insertion(prepared, record)
    sim = rebuild(
        prepared, work.on_layer, work.quantize, work.quantize, work.on_call, make=QuantSim
    )
    for old, new in work.copies:
        copy_weights(old, new)
    for old, new in work.batch_norms:
        new.set_weights([*old.get_weights(), np.zeros((), np.float32)])
    sim.attach(record)
    return sim


class _Insertion:
    """One rebuild on its way; tensors are known by their id and kept alive here.

    Attributes:
        steps: rounded tensor -> itself and the same in whole steps.
        sums: output of a layer that sums whole numbers -> itself, the sums, and their scale.
        units: output of a batch norm behind such a layer -> itself, and what one step of the sums
            is worth once it is folded.
        scales: owner of a grid -> its scale.
        stepwise: calls, by the `id` of their node, that run on steps.
        fused: tensor -> activation that its quantizer takes over.
        behind: batch norm -> layer that it folds into.
        steep: grids that functions read which are steep at zero.
    """

    def __init__(self, prepared: tf_keras.Model, record: SimRecord):
        self.plan, self.profile = record.plan, record.profile
        self.policies, self.constants = record.policies, record.constants
        self.grids = PlannedGrids.of(prepared, record.plan)
        self.graph, self.behind = self.grids.graph, self.grids.behind
        self.nodes = {(n.layer.name, n.call.number): n for n in self.graph.nodes}
        self.params: dict[str, dict] = {}
        for ref, spec in self.plan.specs.items():
            if ref.kind == "param":
                self.params.setdefault(ref.layer, {})[ref.param] = spec
        self.quantizers: dict[TensorRef, FakeQuant] = {}
        self.steps: dict[int, tuple] = {}
        self.sums: dict[int, tuple] = {}
        self.units: dict[int, tuple] = {}
        self.scales: dict[TensorRef, Any] = {}
        self.fused: dict[TensorRef, str | tuple[float, float]] = {}
        self.copies: list[tuple[Any, Any]] = []
        self.batch_norms: list[tuple[Any, Any]] = []
        self.stepwise = stepwise_calls(self.grids, self.profile)
        steep = [node for node in self.graph.nodes if op_of(node.layer).steep_at_zero]
        self.steep = {self.grids.read_on(node) for node in steep}

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
        if layer.name in self.behind.values():
            # The kernel adds one bias, which is rounded where the batch norm has made it.
            own = {name: spec for name, spec in own.items() if spec.rule != "derived"}
        constant = layer.name in self.constants
        rows = self._reads_rows(layer)
        return QuantizedLayer(
            inner, own, constant=constant, rounds_rows=rows, dtype=self._policy(layer)
        )

    def on_call(self, call, new, args, kwargs):
        """Call a layer on whole numbers where it works on them, and as it is elsewhere."""
        node = self.nodes[call.layer.name, call.number]
        if isinstance(new, QuantizedLayer):
            return self._call_quantized(new, node, args[0])
        if isinstance(new, FreezableBatchNorm) and self._folds_into_sums(call.layer.name, args[0]):
            made, unit = new(*args, **kwargs, unit=self.sums[id(args[0])][2])
            self.units[id(made)] = (made, unit)
            return made
        if id(node) in self.stepwise:
            return self._call_on_steps(new, node, args, kwargs)
        out = node.outputs[0]
        ends = caps(call.node)
        is_inside = self.grids.lies_on(node.inputs[0]) is None
        if ends is not None and is_inside and self.grids.quantized_on(out) is not None:
            self.fused[out] = NAMED.get(op_type(call.layer)) or ends
            return args[0]
        return new(*args, **kwargs)

    def quantize(self, ref: TensorRef, tensor):
        """Put the plan's quantizer on a tensor, if there is one."""
        owner = self.grids.quantized_on(ref)
        if owner is None:
            return tensor
        planned = self.grids.planned(ref)
        assert planned is not None  # it has an owner
        options: dict[str, Any] = {"tensor": str(planned)}
        if planned in self.plan.rounding:
            options["rounding"] = self.plan.rounding[planned]
        if ref.kind == "output" and (keys := self._keys(ref)):
            options["keys"] = keys
        if owner in self.steep:
            options["steep"] = True
        if ref in self.fused:
            options["activation"] = self.fused[ref]
        if id(tensor) in self.sums:
            _, tensor, options["input_scale"] = self.sums[id(tensor)]
        elif ref.kind == "input" and id(tensor) in self.steps:
            source = self.grids.lies_on(self.nodes[ref.layer, ref.call].inputs[ref.index])
            assert source is not None  # what has steps lies on a grid
            tensor, options["input_scale"] = self.steps[id(tensor)][1], self.scales[source]
        elif id(tensor) in self.units:
            options["unit"] = self.units[id(tensor)][1]
        elif options.get("rounding") in TWICE:
            del options["rounding"]  # no integers, so no kernel that rounds them
        rounded, in_steps, self.scales[owner] = self._quantizer(owner)(tensor, **options)
        if not self.grids.is_half(owner):
            self.steps[id(rounded)] = (rounded, in_steps)
        return rounded

    def _call_on_steps(self, new, node, args, kwargs):
        """Call a layer that moves or averages whole numbers on all its tensors in steps."""
        args, kwargs = tf.nest.map_structure(
            lambda v: self.steps[id(v)][1] if id(v) in self.steps else v, (args, kwargs)
        )
        made = new(*args, **kwargs)
        if op_type(node.layer) in self.profile.regrid:
            owner = self.grids.read_on(node)
            assert owner is not None  # it reads steps
            return self._as_sums(made, owner)
        (tensor,) = tf.nest.flatten(made)
        self.steps[id(tensor)] = (tensor, tensor)
        return made

    def _call_quantized(self, new: QuantizedLayer, node, tensor):
        if not new.sums_integers:
            return new(tensor)[0]
        owner = self.grids.read_on(node)
        if owner is None or self.grids.is_half(owner):
            return new(tensor)[0]
        scale = self.scales[owner]
        if id(tensor) in self.steps:
            outputs = new(self.steps[id(tensor)][1], input_scale=scale, in_steps=True)
        else:
            outputs = new(tensor, input_scale=scale)
        self.sums[id(outputs[0])] = outputs
        return outputs[0]

    def _reads_rows(self, layer) -> bool:
        """Tell whether the kernel of a layer rounds each row of a float input as it runs."""
        kernel = self.plan.kernels.get(layer.name)
        if kernel is None:
            return False
        return kernel.op in self.profile.precision(kernel.precision).dynamic

    def _folds_into_sums(self, batch_norm: str, tensor) -> bool:
        """Tell whether a batch norm becomes a bias that the target rounds."""
        bias = self.params.get(self.behind[batch_norm], {}).get("bias")
        return bias is not None and bias.rule == "derived" and id(tensor) in self.sums

    def _as_sums(self, tensor, owner: TensorRef):
        """Remember an average or interpolation of whole numbers, so that ties stay ties."""
        self.sums[id(tensor)] = (tensor, tensor, self.scales[owner])
        return tensor

    def _quantizer(self, owner: TensorRef) -> FakeQuant:
        if owner not in self.quantizers:
            spec = self.plan.specs[owner]
            self.quantizers[owner] = FakeQuant(spec, str(owner), name=layer_name(owner))
        return self.quantizers[owner]

    def _keys(self, ref: TensorRef) -> int:
        node = self.nodes.get((ref.layer, ref.call))
        return 0 if node is None else masked_keys(self.graph, node)

    def _policy(self, layer) -> str:
        """Return the policy under which a layer trains: float32 where it reads more than a byte."""
        read = [self.grids.read_on(node) for node in self.graph.nodes if node.layer is layer]
        if any(owner and self.plan.specs[owner].bits > HALF_BITS for owner in read):
            return "float32"
        # The parts of a split layer, `name/part`, are under its policy.
        whole = layer.name.rpartition("/")[0]
        return self.policies.get(layer.name) or self.policies.get(whole, "float32")


def layer_name(ref: TensorRef) -> str:
    """Return the Keras layer name of the quantizer of a tensor."""
    kind = f".in{ref.index}" if ref.kind == "input" else f".out{ref.index}" if ref.index else ""
    call = f".call{ref.call}" if ref.call else ""
    return part_name(f"{ref.layer}{call}{kind}", "quant")
