"""An ONNX graph as a rewrite sees it, and the conversion of a marked sim into one."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from keras_edgeq.errors import ExportError
from keras_edgeq.export.marked import Found, Marker, MarkedModel
from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.layers import FakeQuant
from keras_edgeq.spec.tensor_ref import TensorRef

OPSET = 18
IR_VERSION = 8
QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"


class OnnxGraph:
    """Nodes and constants of a model, open for changes until `finish`.

    Attributes:
        nodes: in topological order.
        constants: initializers by name.
        inputs, outputs: tensor names of the graph's interface, which never change.
    """

    def __init__(self, model: ModelProto):
        self.model = model
        self.nodes = list(model.graph.node)
        self.constants = {c.name: numpy_helper.to_array(c) for c in model.graph.initializer}
        self.inputs = [value.name for value in model.graph.input]
        self.outputs = [value.name for value in model.graph.output]

    def producers(self) -> dict[str, NodeProto]:
        """Map every tensor that a node makes to the node."""
        return {name: node for node in self.nodes for name in node.output}

    def readers(self) -> dict[str, list[NodeProto]]:
        """Map every tensor to the nodes that read it; a node that holds a subgraph reads for it."""
        readers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(reads(node)):
                readers.setdefault(name, []).append(node)
        return readers

    def only_reader(self, tensor: str) -> NodeProto | None:
        """Return the node that reads `tensor` where it is the only one and `tensor` no output."""
        nodes = self.readers().get(tensor, [])
        return nodes[0] if len(nodes) == 1 and tensor not in self.outputs else None

    def before(self, tensors: Iterable[str], stop: Any = lambda node: False) -> list[NodeProto]:
        """Return the nodes that `tensors` are computed from; nodes where `stop` is true end it."""
        producers, found, open_ends = self.producers(), {}, list(tensors)
        while open_ends:
            node = producers.get(open_ends.pop())
            if node is not None and id(node) not in found:
                found[id(node)] = node
                if not stop(node):
                    open_ends.extend(reads(node))
        return list(found.values())

    def place_of(self, node: NodeProto) -> int:
        """Return the position of a node."""
        return next(i for i, other in enumerate(self.nodes) if other is node)

    def rename(self, old: str, new: str) -> None:
        """Rename a tensor wherever it is made or read."""
        if old in self.constants:
            self.constants[new] = self.constants.pop(old)
        for node in self.nodes:
            _exchange(node.output, old, new)
        self.redirect(old, new)

    def redirect(self, old: str, new: str) -> None:
        """Let every reader of `old` read `new`."""
        for node in self.nodes:
            for inner in _with_subgraphs(node):
                _exchange(inner.input, old, new)

    def bypass(self, node: NodeProto) -> None:
        """Take out a node, so that its readers read what it read."""
        source, result = node.input[0], node.output[0]
        place = self.place_of(node)
        del self.nodes[place]
        if result not in self.outputs:
            self.redirect(result, source)
        elif source in self.inputs + self.outputs:
            self.nodes.insert(place, helper.make_node("Identity", [source], [result], name=result))
        else:
            self.rename(source, result)

    def free_name(self, wanted: str) -> str:
        """Return `wanted`, with a number where a tensor has that name already."""
        taken = {*self.constants, *self.inputs, *self.producers(), *self.readers()}
        number, name = 1, wanted
        while name in taken:
            number, name = number + 1, f"{wanted}#{number + 1}"
        return name

    def finish(self, opset: int = OPSET, ir_version: int = IR_VERSION) -> ModelProto:
        """Drop what nothing reads, and return the checked model.

        Raises:
            ExportError: the graph is not valid ONNX.
        """
        used = set(self.outputs)
        kept = []
        for node in reversed(self.nodes):
            if used.intersection(node.output):
                kept.append(node)
                used.update(reads(node))
        graph = self.model.graph
        for field in (graph.node, graph.initializer, graph.value_info):
            del field[:]
        graph.node.extend(reversed(kept))
        graph.initializer.extend(
            numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)
            for name, value in self.constants.items()
            if name in used
        )
        self.model.ir_version = ir_version
        self.model.producer_name, self.model.producer_version = "keras_edgeq", ""
        self.model.doc_string = graph.doc_string = ""
        del self.model.opset_import[:], self.model.metadata_props[:]
        self.model.opset_import.append(helper.make_opsetid("", opset))
        try:
            onnx.checker.check_model(self.model, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise ExportError(f"The ONNX graph of the sim is not valid: {error}") from error
        return self.model


@dataclass(frozen=True, eq=False)
class MarkedGraph:
    """A converted sim: the graph, and where quantizers and parameters are in it.

    Args:
        graph: the converter's output.
        marked: the key to its markers and fingerprints.
        names: marker id -> the tensor that is quantized there.
        params: initializer name -> the parameter it holds.
        ranks: tensor name -> number of axes, where it is known.
    """

    graph: OnnxGraph
    marked: MarkedModel
    names: dict[int, TensorRef]
    params: dict[str, Found]
    ranks: dict[str, int]

    def marker_id(self, node: NodeProto) -> int | None:
        """Return the id of a marker's QuantizeLinear or DequantizeLinear, None for others."""
        if node.op_type not in (QUANTIZE, DEQUANTIZE):
            return None
        scale = self.graph.constants.get(node.input[1])
        if scale is None or scale.ndim or not float(scale).is_integer():
            return None
        return int(scale) if int(scale) in self.marked.markers else None

    def marker(self, number: int) -> Marker:
        """Return the marker of an id."""
        return self.marked.markers[number]


def convert(marked: MarkedModel) -> MarkedGraph:
    """Convert a marked sim to ONNX and find its markers and parameters in the result.

    Raises:
        ExportError: an operation has no ONNX form, or the converter lost a tensor.
    """
    graph = OnnxGraph(_tf2onnx(marked))
    unknown = sorted({n.op_type for n in graph.nodes if not onnx.defs.has(n.op_type, n.domain)})
    if unknown:
        raise ExportError(f"The model uses operations that ONNX does not have: {unknown}.")
    _fold_shapes(graph)
    result = MarkedGraph(
        graph, marked, _quantized_tensors(marked), _find_params(graph, marked), _ranks(graph.model)
    )
    _name_batch(graph.model, marked)
    _remove_copies(result)
    _check_complete(result)
    return result


def reads(node: NodeProto) -> Iterator[str]:
    """Yield what a node reads, its subgraphs included."""
    for inner in _with_subgraphs(node):
        yield from (name for name in inner.input if name)
        for graph in _subgraphs(inner):
            yield from (value.name for value in graph.output)


def attributes(node: NodeProto) -> dict[str, Any]:
    """Return a node's attributes as Python values."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _subgraphs(node: NodeProto) -> list[GraphProto]:
    return [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]


def _with_subgraphs(node: NodeProto) -> Iterator[NodeProto]:
    yield node
    for graph in _subgraphs(node):
        for inner in graph.node:
            yield from _with_subgraphs(inner)


def _exchange(names, old: str, new: str) -> None:
    for i, name in enumerate(names):
        if name == old:
            names[i] = new


class _Traced:
    """What tf2onnx takes for a `tf.function`."""

    def __init__(self, concrete):
        self.get_concrete_function = lambda *_: concrete


def _tf2onnx(marked: MarkedModel) -> ModelProto:
    from tf2onnx import convert as tf2onnx_convert

    with _quiet("tf2onnx", "tensorflow"):
        try:
            function: Any = _Traced(marked.function())
            return tf2onnx_convert.from_function(function, input_signature=[], opset=OPSET)[0]
        except ExportError:
            raise
        except Exception as error:  # tf2onnx raises whatever its handlers meet
            raise ExportError(f"tf2onnx cannot convert the model: {error}") from error


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _fold_shapes(graph: OnnxGraph) -> None:
    """Compute the shape of a constant, which a converter leaves beside a weight."""
    for node in [n for n in graph.nodes if n.op_type == "Shape" and n.input[0] in graph.constants]:
        if not node.attribute:
            shape = np.array(graph.constants[node.input[0]].shape, np.int64)
            del graph.nodes[graph.place_of(node)]
            graph.constants[node.output[0]] = shape


def _find_params(graph: OnnxGraph, marked: MarkedModel) -> dict[str, Found]:
    """Return the constants that hold all of one parameter; less is chance."""
    used = graph.readers()
    found = {name: marked.find(value) for name, value in graph.constants.items() if name in used}
    return {
        name: hit
        for name, hit in found.items()
        if hit is not None and hit.index.size == hit.param.values.size == np.unique(hit.index).size
    }


def _ranks(model: ModelProto) -> dict[str, int]:
    """Return the rank of each tensor whose shape can be inferred."""
    bare = ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    graph = onnx.shape_inference.infer_shapes(bare).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    return {
        v.name: len(v.type.tensor_type.shape.dim)
        for v in values
        if v.type.tensor_type.HasField("shape")
    }


def _name_batch(model: ModelProto, marked: MarkedModel) -> None:
    """Call a free first axis `batch` in inputs and outputs."""
    sim = marked.sim
    shapes = dict(zip(marked.inputs, (t.shape for t in sim.inputs), strict=True))
    shapes.update(zip(marked.outputs, (t.shape for t in sim.outputs), strict=True))
    for value in [*model.graph.input, *model.graph.output]:
        dims, shape = value.type.tensor_type.shape.dim, shapes[value.name]
        for axis, dim in enumerate(dims):
            if shape.rank == len(dims) and shape[axis] is not None:
                dim.dim_value = int(shape[axis])
            else:
                dim.dim_param = "batch" if axis == 0 else f"{value.name}_{axis}"


def _remove_copies(result: MarkedGraph) -> None:
    """Take out markers that the converter repeated on data that passed the first already."""
    graph = result.graph
    numbers = [result.marker_id(node) for node in graph.nodes if node.op_type == QUANTIZE]
    for number in {n for n in numbers if n is not None and numbers.count(n) > 1}:
        own = [n for n in graph.nodes if result.marker_id(n) == number]
        first = next(n for n in own if n.op_type == DEQUANTIZE)
        for node in own:
            if any(other is first for other in graph.before(node.input[:1])):
                graph.bypass(node)


def _check_complete(result: MarkedGraph) -> None:
    there = {result.marker_id(node) for node in result.graph.nodes}
    lost = [str(ref) for number, ref in result.names.items() if number not in there]
    held = {found.param.ref for found in result.params.values()}
    layers = result.marked.sim.quantized_layers().values()
    lost += [
        f"{layer.name}/{name}"
        for layer in layers
        for name in [*layer.quantizers, *(["bias"] if layer.bias_spec else [])]
        if TensorRef(layer.name, "param", param=name) not in held
    ]
    if lost:
        raise ExportError(
            f"The ONNX converter left no trace of {', '.join(lost)}; the file would not compute "
            "what the sim does. Give these layers float precision, or export another format."
        )


def _quantized_tensors(marked: MarkedModel) -> dict[int, TensorRef]:
    """Name what each marker quantizes; one that requantizes for a reader is that reader's input."""
    graph, names = LayerGraph(marked.sim), {}
    quantizers = [node for node in graph.nodes if isinstance(node.layer, FakeQuant)]
    plan = marked.sim.record.plan
    for number, node in enumerate(quantizers, start=1):
        ref = node.inputs[0]
        readers = graph.consumers(node.outputs[0])
        if str(plan.owner(ref)) != node.layer.tensor and readers:
            ref = readers[0].call.input_ref(readers[0].inputs.index(node.outputs[0]))
        names[number] = ref
    return names
