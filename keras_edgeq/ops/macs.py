"""How many multiplications a layer does for one sample."""

from __future__ import annotations

from math import prod
from typing import Any

from keras_edgeq.errors import UnsupportedModelError
from keras_edgeq.graph.layer_graph import GraphNode, LayerGraph
from keras_edgeq.ops.einsum import Equation, spelled
from keras_edgeq.ops.table import op_of, weights_of


def macs(graph: LayerGraph, node: GraphNode) -> int:
    """Return the multiply-accumulates of one call for one sample.

    Those with zeros of a padding count, as runtimes and papers count them; a group of channels
    multiplies its own channels only. Elementwise operations, poolings and layers that nothing is
    known of count 0.

    Raises:
        UnsupportedModelError: a size beside the batch is unknown.
    """
    kind, layer = op_of(node.layer).macs, node.layer
    if kind == "result":
        return _positions(layer, node.shapes[0]) * _kernel_size(layer)
    if kind == "input":
        return _positions(layer, input_shape(graph, node)) * _kernel_size(layer)
    if kind == "equation":
        return _einsum(layer, input_shape(graph, node))
    if kind == "steps":
        return _recurrent(layer, input_shape(graph, node))
    return _matmul(graph, node) if kind == "operands" else 0


def elements(node: GraphNode, index: int = 0) -> int:
    """Return the numbers in a result of a call for one sample.

    Raises:
        UnsupportedModelError: a size beside the batch is unknown.
    """
    return prod(_known(node.layer, node.shapes[index][1:]))


def input_shape(graph: LayerGraph, node: GraphNode, index: int = 0) -> tuple:
    """Return the shape of what a call reads, its batch first."""
    ref = node.inputs[index]
    maker = graph.producer(ref)
    return maker.shapes[maker.outputs.index(ref)]


def _kernel_size(layer: Any) -> int:
    weights = weights_of(layer)
    assert weights is not None  # what is counted by positions has a kernel
    return prod(int(size) for size in getattr(layer, weights.kernel).shape)


def _positions(layer: Any, shape: tuple) -> int:
    """Return the places of a tensor, channels aside."""
    first = getattr(layer, "data_format", "channels_last") == "channels_first"
    return prod(_known(layer, shape[2:] if first else shape[1:-1]))


def _recurrent(layer: Any, shape: tuple) -> int:
    """Return the elements of all kernels, those of states included, times the number of steps."""
    kernels = (prod(w.shape) for w in layer.weights if "kernel" in w.name)
    return prod(_known(layer, shape[1:2])) * sum(kernels)


def _einsum(layer: Any, shape: tuple) -> int:
    """Return the product of the sizes of all axes that occur; an ellipsis stands for several."""
    read, kernel, _ = Equation(layer).parts
    axes = spelled(read, len(shape))
    sizes = dict(zip(axes, shape, strict=True))
    del sizes[axes[0]]
    sizes.update(zip(kernel, layer.kernel.shape, strict=True))
    return prod(_known(layer, tuple(sizes.values())))


def _matmul(graph: LayerGraph, node: GraphNode) -> int:
    """Return the size of the result times what is summed over."""
    options = node.call.node.call_kwargs
    shape = input_shape(graph, node)
    inner = shape[-2] if options.get("transpose_a") else shape[-1]
    return prod(_known(node.layer, (*node.shapes[0][1:], inner)))


def _known(layer: Any, sizes: tuple) -> list[int]:
    if any(size is None for size in sizes):
        raise UnsupportedModelError(
            f"Layer {layer.name!r} works on unknown sizes {tuple(sizes)}, so its operations and "
            "its memory cannot be counted; build the model with fixed sizes, as "
            "Input((224, 224, 3))."
        )
    return [int(size) for size in sizes]
