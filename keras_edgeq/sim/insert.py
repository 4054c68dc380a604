"""Insert the quantizers of a plan into a prepared model."""

from __future__ import annotations

import tf_keras

from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.graph.rebuild import clone, copy_weights, rebuild
from keras_edgeq.layers import FakeQuant, QuantizedLayer
from keras_edgeq.sim.quant_sim import QuantSim, SimRecord
from keras_edgeq.spec.quant_plan import QuantPlan
from keras_edgeq.spec.target_profile import TargetProfile
from keras_edgeq.spec.tensor_ref import TensorRef


def insert(prepared: tf_keras.Model, plan: QuantPlan, profile: TargetProfile) -> QuantSim:
    """Return an uncalibrated sim: the prepared model with the plan's quantizers.

    Layers keep their names; a quantizer is named after the tensor that owns its grid. A weighted
    layer is called with the scale of its input's grid, on which its bias grid rests.
    """
    reads = {(n.layer.name, n.call.number): n.inputs for n in LayerGraph(prepared).nodes}
    params: dict[str, dict] = {}
    for ref, spec in plan.specs.items():
        if ref.kind == "param":
            params.setdefault(ref.layer, {})[ref.param] = spec
    quantizers: dict[TensorRef, FakeQuant] = {}
    scales: dict[TensorRef, object] = {}
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
        tensor, scales[owner] = quantizer(owner)(tensor, **options)
        return tensor

    def on_layer(layer):
        if layer.name not in params:
            return None
        inner = clone(layer)
        copies.append((layer, inner))
        return QuantizedLayer(inner, params[layer.name])

    def on_call(call, new, args, kwargs):
        if isinstance(new, QuantizedLayer) and new.bias_spec is not None:
            owner = plan.owner(reads[call.layer.name, call.number][0])
            kwargs = {**kwargs, "input_scale": scales[owner]}
        return new(*args, **kwargs)

    sim = rebuild(prepared, on_layer, quantize, quantize, on_call, make=QuantSim)
    for old, new in copies:
        copy_weights(old, new)
    sim.record = SimRecord(profile, plan)
    return sim


def layer_name(ref: TensorRef) -> str:
    """Return the Keras layer name of the quantizer of a tensor."""
    kind = f".in{ref.index}" if ref.kind == "input" else f".out{ref.index}" if ref.index else ""
    return f"{ref.layer}{f'.call{ref.call}' if ref.call else ''}{kind}/quant"
