"""Count the multiply-accumulates of a TFLite file, and those that run in integers."""

from __future__ import annotations

from math import prod

from ai_edge_litert import schema_py_generated as schema

from keras_edgeq.runtime.tflite_file import Op, TfliteGraph

INTEGERS = (schema.TensorType.INT4, schema.TensorType.INT8, schema.TensorType.INT16)


def integer_share(content: bytes) -> float:
    """Return the share of multiply-accumulates of integers into an integer tensor, 0 to 1."""
    graph = TfliteGraph(content)
    total = integers = 0
    for op in graph.ops:
        count = macs(graph, op)
        if not count:
            continue
        total += count
        data = op.inputs[2 if op.name == "TRANSPOSE_CONV" else 0]
        if all(graph.tensors[i].type in INTEGERS for i in (data, op.inputs[1], op.outputs[0])):
            integers += count
    return integers / total if total else 1.0


def macs(graph: TfliteGraph, op: Op) -> int:
    """Return the multiply-accumulates of one op on one sample; 0 for what sums no products."""

    def shape(number: int) -> list[int]:
        return [int(size) for size in graph.tensors[number].shape]

    made = prod(shape(op.outputs[0]))
    if op.name in ("CONV_2D", "FULLY_CONNECTED"):
        return made * prod(shape(op.inputs[1])[1:])
    if op.name == "DEPTHWISE_CONV_2D":
        return made * prod(shape(op.inputs[1])[1:3])
    if op.name == "CONV_3D":
        return made * prod(shape(op.inputs[1])[:-1])
    if op.name == "TRANSPOSE_CONV":
        return prod(shape(op.inputs[2])) * prod(shape(op.inputs[1])[:3])
    if op.name == "BATCH_MATMUL":
        options = op.raw.builtinOptions
        return made * shape(op.inputs[0])[-2 if options.adjX else -1]
    return 0
