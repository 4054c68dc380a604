"""One operation per layer: activations out of their layers, separable kernels apart."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import tf_keras

from keras_edgeq.errors import UnsupportedModelError
from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.name_operations import name_operations
from keras_edgeq.graph.rebuild import clone, rebuild
from keras_edgeq.ops.plain import RELU, RELU6, SOFTMAX, SWISH
from keras_edgeq.ops.table import FUNCTIONS, WEIGHTED, activation_name
from keras_edgeq.prepare import separable
from keras_edgeq.spec.tensor_ref import part_name

L, R = tf_keras.layers, tf_keras.regularizers


def split_layers(model: tf_keras.Model) -> tf_keras.Model:
    """Return the model with one operation per layer, and swish as `x * sigmoid(x)`.

    A layer's activation becomes `<layer>/<activation>`, an activity regularizer a layer behind it.
    Which of them a quantizer stands in front of is the profile's business, not decided here.
    Separable convolutions become two layers.
    """
    return rebuild(model, _split)


def _split(layer):
    if type(layer) in WEIGHTED or separable.splits(layer):
        return _parts(layer)
    if type(layer) is L.Activation and not _plain(layer.activation):
        inside = layer.activation if isinstance(layer.activation, L.Layer) else None
        weights = [] if inside is None else inside.get_weights()
        return _activation(layer.activation, layer.name, weights)
    if keras_compat.op_symbol(layer) == "nn.silu":
        return _swish_op(layer)
    return None


def _parts(layer):
    """Return a weighted layer, its activation and its activity regularizer, one after the other."""
    function = getattr(layer, "activation", tf_keras.activations.linear)
    name = _name(function)
    regularizer = layer.activity_regularizer
    two = separable.splits(layer)
    if name == "linear" and regularizer is None and not two:
        return None
    inside = function.weights if isinstance(function, L.Layer) else []
    values = {id(w): w.numpy() for w in layer.weights}
    own = [values[id(w)] for w in layer.weights if id(w) not in {id(w) for w in inside}]
    parts = separable.kernels(layer, own) if two else [_plain_copy(layer, name, own)]
    if name != "linear":
        weights = [w.numpy() for w in inside]
        parts.append(_activation(function, part_name(layer.name, name), weights))
    if regularizer is not None:
        parts.append(_regularization(layer, regularizer))
    return lambda x: functools.reduce(lambda tensor, part: part(tensor), parts, x)


def _plain_copy(layer, activation, weights):
    """Return a copy of a layer without its activation and regularizer."""
    changes: dict[str, Any] = {} if activation == "linear" else {"activation": "linear"}
    if layer.activity_regularizer is not None:
        changes["activity_regularizer"] = None
    return clone(layer, **changes, weights=weights)


def _name(function) -> str:
    """Return the name of an activation, as its layer is called."""
    while isinstance(function, functools.partial):
        function = function.func
    return function.name if isinstance(function, L.Layer) else activation_name(function)


def _regularization(layer, regularizer):
    """Return a layer that adds a regularizer's loss on real values; a sim's layers sum integers."""
    l1, l2 = (getattr(regularizer, name, 0.0) for name in ("l1", "l2"))
    if type(regularizer) not in (R.L1, R.L2, R.L1L2):
        raise UnsupportedModelError(
            f"Layer {layer.name!r} has the activity regularizer {type(regularizer).__name__}; "
            "L1, L2 and L1L2 are known. Take it off, or add its loss in your training loop."
        )
    return L.ActivityRegularization(float(l1), float(l2), name=part_name(layer.name, "regularized"))


def _activation(function, name, weights):
    """Return the layer (or a function of layers) for an activation, a function or a layer."""
    if isinstance(function, L.Activation):
        return _activation(function.activation, name, weights)
    if isinstance(function, L.Layer):
        return clone(function, name=name, weights=weights)
    if isinstance(function, functools.partial):
        return _as_operations(function, name)
    kind = FUNCTIONS.get(activation_name(function))
    return _LAYERS[kind](name) if kind in _LAYERS else L.Activation(function, name=name)


def _as_operations(function, name):
    """Return a function that computes with operations of the graph, named after `name`.

    Keras writes no partial function into a configuration, but each operation with its arguments.
    """
    names = (f"{name}_{number}" if number else name for number in itertools.count())

    def apply(x):
        try:
            made = function(x)
            name_operations(made, {id(keras_compat.producer(x)[0])}, names)
        except (AttributeError, TypeError, ValueError, NotImplementedError) as error:
            raise UnsupportedModelError(
                f"The activation {name!r} is a partial function that takes no symbolic tensor: "
                f"{error} Give a function with a name (def my_activation(x): ...) or a layer."
            ) from error
        return made

    return apply


def _plain(function) -> bool:
    if isinstance(function, L.Layer | functools.partial):
        return False
    return FUNCTIONS.get(activation_name(function)) not in _LAYERS


def _swish_op(layer):
    """Return `x * sigmoid(x)` for a call of `tf.nn.silu`, and the call itself for another beta."""
    plain, whole = _swish(layer.name), clone(layer)

    def apply(x, beta=1.0, **named):
        return plain(x) if np.all(beta == 1.0) else whole(x, beta=beta, **named)

    return apply


def _swish(name):
    """Return `x * sigmoid(x)` as two layers; the product keeps the name."""
    gate = L.Activation("sigmoid", name=part_name(name, "sigmoid"))
    product = L.Multiply(name=name)
    return lambda x, *_, **__: product([x, gate(x)])


def _softmax(name):
    """Return a softmax that takes no mask, as the function takes none; Keras would pass it one."""
    layer = L.Softmax(name=name)
    return lambda x: layer(x, mask=None)


_LAYERS = {
    RELU.name: lambda name: L.ReLU(name=name),
    RELU6.name: lambda name: L.ReLU(6.0, name=name),
    SOFTMAX.name: _softmax,
    SWISH.name: _swish,
}
