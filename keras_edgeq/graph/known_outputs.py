"""Build models without a trace of each layer; beside `keras_compat` it touches what is private."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import tensorflow as tf
import tf_keras
from tf_keras.src import backend as _backend
from tf_keras.src.engine import keras_tensor as _keras_tensor

from keras_edgeq.graph import keras_compat

# Constants of calls that are compared; all others have to be the same object.
PLAIN = (bool, int, float, str, bytes, tf.DType)


class KnownOutputs(tf_keras.layers.Layer):
    """A layer that says what its outputs are like, so that Keras need not trace its call for it."""

    def output_specs(self, *args: Any, **kwargs: Any) -> Any:
        """Return the `tf.TensorSpec`s of the outputs of a call, None if Keras has to look.

        The layer is built.
        """
        raise NotImplementedError

    def _infer_output_signature(self, inputs, args, kwargs, input_masks):
        _build(self, inputs, args, kwargs)
        leaves = tf.nest.flatten((inputs, args, kwargs))
        specs = None if any(map(_is_masked, leaves)) else self.output_specs(inputs, *args, **kwargs)
        if specs is None:
            return super()._infer_output_signature(inputs, args, kwargs, input_masks)
        return tf.nest.map_structure(_keras_tensor.KerasTensor, specs)


@contextmanager
def known_outputs(node: keras_compat.KerasNode, layer: tf_keras.layers.Layer):
    """Let a copy of a call's layer make tensors like those of the call, if it is called alike.

    Keras finds out by a trace of the layer what its outputs are like, which takes most of the time
    in which it builds a model. It still does where it may learn more from that, as of masks, losses
    and layers inside of the layer, and where the tensors or constants of the call are others.
    """
    if not _is_leaf(layer):
        yield
        return

    def outputs(inputs, args, kwargs, input_masks):
        _build(layer, inputs, args, kwargs)
        same_weights = [w.shape for w in layer.weights] == [w.shape for w in node.layer.weights]
        if not same_weights or not _is_called_alike(node, (inputs, *args), kwargs):
            return type(layer)._infer_output_signature(layer, inputs, args, kwargs, input_masks)
        return tf.nest.map_structure(_like, node.outputs)

    vars(layer)["_infer_output_signature"] = outputs
    try:
        yield
    finally:
        del vars(layer)["_infer_output_signature"]


def _build(layer, inputs, args, kwargs) -> None:
    """Make a layer's variables, named as in its first call, and note what it is called on."""
    with _backend.name_scope(layer._name_scope()):
        layer._maybe_build(inputs)
    layer._set_save_spec(inputs, args, kwargs)


def _is_leaf(layer) -> bool:
    """Tell whether a layer is one of Keras' own, without layers inside or additions to the loss."""
    own = type(layer).__module__.partition(".")[0] == "tf_keras"
    return own and layer.activity_regularizer is None and not keras_compat.all_layers(layer)


def _is_called_alike(node: keras_compat.KerasNode, args: tuple, kwargs: dict) -> bool:
    """Tell whether a call is on tensors like those of another and on its constants, unmasked."""
    before, now = _leaves(node.call_args, node.call_kwargs), _leaves(args, kwargs)
    symbols = [
        *tf.nest.flatten(node.outputs),
        *filter(keras_compat.is_keras_tensor, [*before, *now]),
    ]
    plain = all(type(t) is _keras_tensor.KerasTensor and not _is_masked(t) for t in symbols)
    return plain and len(before) == len(now) and all(map(_is_same, before, now))


def _leaves(args: tuple, kwargs: dict) -> list[Any]:
    """Return what a call is given, except what Keras itself adds to it."""
    given = {name: v for name, v in kwargs.items() if name != "training" and v is not None}
    return tf.nest.flatten((tuple(args), given))


def _is_same(one: Any, other: Any) -> bool:
    if keras_compat.is_keras_tensor(one) and keras_compat.is_keras_tensor(other):
        same_value = one._inferred_value == other._inferred_value
        return same_value and one.type_spec == other.type_spec
    return one is other or (type(one) is type(other) and isinstance(one, PLAIN) and one == other)


def _like(symbol):
    """Return a symbolic tensor like another, of no call yet."""
    return _keras_tensor.KerasTensor(symbol.type_spec, symbol._inferred_value, symbol._name)


def _is_masked(value: Any) -> bool:
    return getattr(value, "_keras_mask", None) is not None
