"""Keep a runtime's optimizer from computing something else than the graph says, or failing at it.

ONNX Runtime (1.31 and 1.32) changes results in four places. It merges two pairs in a row whose
integers have one type, and so takes out a rounding. It quantizes the float weights of a product
between pairs, per tensor to 8 bits. It computes a softmax between pairs with a table, of which
another grid than 0 to 255/256 shows. And it makes a MatMulNBits of a product of matrices with
integer weights, which quantizes the other factor to int8 as it runs: 1.31 where that is float, 1.32
where it has 16 bits, too.

And it ends the process where a body (of a Loop, an If, a Scan) reads dequantized data from outside:
it carries a pair through the operations that move data up to the node that holds the body
(`QDQPropagationTransformer`), and looks for the tensor among the node's inputs, where it is not.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import NodeProto, helper

from keras_edgeq.export.onnx.carriers import (
    PAIRED,
    SEEN_THROUGH,
    Grid,
    grids_of,
    same_grid,
)
from keras_edgeq.export.onnx.dialect import bounds_of
from keras_edgeq.export.onnx.graph import DEQUANTIZE, QUANTIZE, OnnxGraph, attributes, reads

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
MATRIX_PRODUCTS = ("Gemm", "MatMul")
TABLE_SCALE = np.float32(1 / 256)


def guard(graph: OnnxGraph, ranks: Mapping[str, int]) -> None:
    """Write what optimizers must not look through in a form that they leave alone.

    That is a Clip that changes no number, or a Gemm with its weight transposed.

    Args:
        graph: changed in place.
        ranks: number of axes of what its nodes make, where it is known.
    """
    _keep_roundings(graph)
    _keep_wide_data(graph, ranks)
    _keep_out_of_bodies(graph)


def _keep_roundings(graph: OnnxGraph) -> None:
    """Keep pairs in a row apart, and float weights and softmaxes on own grids float."""
    grids, producers, readers = grids_of(graph), graph.producers(), graph.readers()
    for node in list(graph.nodes):
        grid = grids.get(node.input[0]) if node.input else None
        if node.op_type == QUANTIZE:
            own = (node.input[1], node.input[2])
            if grid is not None and _merge(graph, grid, own):
                # A quarter step inside of the ends: a Clip at the ends would be optimized away.
                _clip(graph, node, 0, own, 0.25)
        elif node.op_type in PRODUCTS and grid is not None:
            weight = producers.get(node.input[1])
            if weight is None or weight.op_type != DEQUANTIZE:
                _clip(graph, node, 0, grid, 0.0)
        elif node.op_type == "Softmax" and grid and not _on_table(graph, readers, node):
            _clip(graph, node, 0, grid, 0.0)


def _on_table(graph: OnnxGraph, readers: Mapping[str, list[NodeProto]], node: NodeProto) -> bool:
    """Tell whether what a softmax makes lies on the grid of the runtime's table, 0 to 255/256."""
    reading = readers.get(node.output[0], [])
    scales = [graph.constants[n.input[1]] for n in reading if n.op_type == QUANTIZE]
    return len(scales) == len(reading) and all(np.all(s == TABLE_SCALE) for s in scales)


def _merge(graph: OnnxGraph, one: Grid, other: Grid) -> bool:
    """Tell whether two pairs in a row differ, with integers of one type."""
    same_type = graph.constants[one[1]].dtype == graph.constants[other[1]].dtype
    return same_type and not same_grid(graph, one, other)


def _keep_wide_data(graph: OnnxGraph, ranks: Mapping[str, int]) -> None:
    """Keep what has more than 8 bits as it is where it meets integer weights in a matrix product.

    A Gemm with a transposed weight is not made a MatMulNBits, costs no operation more, and is
    faster than without. What cannot be one, for its rank or another reader, has its weight clipped.
    """
    grids, readers = grids_of(graph), graph.readers()
    for weight in [n for n in graph.nodes if n.op_type == DEQUANTIZE]:
        reading = readers.get(weight.output[0], [])
        products = [n for n in reading if _is_product_with(n, weight)]
        wide = [n for n in products if not _has_8_bits(graph, grids.get(n.input[0]))]
        if not _is_small_matrix(graph, weight) or not wide:
            continue
        if weight.input[1] not in graph.constants:
            continue  # with a scale that is computed it is made none
        are_gemms = all(n.op_type == "Gemm" or ranks.get(n.output[0]) == 2 for n in products)
        if are_gemms and len(products) == len(reading):
            _transpose(graph, weight, products)
        else:
            for node in wide:
                _clip(graph, node, 1, (weight.input[1], weight.input[2]), 0.0)


def _keep_out_of_bodies(graph: OnnxGraph) -> None:
    """Clip dequantized data that the body of a node reads without being given it."""
    producers = graph.producers()
    for node in list(graph.nodes):
        for name in sorted({*reads(node)} - {*node.input}):
            source = _dequantized(name, producers)
            if source is not None:
                grid = (source.input[1], source.input[2])
                graph.redirect({name: _clipped(graph, node, name, grid, 0.0)}, [node])


def _dequantized(name: str, producers: Mapping[str, NodeProto]) -> NodeProto | None:
    """Return the DequantizeLinear whose numbers a tensor holds, moved at most."""
    node = producers.get(name)
    while node is not None and node.op_type in {**SEEN_THROUGH, **PAIRED}:
        node = producers.get(node.input[0])
    return node if node is not None and node.op_type == DEQUANTIZE else None


def _is_product_with(node: NodeProto, weight: NodeProto) -> bool:
    """Tell whether a node is a matrix product of data with a weight, neither transposed."""
    options = attributes(node)
    return (
        node.op_type in MATRIX_PRODUCTS
        and node.input[1] == weight.output[0]
        and not (options.get("transA") or options.get("transB"))
    )


def _has_8_bits(graph: OnnxGraph, grid: Grid | None) -> bool:
    return grid is not None and graph.constants[grid[1]].dtype.itemsize == 1


def _is_small_matrix(graph: OnnxGraph, weight: NodeProto) -> bool:
    """Tell whether a node dequantizes a constant matrix of at most 8 bits."""
    integers = graph.constants.get(weight.input[0])
    return integers is not None and integers.ndim == 2 and integers.dtype.itemsize == 1


def _transpose(graph: OnnxGraph, weight: NodeProto, products: list[NodeProto]) -> None:
    """Store a weight transposed, and make each product with it a Gemm that says so."""
    for name in weight.input:
        if graph.constants[name].ndim == 2:  # scales, too, where there is one per block
            graph.constants[name] = graph.constants[name].T
    for attribute in weight.attribute:
        if attribute.name == "axis":
            attribute.i = 1 - attribute.i
    for node in products:
        node.op_type = "Gemm"
        kept = [a for a in node.attribute if a.name != "transB"]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute("transB", 1)])


def _clip(graph: OnnxGraph, node: NodeProto, place: int, grid: Grid, inside: float) -> None:
    """Clip an input of a node to the ends of a grid, or steps `inside` of them."""
    node.input[place] = _clipped(graph, node, node.input[place], grid, inside)


def _clipped(graph: OnnxGraph, node: NodeProto, name: str, grid: Grid, inside: float) -> str:
    """Put a Clip of a tensor in front of a node, and return what it makes."""
    scale, zero_point = (graph.constants[name] for name in grid)
    low, high = bounds_of(zero_point.dtype)
    zero = zero_point.astype(np.float32)
    ends = {
        "min": np.min((np.float32(low + inside) - zero) * scale),
        "max": np.max((np.float32(high - inside) - zero) * scale),
    }
    bounds = [graph.add_constant(f"{node.output[0]}/{side}", end) for side, end in ends.items()]
    clipped = graph.free_name(f"{name}/clipped")
    graph.nodes.insert(graph.place_of(node), graph.node("Clip", [name, *bounds], clipped))
    return clipped
