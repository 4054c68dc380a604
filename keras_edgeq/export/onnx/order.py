"""Bring a layer's bias and activation next to its operation, where runtimes look for them.

tf2onnx puts the reshapes of a Conv1D or of a Dense on higher ranks between them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import NodeProto

from keras_edgeq.export.fingerprints import Found
from keras_edgeq.export.onnx.convert import MarkedGraph
from keras_edgeq.export.onnx.graph import OnnxGraph, attributes
from keras_edgeq.ops import weights_of

# A bias may be added before these as well as after: they keep every element and its channel.
RESHAPES = ("Squeeze", "Unsqueeze", "Reshape")

# Axis of the weight that runs over output channels, of operations that take a bias.
CHANNEL_AXIS = {
    "Conv": lambda _: 0,
    "MatMul": lambda _: 1,
    "Gemm": lambda options: 0 if options.get("transB") else 1,
}


def move_biases(converted: MarkedGraph) -> None:
    """Make a bias that is added later the bias input of its convolution or matrix product.

    Runtimes have integer kernels for an operation with its bias, not for the addition.
    """
    graph = converted.graph
    for add in [node for node in graph.nodes if node.op_type == "Add"]:
        names = [name for name in add.input if _is_bias(converted, name)]
        if len(names) == 1:
            product = _product_of(converted, add, names[0])
            if product is not None:
                _take_bias(converted, product, names[0])
                add.input[:] = [name for name in add.input if name != names[0]]
                graph.bypass(add)


def move_activations(graph: OnnxGraph) -> None:
    """Put a Relu or Clip before the reshape it reads; the numbers are the same."""
    moved = True
    while moved:
        moved = False
        producers, readers = graph.producers(), graph.readers()
        for node in [n for n in graph.nodes if n.op_type in ("Relu", "Clip")]:
            reshape = producers.get(node.input[0])
            if reshape is None or reshape.op_type not in RESHAPES:
                continue
            if graph.only_reader(node.input[0], readers) is node:
                _exchange_order(graph, reshape, node)
                moved = True


def _exchange_order(graph: OnnxGraph, first: NodeProto, second: NodeProto) -> None:
    source, middle, result = first.input[0], first.output[0], second.output[0]
    places = sorted((graph.place_of(first), graph.place_of(second)))
    # The reshape may read a shape computed in between, so it moves down, and the other stays up.
    first.input[0], first.output[0] = middle, result
    second.input[0], second.output[0] = source, middle
    for place, node in zip(places, (second, first), strict=True):
        graph.nodes[place] = node


def _is_bias(converted: MarkedGraph, name: str) -> bool:
    found = converted.params.get(name)
    return found is not None and found.param.is_bias


def _product_of(converted: MarkedGraph, add: NodeProto, bias: str) -> NodeProto | None:
    """Return the operation whose result, only reshaped, meets its layer's bias in `add`."""
    graph = converted.graph
    producers, readers = graph.producers(), graph.readers()
    tensor = next(name for name in add.input if name != bias)
    node = producers.get(tensor)
    while node is not None and graph.only_reader(node.output[0], readers) is not None:
        if node.op_type not in RESHAPES:
            return node if _can_take(converted, node, bias) else None
        node = producers.get(node.input[0])
    return None


def _can_take(converted: MarkedGraph, node: NodeProto, bias: str) -> bool:
    """Tell whether `node` is the bias's layer, with the bias's order of channels."""
    if node.op_type not in CHANNEL_AXIS or len(node.input) != 2:
        return False
    weight, found = converted.params.get(node.input[1]), converted.params[bias]
    if weight is None or weight.param.ref.layer != found.param.ref.layer:
        return False
    if node.op_type == "MatMul" and converted.ranks.get(node.input[0]) != 2:
        return False
    axis = CHANNEL_AXIS[node.op_type](attributes(node))
    layer = converted.marked.sim.quantized_layers()[weight.param.ref.layer].layer
    trait: Any = weights_of(layer)
    places = np.unravel_index(np.moveaxis(weight.index, axis, 0), weight.param.values.shape)
    channel = np.zeros(1, np.int64)
    for a in trait.axes:
        channel = channel * weight.param.values.shape[a] + places[a]
    wanted = np.arange(found.param.values.size).reshape(-1, *[1] * (channel.ndim - 1))
    return channel.shape[0] == wanted.shape[0] and bool(np.all(channel == wanted))


def _take_bias(converted: MarkedGraph, node: NodeProto, bias: str) -> None:
    graph, found = converted.graph, converted.params[bias]
    flat = f"{bias}/flat"
    if flat not in converted.params:  # another call of the layer may have made it
        graph.constants[flat] = graph.constants[bias].ravel()[np.argsort(found.index, axis=None)]
        converted.params[flat] = Found(found.param, np.arange(found.index.size))
    if node.op_type == "MatMul":
        node.op_type = "Gemm"
    node.input.append(flat)
    kept = [a for a in node.attribute if a.name != "beta"]
    del node.attribute[:]
    node.attribute.extend(kept)
