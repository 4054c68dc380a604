"""One operation per layer: activations out of the layers they are fused into."""

from __future__ import annotations

import tf_keras

from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.rebuild import clone, rebuild
from keras_edgeq.layers.layer_traits import ACTIVATIONS, WEIGHTED, activation_name
from keras_edgeq.spec.tensor_ref import part_name

L = tf_keras.layers


def split_activations(model: tf_keras.Model) -> tf_keras.Model:
    """Return the model with every activation a layer of its own, and swish as `x * sigmoid(x)`.

    A layer's activation becomes `<layer>/<activation>`. Which of them a quantizer stands in front
    of is the profile's business, not decided here.
    """
    return rebuild(model, _split)


def _split(layer):
    if type(layer) in WEIGHTED and hasattr(layer, "activation"):
        name = activation_name(layer.activation)
        if name != "linear":
            linear = clone(layer, activation="linear", weights=layer.get_weights())
            activation = _activation(layer.activation, part_name(layer.name, name))
            return lambda x: activation(linear(x))
    if type(layer) is L.Activation and not _plain(layer.activation):
        return _activation(layer.activation, layer.name)
    if keras_compat.op_symbol(layer) == "nn.silu":
        return _swish(layer.name)
    return None


def _activation(function, name):
    """Return the layer (or a function of layers) for an activation function."""
    kind = ACTIVATIONS.get(activation_name(function))
    return _LAYERS[kind](name) if kind in _LAYERS else L.Activation(function, name=name)


def _plain(function) -> bool:
    return ACTIVATIONS.get(activation_name(function)) not in _LAYERS


def _swish(name):
    """Return `x * sigmoid(x)` as two layers; the product keeps the name."""
    gate = L.Activation("sigmoid", name=part_name(name, "sigmoid"))
    product = L.Multiply(name=name)
    return lambda x, *_, **__: product([x, gate(x)])


_LAYERS = {
    "Relu": lambda name: L.ReLU(name=name),
    "Relu6": lambda name: L.ReLU(6.0, name=name),
    "Softmax": lambda name: L.Softmax(name=name),
    "Swish": _swish,
}
