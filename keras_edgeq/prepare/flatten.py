"""Put the layers of nested models into the outer graph, named by their path."""

from __future__ import annotations

import tf_keras

from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.rebuild import clone, copy_weights, rebuild, replay


def flatten_nested(model: tf_keras.Model) -> tf_keras.Model:
    """Return an equal functional model without models inside.

    An inner layer is named by its path (`encoder/dense`), so names of inner models cannot collide.
    A model that is called twice becomes layers that are called twice. A functional model without
    models inside is returned as it is.
    """
    if not isinstance(model, tf_keras.Sequential) and not any(
        keras_compat.is_graph_model(layer) for layer in model.layers
    ):
        return model
    copies = []

    def on_layer(layer, path=""):
        if keras_compat.is_graph_model(layer):
            return _inline(layer, f"{path}{layer.name}/", on_layer)
        new = clone(layer, name=f"{path}{layer.name}")
        copies.append((layer, new))
        return new

    flat = rebuild(model, on_layer)
    for old, new in copies:
        copy_weights(old, new)
    return flat


def _inline(inner, path, on_layer):
    """Return a function that replays `inner` on the outer graph's tensors."""
    made = {}

    def visit(call, args, kwargs):
        if id(call.layer) not in made:
            made[id(call.layer)] = on_layer(call.layer, path)
        return made[id(call.layer)](*args, **kwargs)

    def apply(inputs, **_):
        return replay(inner, keras_compat.flat_inputs(inner, inputs), visit)

    return apply
