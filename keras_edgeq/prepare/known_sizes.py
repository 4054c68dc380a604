"""Sizes that a model computes although they are known, and what is made of them alone."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras

from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.rebuild import Call, calls, rebuild, symbols_in
from keras_edgeq.prepare.trace import warn_frozen

SHAPES = ("shape", "compat.v1.shape")
SLICE = "__operators__.getitem"


def with_known_sizes(model: tf_keras.Model) -> tf_keras.Model:
    """Return the model with constants for sizes that are known, and for what is made of them.

    Causal masks and positions are, which layers make of `tf.shape(x)`.

    Args:
        model: a functional model without models inside; it is not changed.

    Warns:
        QuantizationWarning: names layers whose weights became constants, which do not train.
    """
    if not any(keras_compat.op_symbol(call.layer) in SHAPES for call in calls(model)):
        return model
    walk = _Walk(model)
    result = rebuild(model, on_call=walk.on_call)
    warn_frozen(walk.frozen)
    return result


class _Walk:
    """One rebuild on its way: shapes, and the tensors that hold them.

    Attributes:
        frozen: layers that make a constant now.
    """

    def __init__(self, model: tf_keras.Model):
        self._outputs = set(map(id, model.outputs))
        self.frozen: dict[str, None] = {}
        self._shapes: dict[int, tuple[Any, list[int | None]]] = {}

    def on_call(self, call: Call, new: Any, args: tuple, kwargs: dict) -> Any:
        symbol, given = keras_compat.op_symbol(call.layer), symbols_in((args, kwargs))
        is_output = any(id(t) in self._outputs for t in tf.nest.flatten(call.node.outputs))
        if call.reads and not given and call.layer.trainable_weights:
            self.frozen[call.layer.name] = None
        if symbol is None or is_output:
            return new(*args, **kwargs)
        if not given:  # all it reads is known by now
            if not call.reads:
                return new(*args, **kwargs)
            if symbol == SLICE:
                args = args[0], tuple(map(_as_slice, _parts(args[1])))
            return call.layer.function(*args, **kwargs)
        if symbol == SLICE and id(given[0]) in self._shapes:
            known = self._sliced(self._shapes[id(given[0])][1], call)
            if known is not None:
                return tf.constant(known, call.node.outputs.dtype)
        made = new(*args, **kwargs)
        if symbol in SHAPES and given[0].shape.rank is not None:
            self._shapes[id(made)] = made, list(given[0].shape)
        return made

    @staticmethod
    def _sliced(sizes: list[int | None], call: Call) -> Any:
        """Return what a slice takes of a shape; None if a size of it is unknown."""
        parts = _parts((*call.node.call_args, *call.node.call_kwargs.values())[1])
        if len(parts) != 1 or not isinstance(part := _as_slice(parts[0]), int | slice):
            return None
        found = sizes[part]
        return None if found is None or (isinstance(found, list) and None in found) else found


def _parts(spec: Any) -> tuple:
    return tuple(spec) if isinstance(spec, tuple | list) else (spec,)


def _as_slice(part: Any) -> Any:
    """Return a slice of what Keras records as a dictionary, other parts as they are."""
    return slice(part["start"], part["stop"], part["step"]) if isinstance(part, dict) else part
