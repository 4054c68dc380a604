"""Masks that are added or multiplied, as what selects by them: `tf.where`.

`scores + (1 - mask) * -1e9` has the range of -1e9, on whose grid all scores are one number. What a
softmax makes of it is what it makes of `tf.where(mask, scores, -1e9)`; `scores + log(mask)` is a
selection of -infinity. A product with a mask of zeros and ones is one between numbers and zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.layer_graph import GraphNode, LayerGraph
from keras_edgeq.graph.name_operations import name_operations, names_of_parts
from keras_edgeq.graph.rebuild import Call, rebuild, symbols_in
from keras_edgeq.layers.fake_quant import FAR
from keras_edgeq.ops import op_of
from keras_edgeq.ops.functions import LOG
from keras_edgeq.ops.moves import readers_behind_moves
from keras_edgeq.ops.operands import as_number
from keras_edgeq.ops.plain import ADD, MUL, SELECT, SOFTMAX, SUB

CASTS = ("cast", "keras.backend.cast")
# What added to a score leaves nothing of its share, in float32.
ENOUGH = 64.0


def with_masks_selected(model: tf_keras.Model) -> tf_keras.Model:
    """Return the model with masks that are added to scores, or multiplied with, as selections.

    Args:
        model: a functional model without models inside; it is not changed.
    """
    graph = LayerGraph.of(model)
    if not any(op_of(node.layer) in (ADD, SUB, MUL) for node in graph.nodes):
        return model
    walk = _Walk(graph)
    return rebuild(model, on_call=walk.on_call) if walk.changes else model


class _Walk:
    """One rebuild on its way.

    Attributes:
        changes: call, by the `id` of its node -> what is masked, the mask, and what is put there.
    """

    def __init__(self, graph: LayerGraph):
        self._graph = graph
        self._taken = {node.layer.name for node in graph.nodes}
        self._new: dict[int, Any] = {}
        self.changes = {
            id(node.call.node): change
            for node in graph.nodes
            if (change := self._added(node) or self._multiplied(node)) is not None
        }

    def on_call(self, call: Call, new: Any, args: tuple, kwargs: dict) -> Any:
        self._new.update(zip(map(id, call.reads), symbols_in((args, kwargs)), strict=False))
        if id(call.node) not in self.changes:
            made = new(*args, **kwargs)
            outputs = tf.nest.flatten(call.node.outputs)
            self._new.update(zip(map(id, outputs), tf.nest.flatten(made), strict=True))
            return made
        kept, mask, number = self.changes[id(call.node)]
        hidden = mask(self._new)
        read = symbols_in((self._new[id(kept)], hidden))
        known = {id(keras_compat.producer(tensor)[0]) for tensor in read}
        made = tf.where(hidden, number, self._new[id(kept)])
        name_operations(made, known, names_of_parts(call.layer.name, self._taken))
        self._new[id(call.node.outputs)] = made
        return made

    def _added(self, node: GraphNode) -> tuple | None:
        """Return the change for scores that a softmax reads with a mask added to them."""
        op = op_of(node.layer)
        operands = keras_compat.operands(node.call.node)[:2]
        if op not in (ADD, SUB) or len(operands) != 2 or not self._is_shared(node):
            return None
        sign = -1.0 if op is SUB else 1.0
        orders = [operands] if op is SUB else [operands, operands[::-1]]
        for scores, term in orders:
            if keras_compat.is_keras_tensor(scores) and self._is_whole(scores, node):
                found = _far(term, sign)
                if found is not None:
                    return scores, *found
        return None

    def _multiplied(self, node: GraphNode) -> tuple | None:
        """Return the change for numbers that are multiplied with a mask made of booleans."""
        operands = keras_compat.operands(node.call.node)[:2]
        if op_of(node.layer) is not MUL or len(operands) != 2:
            return None
        for numbers, factor in (operands, operands[::-1]):
            if keras_compat.is_keras_tensor(numbers) and self._is_whole(numbers, node):
                one = _one(factor, None)
                if one is not None:
                    return numbers, _inverted(one), 0.0
        return None

    def _is_whole(self, tensor: Any, node: GraphNode) -> bool:
        """Tell whether a tensor of real numbers has the shape of the result."""
        return tensor.dtype == tf.float32 and tuple(tensor.shape) == node.shapes[0]

    def _is_shared(self, node: GraphNode) -> bool:
        """Tell whether a softmax alone reads what a call makes."""
        readers = readers_behind_moves(self._graph, node)
        return bool(readers) and all(map(_is_softmax, readers))


def _far(term: Any, sign: float) -> tuple | None:
    """Return which elements of what is added are far below zero, and how far; None if not known."""
    if not keras_compat.is_keras_tensor(term):
        return _far_constant(term, sign)
    node = keras_compat.producer(term)[1]
    op, operands = op_of(node.layer), keras_compat.operands(node)
    moved = _moved(term)
    if moved is not None:
        found = _far(moved, sign)
        return None if found is None else (_as_moved(term, moved, found[0]), found[1])
    if op is MUL:
        for factor, number in (operands[:2], operands[1::-1]):
            far = None if keras_compat.is_keras_tensor(number) else as_number(number)
            if far is not None and far * sign <= -FAR and keras_compat.is_keras_tensor(factor):
                one = _one(factor, ENOUGH / abs(far))
                return None if one is None else (one, far * sign)
    if op is LOG and sign > 0.0:
        one = _one(operands[0], None)
        return None if one is None else (_inverted(one), -np.inf)
    if op is SELECT:
        condition, *numbers = operands[0], *map(as_number, operands[1:3])
        for number, other, turn in ((*numbers, False), (*numbers[::-1], True)):
            if other == 0.0 and number is not None and number * sign <= -FAR:
                chosen = _boolean(condition)
                return (_inverted(chosen) if turn else chosen), number * sign
    return None


def _far_constant(term: Any, sign: float) -> tuple | None:
    held = np.asarray(term, np.float64) * sign
    if held.ndim == 0 or not np.any(held <= -FAR) or np.any((held > -FAR) & (held != 0.0)):
        return None
    hidden = held <= -FAR
    return lambda _: hidden, float(max(held.min(), np.finfo(np.float32).min))


def _one(factor: Any, tiny: float | None) -> Any:
    """Return where a factor of zeros and ones is not zero, a function of the new tensors.

    Args:
        factor: a tensor.
        tiny: how large real numbers have to be; None takes booleans only.

    Returns:
        None for another factor, or one that may be.
    """
    if not keras_compat.is_keras_tensor(factor):
        return None
    node = keras_compat.producer(factor)[1]
    symbol, operands = keras_compat.op_symbol(node.layer), keras_compat.operands(node)
    moved = _moved(factor)
    if moved is not None:
        inner = _one(moved, tiny)
        return None if inner is None else _as_moved(factor, moved, inner)
    if symbol in CASTS and keras_compat.is_keras_tensor(operands[0]):
        source = operands[0]
        if source.dtype == tf.bool:
            return lambda new: new[id(source)]
        if source.dtype.is_floating:
            return _one(source, tiny)
        return None if tiny is None else lambda new: new[id(source)] > 0
    if op_of(node.layer) is SUB and not keras_compat.is_keras_tensor(operands[0]):
        if as_number(operands[0]) == 1.0:
            inner = _one(operands[1], tiny)
            return None if inner is None else _inverted(inner)
        return None
    if tiny is None or not factor.dtype.is_floating:
        return None
    return lambda new: new[id(factor)] > min(max(tiny, 1e-6), 0.5)


def _boolean(condition: Any) -> Any:
    if keras_compat.is_keras_tensor(condition):
        return lambda new: new[id(condition)]
    return lambda _: np.asarray(condition, bool)


def _inverted(mask: Any) -> Any:
    return lambda new: tf.logical_not(mask(new))


def _moved(tensor: Any) -> Any:
    """Return the tensor whose elements an operation of TensorFlow moves; None for another one."""
    node = keras_compat.producer(tensor)[1]
    read = symbols_in((node.call_args, node.call_kwargs))
    is_op = keras_compat.op_symbol(node.layer) is not None
    op = op_of(node.layer)
    moves = is_op and (op.transparent or op.spread == "moves")
    return read[0] if moves and len(read) == 1 else None


def _as_moved(tensor: Any, source: Any, mask: Any) -> Any:
    """Return a mask of a tensor's source as one of the tensor."""
    node = keras_compat.producer(tensor)[1]

    def moved(new):
        hidden = mask(new)
        args, kwargs = keras_compat.arguments(node, {id(source): hidden})
        return node.layer.function(*args, **kwargs)

    return moved


def _is_softmax(node: GraphNode) -> bool:
    return op_of(node.layer) is SOFTMAX or type(node.layer) is tf_keras.layers.Softmax
