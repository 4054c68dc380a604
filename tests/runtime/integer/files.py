"""TFLite files of one operation, made by hand, so that every grid and option can be had."""

from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_edgeq.runtime.tflite_file import OP_CODES, quantization

TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "int4": schema.TensorType.INT4,
    "int8": schema.TensorType.INT8,
    "uint8": schema.TensorType.UINT8,
    "int16": schema.TensorType.INT16,
    "int32": schema.TensorType.INT32,
    "int64": schema.TensorType.INT64,
}


@dataclass
class T:
    """A tensor of the file: shape, type and grid, and its values where it is a constant."""

    shape: tuple
    dtype: str = "int8"
    scale: Any = None
    zero: Any = 0
    axis: int = 0
    data: Any = None


def constant(data, dtype=None, scale: Any = None, zero: Any = 0, axis=0):
    """Return a constant tensor."""
    data = np.asarray(data)
    return T(data.shape, dtype or data.dtype.name, scale, zero, axis, data)


def one_op(name, inputs, outputs, options=None, version=1):
    """Return a file with one operation; `options` is an options object of the schema."""
    model, graph, op, code = (
        schema.ModelT(),
        schema.SubGraphT(),
        schema.OperatorT(),
        schema.OperatorCodeT(),
    )
    empty = schema.BufferT()
    empty.data = None
    model.version, model.buffers, model.subgraphs = 3, [empty], [graph]
    code.builtinCode, code.version = OP_CODES[name], version
    code.deprecatedBuiltinCode = min(OP_CODES[name], 127)
    model.operatorCodes = [code]
    graph.tensors, op.inputs, op.outputs = [], [], []
    fed = []
    for given in inputs:
        if given is None:
            op.inputs.append(-1)
            continue
        op.inputs.append(_tensor(model, graph, given, f"in{len(op.inputs)}"))
        if given.data is None:
            fed.append(op.inputs[-1])
    for made in outputs:
        op.outputs.append(_tensor(model, graph, made, f"out{len(op.outputs)}"))
    op.opcodeIndex = 0
    if options is not None:
        kind = type(options).__name__.removesuffix("T")
        op.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        op.builtinOptions = options
    graph.operators, graph.inputs, graph.outputs = [op], fed, list(op.outputs)
    model.signatureDefs = [_signature(graph)]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def options(kind, **values):
    """Return an options object: `options("Conv2D", strideH=2)`."""
    made = getattr(schema, f"{kind}OptionsT")()
    for key, value in values.items():
        assert hasattr(made, key), key
        setattr(made, key, value)
    return made


def _tensor(model, graph, given, name):
    tensor = schema.TensorT()
    tensor.shape, tensor.hasRank = list(given.shape), True
    tensor.type, tensor.name, tensor.buffer = TYPES[given.dtype], name, 0
    if given.scale is not None:
        tensor.quantization = quantization(given.scale, given.zero, given.axis)
    if given.data is not None:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(_packed(given), np.uint8)
        model.buffers.append(buffer)
        tensor.buffer = len(model.buffers) - 1
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _packed(given):
    """Return the bytes of a constant; two int4 values share one, the first in its low half."""
    if given.dtype != "int4":
        return np.ascontiguousarray(given.data, given.dtype).tobytes()
    flat = np.ravel(given.data).astype(np.uint8) & 15
    flat = np.concatenate([flat, np.zeros(len(flat) % 2, np.uint8)])
    return (flat[::2] | flat[1::2] << 4).tobytes()


def _signature(graph):
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    signature.inputs, signature.outputs = [], []
    for numbers, maps in ((graph.inputs, signature.inputs), (graph.outputs, signature.outputs)):
        for number in numbers:
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = graph.tensors[number].name, number
            maps.append(entry)
    return signature
