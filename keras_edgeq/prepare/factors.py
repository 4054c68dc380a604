"""Numbers that what a layer makes is multiplied with, as part of its weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import tf_keras

from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.layer_graph import GraphNode, LayerGraph
from keras_edgeq.graph.rebuild import edited, symbols_in
from keras_edgeq.ops import Unsupported, matrix_form, op_of
from keras_edgeq.ops.moves import only_moves
from keras_edgeq.ops.operands import as_number
from keras_edgeq.ops.plain import DIV, MUL
from keras_edgeq.ops.table import is_linear
from keras_edgeq.ops.weighted import MATMUL


def with_factors_folded(model: tf_keras.Model) -> tf_keras.Model:
    """Return the model without numbers that a product of two tensors, or one of them, is scaled by.

    The number becomes part of the weights of the projection that makes one of the tensors, so that
    it costs no operation and no rounding: the `1 / sqrt(d)` of attention does.

    Args:
        model: a functional model without models inside; it is not changed.
    """
    graph = LayerGraph.of(model)
    factors: dict[str, float] = {}
    dropped: dict[int, Any] = {}
    for node in graph.nodes:
        factor = _factor(node)
        layer = None if factor is None else _takes(graph, node)
        if factor is None or layer is None:
            continue
        factors[layer.name] = factors.get(layer.name, 1.0) * factor
        dropped[id(node.layer)] = lambda *args, **kwargs: symbols_in((args, kwargs))[0]
    if not dropped:
        return model
    result = edited(model, dropped)
    for name, factor in factors.items():
        layer = result.get_layer(name)
        layer.set_weights([np.float32(np.float64(w) * factor) for w in layer.get_weights()])
    return result


def _factor(node: GraphNode) -> float | None:
    """Return the number that a call multiplies one tensor with; None if it does something else."""
    op, operands = op_of(node.layer), keras_compat.operands(node.call.node)[:2]
    if op not in (MUL, DIV) or keras_compat.op_symbol(node.layer) is None or len(operands) != 2:
        return None
    numbers = [None if keras_compat.is_keras_tensor(o) else as_number(o) for o in operands]
    number = numbers[1] if op is DIV or numbers[0] is None else numbers[0]
    if not number or None not in numbers or not np.isfinite(number):
        return None
    return 1.0 / number if op is DIV else number


def _takes(graph: LayerGraph, node: GraphNode) -> Any:
    """Return the projection whose weights can take a factor; None if there is none."""
    if len(graph.calls_of(node.layer)) > 1 or node.shapes[0] != tuple(node.call.reads[0].shape):
        return None
    found, scales_product = _linear(graph, node.inputs[0])
    return found if scales_product or _is_multiplied(graph, node) else None


def _is_multiplied(graph: LayerGraph, node: GraphNode) -> bool:
    """Tell whether a product of two tensors reads what a call makes, moved at most."""
    reader = graph.only_consumer(node.outputs[0])
    if reader is None:
        return False
    return op_of(reader.layer) is MATMUL or (only_moves(reader) and _is_multiplied(graph, reader))


def _linear(graph: LayerGraph, ref: Any) -> tuple[Any, bool]:
    """Return the projection that alone decides the size of a tensor that nobody else reads.

    Returns:
        The layer, None if there is none; whether a product of two tensors lies between.
    """
    maker = graph.producer(ref)
    if graph.only_consumer(ref) is None or len(graph.calls_of(maker.layer)) > 1:
        return None, False
    if op_of(maker.layer) is MATMUL and len(maker.inputs) == 2:
        found = [layer for i in maker.inputs if (layer := _linear(graph, i)[0]) is not None]
        return next(iter(found), None), True
    if only_moves(maker) or (_factor(maker) and len(maker.inputs) == 1):
        return _linear(graph, maker.inputs[0])
    return (maker.layer if _projects(maker.layer) else None), False


def _projects(layer: Any) -> bool:
    """Tell whether a layer makes sums of products with its weights, and nothing else of them."""
    constrained = any(
        getattr(layer, f"{name}_constraint", None) is not None for name in ("kernel", "bias")
    )
    is_product = not isinstance(matrix_form(layer), Unsupported) and not op_of(layer).window
    return is_product and is_linear(layer) and not constrained
