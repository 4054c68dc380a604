"""Numbers that what a layer makes is multiplied with, as part of its weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import tf_keras

from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.layer_graph import GraphNode, LayerGraph
from keras_edgeq.graph.rebuild import edited, symbols_in
from keras_edgeq.ops import Unsupported, matrix_form, op_of, op_type
from keras_edgeq.ops.operands import as_number
from keras_edgeq.ops.table import is_linear

PRODUCT = "MatMul"
PASSES = ("Mul", "Div")


def with_factors_folded(model: tf_keras.Model) -> tf_keras.Model:
    """Return the model without multiplications by one number behind a layer with weights.

    The number becomes part of the weights, so that it costs no operation and no rounding: the
    `1 / sqrt(d)` of attention does, in front of the product of queries and keys or behind it.

    Args:
        model: a functional model without models inside; it is not changed.
    """
    graph = LayerGraph.of(model)
    factors: dict[str, float] = {}
    dropped: dict[int, Any] = {}
    for node in graph.nodes:
        factor = _factor(node)
        layer = None if factor is None else _takes(graph, node, model)
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
    kind, operands = op_type(node.layer), keras_compat.operands(node.call.node)[:2]
    if kind not in PASSES or keras_compat.op_symbol(node.layer) is None or len(operands) != 2:
        return None
    numbers = [None if keras_compat.is_keras_tensor(o) else as_number(o) for o in operands]
    number = numbers[1] if kind == "Div" or numbers[0] is None else numbers[0]
    if not number or None not in numbers or not np.isfinite(number):
        return None
    return 1.0 / number if kind == "Div" else number


def _takes(graph: LayerGraph, node: GraphNode, model: tf_keras.Model) -> Any:
    """Return the layer whose weights can take a factor; None if there is none."""
    if len(graph.calls_of(node.layer)) > 1 or node.shapes[0] != tuple(node.call.reads[0].shape):
        return None
    return _linear(graph, node.inputs[0])


def _linear(graph: LayerGraph, ref: Any) -> Any:
    """Return the layer that alone decides the size of a tensor that nobody else reads."""
    if graph.only_consumer(ref) is None:
        return None
    maker = graph.producer(ref)
    if len(graph.calls_of(maker.layer)) > 1 or len(maker.outputs) > 1:
        return None
    op = op_of(maker.layer)
    if _multiplies(maker.layer):
        return maker.layer
    if op.name == PRODUCT and len(maker.inputs) == 2:
        return _linear(graph, maker.inputs[0]) or _linear(graph, maker.inputs[1])
    moves = (op.spread == "moves" or _factor(maker)) and len(maker.inputs) == 1
    return _linear(graph, maker.inputs[0]) if moves else None


def _multiplies(layer: Any) -> bool:
    """Tell whether a layer makes sums of products with its weights, and nothing else of them."""
    constrained = any(
        getattr(layer, f"{name}_constraint", None) is not None
        for name in ("kernel", "bias", "depthwise")
    )
    form = matrix_form(layer)
    return not isinstance(form, Unsupported) and is_linear(layer) and not constrained
