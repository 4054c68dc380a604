"""Insert the quantizers of a plan into a prepared model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tf_keras

from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.graph.rebuild import clone, copy_weights, rebuild
from keras_edgeq.layers import FakeQuant, QuantizedLayer
from keras_edgeq.sim.quant_sim import QuantSim, SimRecord
from keras_edgeq.spec.quant_plan import QuantPlan
from keras_edgeq.spec.target_profile import TargetProfile
from keras_edgeq.spec.tensor_ref import TensorRef, part_name


def insert(
    prepared: tf_keras.Model, plan: QuantPlan, profile: TargetProfile, output_names: Sequence[str]
) -> QuantSim:
    """Return an uncalibrated sim: the prepared model with the plan's quantizers.

    Layers keep their names; a quantizer is named after the tensor that owns its grid. A weighted
    layer reads the steps of its input's quantizer where it stands right behind one, and the scale.
    """
    reads = {(n.layer.name, n.call.number): n.inputs for n in LayerGraph(prepared).nodes}
    params: dict[str, dict] = {}
    for ref, spec in plan.specs.items():
        if ref.kind == "param":
            params.setdefault(ref.layer, {})[ref.param] = spec
    quantizers: dict[TensorRef, FakeQuant] = {}
    scales: dict[TensorRef, Any] = {}
    steps: dict[int, tuple] = {}
    copies = []

    def quantizer(owner: TensorRef) -> FakeQuant:
        if owner not in quantizers:
            quantizers[owner] = FakeQuant(plan.specs[owner], str(owner), name=layer_name(owner))
        return quantizers[owner]

    def quantize(ref: TensorRef, tensor):
        owner = ref if ref in plan.specs else plan.shared.get(ref)
        if owner is None:
            return tensor
        options = {"half_away": True} if ref in plan.half_away else {}
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
        if not isinstance(new, QuantizedLayer) or not new.sums_integers:
            return new(*args, **kwargs)
        owner = plan.owner(reads[call.layer.name, call.number][0])
        if id(args[0]) in steps:
            return new(steps[id(args[0])][1], input_scale=scales[owner], in_steps=True)
        return new(args[0], input_scale=scales[owner])

    sim = rebuild(prepared, on_layer, quantize, quantize, on_call, make=QuantSim)
    for old, new in copies:
        copy_weights(old, new)
    sim.attach(SimRecord(profile, plan, tuple(output_names)))
    return sim


def layer_name(ref: TensorRef) -> str:
    """Return the Keras layer name of the quantizer of a tensor."""
    kind = f".in{ref.index}" if ref.kind == "input" else f".out{ref.index}" if ref.index else ""
    call = f".call{ref.call}" if ref.call else ""
    return part_name(f"{ref.layer}{call}{kind}", "quant")
