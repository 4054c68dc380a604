"""Convert a marked sim to ONNX and read the result back."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import onnx
import tensorflow as tf
from onnx import ModelProto, NodeProto, numpy_helper

from keras_edgeq.errors import ExportError
from keras_edgeq.export.fingerprints import Found
from keras_edgeq.export.foreign import WAY_OUT, by_layer
from keras_edgeq.export.marked import MarkedModel, Marker
from keras_edgeq.export.onnx.canonical import make_canonical
from keras_edgeq.export.onnx.forms import (
    constant_shapes,
    modern_resizes,
    positive_pads,
    whole_strides,
    without_fences,
)
from keras_edgeq.export.onnx.graph import DEQUANTIZE, OPSET, QUANTIZE, OnnxGraph
from keras_edgeq.export.onnx.handlers import handlers
from keras_edgeq.layers.swap import LOCK
from keras_edgeq.spec.tensor_ref import TensorRef


@dataclass(frozen=True, eq=False)
class MarkedGraph:
    """A converted sim: the graph, and where quantizers and parameters are in it.

    Args:
        graph: the converter's output.
        marked: the key to its markers and fingerprints.
        numbers: `id` of a QuantizeLinear or DequantizeLinear node -> its marker's id.
        params: initializer name -> the parameter it holds.
        ranks: tensor name -> number of axes, where it is known.
    """

    graph: OnnxGraph
    marked: MarkedModel
    numbers: dict[int, int]
    params: dict[str, Found]
    ranks: dict[str, int]

    def marker(self, node: NodeProto) -> Marker | None:
        """Return the marker a node is part of, None for others."""
        number = self.numbers.get(id(node))
        return None if number is None else self.marked.markers[number]

    def pairs(self) -> Iterator[tuple[Marker, list[NodeProto]]]:
        """Yield each marker with its nodes in topological order."""
        nodes: dict[int | None, list[NodeProto]] = {}
        for node in self.graph.nodes:
            nodes.setdefault(self.numbers.get(id(node)), []).append(node)
        for number, marker in self.marked.markers.items():
            yield marker, nodes.get(number, [])


def convert(marked: MarkedModel) -> MarkedGraph:
    """Convert a marked sim to ONNX and find its markers and parameters in the result.

    Raises:
        ExportError: an operation has no ONNX form, or the converter lost a tensor.
    """
    model = _tf2onnx(marked)
    make_canonical(model, marked.inputs, marked.outputs)
    graph = OnnxGraph(model)
    unknown = [node for node in graph.nodes if not onnx.defs.has(node.op_type, node.domain)]
    if unknown:
        layers = by_layer(marked.sim, {node.name: node.op_type for node in unknown})
        raise ExportError(f"ONNX does not have the operations of {layers}. {WAY_OUT}")
    without_fences(graph)
    constant_shapes(graph)
    _undo_negations(graph, marked)
    modern_resizes(graph)
    positive_pads(graph)
    whole_strides(graph)
    _name_batch(graph.model, marked)
    numbers, params = _find_markers(graph, marked), _find_params(graph, marked)
    result = MarkedGraph(graph, marked, numbers, params, _ranks(graph.model))
    _check_complete(result)
    _remove_copies(result)
    return result


class _Traced:
    """What tf2onnx takes for a `tf.function`."""

    def __init__(self, concrete: Any):
        self.get_concrete_function = lambda *_: concrete


def _tf2onnx(marked: MarkedModel) -> ModelProto:
    from tf2onnx import convert as tf2onnx_convert

    with _quiet("tf2onnx", "tensorflow"), _inlined_functions(), _both_pads():
        concrete = marked.function()
        function: Any = _Traced(concrete)
        try:
            model, _ = tf2onnx_convert.from_function(
                function, input_signature=[], opset=OPSET, custom_op_handlers=handlers()
            )
        except Exception as error:  # the handlers of tf2onnx raise all kinds of errors
            # It names the node: "tensorflow op [layer/op: Conv2D] is not supported" and alike.
            found = re.findall(r"([\w./-]+/[\w./-]+)", str(error))
            where = f" at {by_layer(marked.sim, dict.fromkeys(found[:1], 'see below'))}"
            raise ExportError(
                f"tf2onnx cannot convert the model{where if found else ''}: {error} {WAY_OUT}"
            ) from error
    _captured_to_constants(model, concrete)
    return model


@contextmanager
def _inlined_functions() -> Iterator[None]:
    """Trace what Keras compiles by XLA (grouped convolutions) op by op, as a converter needs it."""
    with LOCK:  # the switch is one for all threads
        before = tf.config.functions_run_eagerly()
        tf.config.run_functions_eagerly(True)
        try:
            yield
        finally:
            tf.config.run_functions_eagerly(before)


@contextmanager
def _both_pads() -> Iterator[None]:
    """Keep tf2onnx from merging a Pad into a convolution that pads by itself, which loses one.

    It looks for padding "SAME"; a convolution with a dilation has explicit numbers by then.
    """
    from tf2onnx import tfonnx

    merge = tfonnx.rewrite_conv2d_with_pad

    def merge_into_unpadded(graph: Any, nodes: Any) -> Any:
        merge(graph, [n for n in nodes if not any(n.get_attr_value("explicit_paddings") or ())])
        return nodes

    with LOCK, mock.patch.object(tfonnx, "rewrite_conv2d_with_pad", merge_into_unpadded):
        yield


def _captured_to_constants(model: ModelProto, concrete: Any) -> None:
    """Make initializers of the constants of op layers, which arrive as more inputs."""
    values = {
        placeholder.name: value.numpy()
        for value, placeholder in concrete.graph.captures
        if placeholder.dtype != tf.resource
    }
    inputs = [value for value in model.graph.input if value.name not in values]
    captured = [value.name for value in model.graph.input if value.name in values]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(values[name]), name) for name in captured
    )


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


def _undo_negations(graph: OnnxGraph, marked: MarkedModel) -> None:
    """Store `w` and a Neg where the converter computed `-w` of a parameter (PReLU does)."""
    for name, value in list(graph.constants.items()):
        if (
            value.dtype == np.float32
            and value.ndim
            and marked.fingerprints.find(-value) is not None
        ):
            positive = graph.add_constant(f"{name}/positive", -value)
            del graph.constants[name]
            graph.nodes.insert(0, graph.node("Neg", [positive], name))


def _find_markers(graph: OnnxGraph, marked: MarkedModel) -> dict[int, int]:
    """Map `id` of each marker's node to the marker's id, which is its scale."""
    numbers = {}
    for node in graph.nodes:
        if node.op_type in (QUANTIZE, DEQUANTIZE):
            scale = graph.constants.get(node.input[1])
            if scale is not None and not scale.ndim and float(scale) in marked.markers:
                numbers[id(node)] = int(scale)
    return numbers


def _find_params(graph: OnnxGraph, marked: MarkedModel) -> dict[str, Found]:
    """Return the constants that hold all of one parameter; less is chance."""
    used = graph.readers()
    found = {
        name: marked.fingerprints.find(value)
        for name, value in graph.constants.items()
        if name in used
    }
    return {
        name: hit
        for name, hit in found.items()
        if hit is not None
        and hit.index.size == hit.param.values.size
        and np.all(np.bincount(hit.index.ravel(), minlength=1) == 1)
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
    for _, nodes in result.pairs():
        first = next(node for node in nodes if node.op_type == DEQUANTIZE)
        for node in nodes if len(nodes) > 2 else []:
            if any(other is first for other in graph.before(node.input[:1])):
                graph.bypass(node)


def _check_complete(result: MarkedGraph) -> None:
    lost = [str(marker.ref) for marker, nodes in result.pairs() if len(nodes) < 2]
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
