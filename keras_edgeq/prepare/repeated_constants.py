"""Constants that a model repeats for each sample: class tokens, positions, what `zeros_like` makes.

Added to a tensor, or multiplied with it, such a constant need not be repeated. Concatenated, it is
added to the tensor with zeros in its place.
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
from keras_edgeq.ops import op_of
from keras_edgeq.ops.plain import ADD, CONCAT, MUL
from keras_edgeq.prepare.selects import number_of
from keras_edgeq.prepare.trace import warn_frozen
from keras_edgeq.spec.tensor_ref import part_name

COMBINED = {ADD.name: np.add, MUL.name: np.multiply}


def with_repeated_constants(model: tf_keras.Model) -> tf_keras.Model:
    """Return the model with constants in the place of tensors that repeat one for each sample.

    Args:
        model: a functional model without models inside; it is not changed.

    Warns:
        QuantizationWarning: names what holds variables that do not train any more.
    """
    graph = LayerGraph.of(model)
    changes = {id(n.call.node): found for n in graph.nodes if (found := _change(n)) is not None}
    if not changes:
        return model
    walk = _Walk(changes, {node.layer.name for node in graph.nodes})
    result = rebuild(model, on_call=walk.on_call)
    warn_frozen(walk.frozen)
    return result


class _Walk:
    """One rebuild on its way; `frozen` are operations that hold variables."""

    def __init__(self, changes: dict[int, tuple[int, list[Any]]], taken: set[str]):
        self._changes, self._taken = changes, taken
        self.frozen: dict[str, None] = {}

    def on_call(self, call: Call, new: Any, args: tuple, kwargs: dict) -> Any:
        if id(call.node) not in self._changes:
            return new(*args, **kwargs)
        place, constants = self._changes[id(call.node)]
        if any(one is not None and one[1] for one in constants):
            self.frozen[call.layer.name.rpartition("/")[0] or call.layer.name] = None
        x, name, op = symbols_in((args, kwargs))[place], call.layer.name, op_of(call.layer)
        if op is CONCAT:
            axis = _axis(call) or 0
            held = [np.zeros((1, *x.shape[1:])) if one is None else one[0] for one in constants]
            paddings = [[0, 0] for _ in range(x.shape.rank)]
            paddings[axis] = [
                sum(one.shape[axis] for one in part) for part in (held[:place], held[place + 1 :])
            ]
            x = tf.pad(x, paddings)
            self._name(x, symbols_in((args, kwargs))[place], part_name(name, "pad"))
            constant = np.concatenate(held, axis)
        else:
            constant = next(one[0] for one in constants if one is not None)
        constant = constant.astype(np.float32)
        made = x * constant if op is MUL else x + constant
        self._name(made, x, name)
        return made

    def _name(self, made: Any, x: Any, name: str) -> None:
        known = {id(keras_compat.producer(x)[0])}
        name_operations(made, known, names_of_parts(name, self._taken))


def _change(node: GraphNode) -> tuple[int, list[Any]] | None:
    """Return which tensor of a call is none, and the constants beside it, each once and frozen."""
    op = op_of(node.layer)
    if op not in (ADD, MUL, CONCAT) or not node.is_float or not node.inputs:
        return None
    operands = keras_compat.operands(node.call.node)[: 2 if op is not CONCAT else None]
    tensors = [o for o in operands if keras_compat.is_keras_tensor(o)]
    if len(tensors) < 2 or (op is not CONCAT and len(operands) != 2):
        return None
    constants = [_repeated(tensor) for tensor in tensors]
    if constants.count(None) != 1:
        return None
    place = constants.index(None)
    x = tensors[place]
    if x.dtype != tf.float32 or tuple(x.shape[1:]).count(None) or not x.shape.rank:
        return None
    if op is CONCAT:
        return None if _axis(node.call) in (None, 0) else (place, constants)
    return (place, constants) if tuple(x.shape) == node.shapes[0] else None


def _repeated(tensor: Any) -> tuple[np.ndarray, bool] | None:
    """Return the constant that a tensor repeats along its first axis, None if it does more.

    Returns:
        The constant, its first size 1; whether variables that train are in it.
    """
    rank, sizes = tensor.shape.rank, tuple(tensor.shape[1:])
    if not rank or None in sizes or tensor.dtype != tf.float32:
        return None
    number = number_of(tensor)
    if number is not None:
        return np.full((1, *sizes), number), False
    node = keras_compat.producer(tensor)[1]
    symbol = (keras_compat.op_symbol(node.layer) or "").removeprefix("compat.v1.")
    if symbol in ("tile", "broadcast_to", "repeat"):
        given = keras_compat.bound_arguments(node)
        source = given.get("input")
        if source is None or keras_compat.is_keras_tensor(source):
            return None
        held = np.asarray(source)
        if held.ndim == rank and held.shape[0] != 1:
            return None
        frozen = _trains(source)
        if symbol == "repeat":
            return (held, frozen) if given.get("axis") == 0 and held.ndim == rank else None
        if symbol == "broadcast_to":
            return np.broadcast_to(held, (1, *sizes)), frozen
        times = [size // own for size, own in zip(sizes, held.shape[1:], strict=True)]
        return np.tile(held, [1, *times]), frozen
    operands = keras_compat.operands(node)[:2]
    combine = COMBINED.get(op_of(node.layer).name)
    if combine is None or len(operands) != 2:
        return None
    parts = [
        _repeated(o) if keras_compat.is_keras_tensor(o) else (np.asarray(o), _trains(o))
        for o in operands
    ]
    if any(part is None or (part[0].ndim == rank and part[0].shape[0] != 1) for part in parts):
        return None
    (one, first), (other, second) = (part for part in parts if part is not None)
    return np.broadcast_to(combine(one, other), (1, *sizes)), first or second


def _trains(value: Any) -> bool:
    return isinstance(value, tf.Variable) and bool(value.trainable)


def _axis(call: Call) -> int | None:
    """Return the axis along which a call joins tensors; None where it makes a new one."""
    layer, rank = call.layer, call.reads[0].shape.rank
    symbol = keras_compat.op_symbol(layer)
    if symbol is None:
        return int(layer.axis) % rank
    axis = keras_compat.bound_arguments(call.node).get("axis") if symbol == "concat" else None
    return int(axis) % rank if isinstance(axis, int | np.integer) else None
