"""Insert the quantizers of a plan into a prepared model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tf_keras

from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.graph.rebuild import clone, copy_weights, rebuild
from keras_edgeq.layers import FakeQuant, QuantizedLayer
from keras_edgeq.layers.layer_traits import op_type, weight_trait
from keras_edgeq.sim.quant_sim import QuantSim, SimRecord
from keras_edgeq.spec.quant_plan import QuantPlan
from keras_edgeq.spec.target_profile import TargetProfile
from keras_edgeq.spec.tensor_ref import TensorRef, part_name

FUSED_ACTIVATIONS = {"Relu": "relu", "Relu6": "relu6"}


def insert(
    prepared: tf_keras.Model, plan: QuantPlan, profile: TargetProfile, output_names: Sequence[str]
) -> QuantSim:
    """Return an uncalibrated sim: the prepared model with the plan's quantizers.

    Layers keep their names; a quantizer is named after the tensor that owns its grid. A weighted
    layer reads the steps of its input's quantizer where it stands right behind one, and the scale;
    the quantizer behind it reads its integer sums. A fused ReLU becomes a bound of that quantizer.
    """
    graph = LayerGraph(prepared)
    nodes = {(n.layer.name, n.call.number): n for n in graph.nodes}
    params: dict[str, dict] = {}
    for ref, spec in plan.specs.items():
        if ref.kind == "param":
            params.setdefault(ref.layer, {})[ref.param] = spec
    quantizers: dict[TensorRef, FakeQuant] = {}
    scales: dict[TensorRef, Any] = {}
    steps: dict[int, tuple] = {}
    sums: dict[int, tuple] = {}
    fused: dict[TensorRef, str] = {}
    copies = []

    def quantizer(owner: TensorRef) -> FakeQuant:
        if owner not in quantizers:
            quantizers[owner] = FakeQuant(plan.specs[owner], str(owner), name=layer_name(owner))
        return quantizers[owner]

    def quantize(ref: TensorRef, tensor):
        owner = ref if ref in plan.specs else plan.shared.get(ref)
        if owner is None:
            return tensor
        options: dict[str, Any] = {"tensor": str(ref)}
        if ref in plan.rounding:
            options["rounding"] = plan.rounding[ref]
        if ref in fused:
            options["activation"] = fused[ref]
        if id(tensor) in sums:
            _, tensor, options["input_scale"] = sums[id(tensor)]
        rounded, in_steps, scales[owner] = quantizer(owner)(tensor, **options)
        steps[id(rounded)] = (rounded, in_steps)
        return rounded

    def on_layer(layer):
        if layer.name not in params:
            return None
        inner = clone(layer)
        copies.append((layer, inner))
        return QuantizedLayer(inner, params[layer.name])

    def on_call(call, new, args, kwargs):
        node = nodes[call.layer.name, call.number]
        if isinstance(new, QuantizedLayer):
            return call_quantized(new, node, args[0])
        if args and id(args[0]) in steps:
            if op_type(call.layer) in profile.regrid:
                return call_on_steps(new, plan.owner(node.inputs[0]), args, kwargs)
            if moves(node) and takes_steps(node.outputs[0]):
                moved = new(steps[id(args[0])][1], *args[1:], **kwargs)
                steps[id(moved)] = (moved, moved)
                return moved
        activation = FUSED_ACTIVATIONS.get(op_type(call.layer))
        if activation and plan.owner(node.inputs[0]) is None and _owns(plan, node.outputs[0]):
            fused[node.outputs[0]] = activation
            return args[0]
        return new(*args, **kwargs)

    def moves(node) -> bool:
        kinds = profile.same_grid | {"Identity"}
        return op_type(node.layer) in kinds and len(node.inputs) == len(node.outputs) == 1

    def takes_steps(ref: TensorRef) -> bool:
        """Tell whether everything that reads a tensor works on whole numbers of steps."""
        return ref not in graph.outputs and all(
            sums_products(reader.layer)
            or op_type(reader.layer) in profile.regrid
            or (moves(reader) and takes_steps(reader.outputs[0]))
            for reader in graph.consumers(ref)
        )

    def sums_products(layer) -> bool:
        trait = weight_trait(layer)
        return layer.name in params and trait is not None and trait.bias is not None

    def call_on_steps(new, owner, args, kwargs):
        """Average or interpolate whole numbers, so that ties are ties as in the kernel."""
        average = new(steps[id(args[0])][1], *args[1:], **kwargs)
        sums[id(average)] = (average, average, scales[owner])
        return average

    def call_quantized(new, node, tensor):
        if not new.sums_integers:
            return new(tensor)[0]
        owner = plan.owner(node.inputs[0])
        assert owner is not None  # a layer with quantized parameters reads a quantized tensor
        scale = scales[owner]
        if id(tensor) in steps:
            outputs = new(steps[id(tensor)][1], input_scale=scale, in_steps=True)
        else:
            outputs = new(tensor, input_scale=scale)
        sums[id(outputs[0])] = outputs
        return outputs[0]

    sim = rebuild(prepared, on_layer, quantize, quantize, on_call, make=QuantSim)
    for old, new in copies:
        copy_weights(old, new)
    sim.attach(SimRecord(profile, plan, tuple(output_names)))
    return sim


def _owns(plan: QuantPlan, ref: TensorRef) -> bool:
    return ref in plan.specs or ref in plan.shared


def layer_name(ref: TensorRef) -> str:
    """Return the Keras layer name of the quantizer of a tensor."""
    kind = f".in{ref.index}" if ref.kind == "input" else f".out{ref.index}" if ref.index else ""
    call = f".call{ref.call}" if ref.call else ""
    return part_name(f"{ref.layer}{call}{kind}", "quant")
