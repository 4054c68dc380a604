"""Export a sim as the float ONNX model that an encodings file describes."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import ModelProto, TensorProto

from keras_edgeq.errors import ExportError
from keras_edgeq.export.marked import MarkedModel
from keras_edgeq.export.onnx.carriers import PAIRED, SEEN_THROUGH
from keras_edgeq.export.onnx.convert import MarkedGraph, convert
from keras_edgeq.export.onnx.graph import DEQUANTIZE, OnnxGraph
from keras_edgeq.export.onnx.order import move_activations, move_biases
from keras_edgeq.plan.quant_plan import QuantPlan
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.spec.tensor_ref import TensorRef


def to_onnx_float(sim: QuantSim) -> tuple[ModelProto, dict[TensorRef, str]]:
    """Return the sim's float model in ONNX, and what its tensors are called there.

    Nothing is rounded: weights are the values before rounding, because encodings describe the
    rounding. Inputs and outputs keep their Keras names. Other tensors of the sim are called as the
    sim calls them (`conv1`, `conv1/kernel`) unless the name is taken.

    Returns:
        `(model, names)`, names by tensor of the sim; parameters are initializers.

    Raises:
        ExportError: a tensor has no grid yet, an operation has no ONNX form, or the converter
            lost a tensor.
    """
    converted = convert(MarkedModel(sim))
    move_biases(converted)
    move_activations(converted.graph)
    names = {**_restore_params(converted), **_remove_markers(converted)}
    return converted.graph.finish(), names


def absent_tensors(
    model: ModelProto, sim: QuantSim, names: Mapping[TensorRef, str]
) -> dict[str, str]:
    """Return the float activations of `to_onnx_float` that have no encoding, and why."""
    encoded = {name: ref for ref, name in names.items() if ref.kind != "param"}
    graph, plan = OnnxGraph(model), sim.record.plan
    on_grid = _carried(graph, encoded, plan)
    leads_to: dict[str, TensorRef] = {}
    for node in reversed(graph.nodes):
        found = [tensors.get(name) for tensors in (encoded, leads_to) for name in node.output]
        after = [ref for ref in found if ref is not None]
        if after:
            leads_to.update(dict.fromkeys(node.input, after[0]))
    return {
        name: _reason(on_grid.get(name), leads_to.get(name), plan.floats)
        for name in _float_tensors(model)
        if name not in encoded
    }


def _carried(
    graph: OnnxGraph, encoded: Mapping[str, TensorRef], plan: QuantPlan
) -> dict[str, TensorRef]:
    """Return a tensor of the same grid for each tensor that lies on one."""
    found = dict(encoded)
    for node in graph.nodes:
        count = {**SEEN_THROUGH, **PAIRED}.get(node.op_type, 0)
        inputs = node.input[:count] if count != 0 else []
        refs = [found[name] for name in inputs if name in found]
        if refs and len(refs) == len(inputs) and len({plan.owner(ref) for ref in refs}) == 1:
            for name in node.output:
                found.setdefault(name, refs[0])
    return found


def _reason(carried: TensorRef | None, reader: TensorRef | None, floats: Mapping[str, str]) -> str:
    if carried is not None:
        return f"lies on the grid of {carried}"
    if reader is None:
        return "float: no integer operation reads it"
    if reader.layer in floats:
        return f"inside float layer {reader.layer}: {floats[reader.layer]}"
    return f"fused inside {reader}"


def _float_tensors(model: ModelProto) -> list[str]:
    """Return the float tensors that the graph is fed or makes."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = [*graph.input, *graph.value_info, *graph.output]
    return [v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT]


def _restore_params(converted: MarkedGraph) -> dict[TensorRef, str]:
    graph, names = converted.graph, {}
    for name, found in converted.params.items():
        ref = found.param.ref
        if name not in graph.readers():
            continue
        if ref in names:
            raise ExportError(
                f"The ONNX graph holds {ref} twice, so no single encoding describes it; give each "
                "call of the layer a layer of its own."
            )
        graph.constants[name] = found.values
        names[ref] = _call(graph, name, ref)
    return names


def _remove_markers(converted: MarkedGraph) -> dict[TensorRef, str]:
    """Take out the pairs; a tensor that is quantized twice is copied, to have a name for each."""
    graph, names = converted.graph, {}
    for marker, nodes in converted.pairs():
        for node in nodes:
            source, result = node.input[0], node.output[0]
            again = source in names.values() and marker.ref not in names
            if node.op_type == DEQUANTIZE and again:
                graph.nodes[graph.place_of(node)] = graph.node("Identity", [source], result)
                names[marker.ref] = _call(graph, result, marker.ref)
                continue
            graph.bypass(node)
            if node.op_type == DEQUANTIZE and marker.ref not in names:
                made = {*graph.inputs, *graph.producers()}
                names[marker.ref] = _call(graph, source if source in made else result, marker.ref)
    return names


def _call(graph: OnnxGraph, name: str, ref: TensorRef) -> str:
    """Rename a tensor after `ref` where that is possible, and return its name."""
    wanted = str(ref)
    if name in graph.inputs + graph.outputs or graph.free_name(wanted) != wanted:
        return name
    graph.rename({name: wanted})
    return wanted
