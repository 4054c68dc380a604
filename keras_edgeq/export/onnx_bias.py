"""Biases in ONNX: into the operation they belong to, and on the grid of its accumulator."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import NodeProto

from keras_edgeq.errors import ExportError
from keras_edgeq.export.marked import Found
from keras_edgeq.export.onnx_graph import MarkedGraph, attributes, reads
from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.layers.layer_traits import weight_trait
from keras_edgeq.sim.quant_sim import QuantSim

# A bias may be added before these as well as after: they keep every element and its channel.
RESHAPES = ("Squeeze", "Unsqueeze", "Reshape")


class BiasScales:
    """The grids of biases: input scale times weight scale, in float32 as the sim computes them."""

    def __init__(self, converted: MarkedGraph, sim: QuantSim):
        self.converted = converted
        self.layers = sim.quantized_layers()
        graph = LayerGraph(sim)
        self.input_scales = {
            name: [_input_scale(node) for node in graph.calls_of(layer)]
            for name, layer in self.layers.items()
        }

    def input_scale(self, node: NodeProto, found: Found) -> float | None:
        """Return the scale of the data that meets a bias in `node`; None keeps the bias float.

        A layer that is called on several grids has a bias on each; then the nearest markers
        before `node` tell the call.
        """
        scales = set(self.input_scales[found.param.ref.layer])
        if len(scales) > 1:
            ends = self.converted.graph.before(
                reads(node), stop=lambda n: self.converted.marker_id(n) is not None
            )
            numbers = {self.converted.marker_id(n) for n in ends} - {None}
            met = {float(self.converted.marker(n).encoding.scale) for n in numbers if n}

            scales &= met
        if len(scales) != 1:
            raise ExportError(
                f"Layer {found.param.ref.layer!r} is called on several grids and its calls cannot "
                "be told apart in the ONNX graph; give each call a layer of its own."
            )
        return scales.pop()

    def bias_scale(self, found: Found, input_scale: float) -> np.ndarray:
        """Return the bias scale of every element, in the constant's layout."""
        layer = self.layers[found.param.ref.layer]
        kernel_scale = layer.quantizers[layer.kernel_name].scale.numpy()
        shape = found.param.values.shape if kernel_scale.ndim else ()
        scale = np.float32(input_scale) * kernel_scale.reshape(shape)
        return np.broadcast_to(scale, found.param.values.shape).ravel()[found.index]


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
                data = [name for name in add.input if name != names[0]]
                add.input[:] = data
                graph.bypass(add)


def _is_bias(converted: MarkedGraph, name: str) -> bool:
    found = converted.params.get(name)
    return found is not None and found.param.encoding is None


def _product_of(converted: MarkedGraph, add: NodeProto, bias: str) -> NodeProto | None:
    """Return the operation whose result, only reshaped, meets its layer's bias in `add`."""
    graph = converted.graph
    producers = graph.producers()
    tensor = next(name for name in add.input if name != bias)
    node = producers.get(tensor)
    while node is not None and graph.only_reader(node.output[0]) is not None:
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
    trait: Any = weight_trait(layer)
    places = np.unravel_index(np.moveaxis(weight.index, axis, 0), weight.param.values.shape)
    shape = [weight.param.values.shape[a] for a in trait.axes]
    channel = np.ravel_multi_index([places[a] for a in trait.axes], shape)
    wanted = np.arange(found.param.values.size).reshape(-1, *[1] * (channel.ndim - 1))
    return channel.shape[0] == wanted.shape[0] and bool(np.all(channel == wanted))


# Axis of the weight that runs over output channels, of operations that take a bias.
CHANNEL_AXIS = {
    "Conv": lambda _: 0,
    "MatMul": lambda _: 1,
    "Gemm": lambda options: 0 if options.get("transB") else 1,
}


def _take_bias(converted: MarkedGraph, node: NodeProto, bias: str) -> None:
    graph, found = converted.graph, converted.params[bias]
    flat = graph.free_name(f"{bias}/flat")
    order = np.arange(found.index.size)
    fingerprints = graph.constants[bias].ravel()[np.argsort(found.index.ravel())][order]
    graph.constants[flat] = fingerprints
    converted.params[flat] = Found(found.param, order)
    if node.op_type == "MatMul":
        node.op_type = "Gemm"
    node.input.append(flat)
    kept = [a for a in node.attribute if a.name not in ("beta",)]
    del node.attribute[:]
    node.attribute.extend(kept)


def _input_scale(node) -> float | None:
    scale = node.call.node.call_kwargs.get("input_scale")
    if scale is None:
        return None
    return float(keras_compat.producer(scale)[0].scale.numpy())
