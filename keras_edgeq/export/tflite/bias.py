"""Bring biases that the converter left in an ADD of their own back into the op they belong to."""

from __future__ import annotations

from collections import Counter

from keras_edgeq.export.fingerprints import Found
from keras_edgeq.export.marked import MarkedModel
from keras_edgeq.export.tflite.kernels import WEIGHTED
from keras_edgeq.runtime.tflite_file import Op, TfliteGraph

# Ops between a kernel and its bias that keep channels together.
BETWEEN = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "BATCH_TO_SPACE_ND")
TRANSPOSE_CONV_WITH_ACTIVATION = 4


def join_biases(graph: TfliteGraph, marked: MarkedModel) -> None:
    """Move `ADD(reshape(conv(x)), bias)` to `reshape(conv(x) + bias)`, with its activation.

    One-dimensional and transposed convolutions come out of the converter that way, and no integer
    kernel adds an int32 bias outside.
    """
    makers = {out: op for op in graph.ops for out in op.outputs}
    reads = Counter(i for op in graph.ops for i in op.inputs)
    alias: dict[int, int] = {}
    kept: list[Op] = []
    for op in graph.ops:
        op.inputs = [alias.get(i, i) for i in op.inputs]
        if not _joined(graph, marked, makers, reads, op):
            kept.append(op)
            continue
        alias[op.outputs[0]] = op.inputs[0]
    graph.ops = kept
    graph.set_signature({}, {i: alias.get(i, i) for i in graph.outputs})


def _joined(graph, marked, makers, reads, op) -> bool:
    """Move the bias of one ADD; False if it is not a bias."""
    if op.name != "ADD":
        return False
    constant = graph.constant(op.inputs[1])
    bias = None if constant is None else marked.fingerprints.find(constant)
    if constant is None or bias is None or not _is_bias(bias):
        return False
    maker, tensor = makers.get(op.inputs[0]), op.inputs[0]
    while maker is not None and maker.name in BETWEEN and reads[tensor] == 1:
        tensor = maker.inputs[0]
        maker = makers.get(tensor)
    if maker is None or maker.name not in WEIGHTED or reads[tensor] != 1:
        return False
    kernel = WEIGHTED[maker.name]
    weight = graph.constant(maker.inputs[kernel.weight])
    found = None if weight is None else marked.fingerprints.find(weight)
    if weight is None or found is None or found.param.ref.layer != bias.param.ref.layer:
        return False
    if constant.size != weight.shape[kernel.axis]:
        return False
    maker.inputs += [-1] * (kernel.bias + 1 - len(maker.inputs))
    maker.inputs[kernel.bias] = graph.add_constant(constant.ravel(), graph.name(op.inputs[1]))
    activation = op.raw.builtinOptions.fusedActivationFunction
    if activation:
        maker.raw.builtinOptions.fusedActivationFunction = activation
        if maker.name == "TRANSPOSE_CONV":
            maker.version = max(maker.version, TRANSPOSE_CONV_WITH_ACTIVATION)
    return True


def _is_bias(found: Found) -> bool:
    """Tell a bias, whose grid follows from its use or is half precision, from a weight."""
    encoding = found.param.encoding
    return encoding is None or (encoding.spec.is_half and found.param.ref.param == "bias")
