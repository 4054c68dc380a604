"""Move the signs of batch norms into the kernels in front of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tf_keras

from keras_edgeq.graph.rebuild import clone, rebuild
from keras_edgeq.ops import channel_map


def with_positive_gammas(model: tf_keras.Model, behind: Mapping[str, str]) -> tf_keras.Model:
    """Return an equal model in which no gamma of some batch norms is, or becomes, negative.

    Such a batch norm folds into a kernel on an integer grid by a positive factor per channel, so
    the integers stay, also on a grid that has one more negative integer than positive ones. A
    constraint of the user's own on a gamma stays instead of that.

    Args:
        model: a functional model; it is not changed.
        behind: batch norm -> layer in front of it, as `batch_norms_behind` returns.
    """
    signs = {name: np.ones(()) for name in (*behind, *behind.values())}
    for name, layer in behind.items():
        batch_norm = model.get_layer(name)
        if batch_norm.scale:
            signs[name] = signs[layer] = np.where(batch_norm.gamma.numpy() < 0.0, -1.0, 1.0)

    def on_layer(layer):
        if layer.name not in signs:
            return None
        sign = signs[layer.name].astype(np.float32)
        if layer.name in behind:
            return _flipped_batch_norm(layer, sign)
        channels = channel_map(layer)
        assert channels  # what a batch norm folds into has channels
        weights = [layer.get_weights()[0] * (sign[channels.outputs] if sign.ndim else sign)]
        if layer.bias is not None:
            weights.append(layer.bias.numpy() * sign)
        return clone(layer, weights=weights)

    return rebuild(model, on_layer)


def _flipped_batch_norm(layer, sign: np.ndarray) -> tf_keras.layers.Layer:
    """Return a batch norm for inputs that have another sign."""
    named = {"gamma": layer.gamma, "beta": layer.beta}
    named = {name: variable.numpy() for name, variable in named.items() if variable is not None}
    if "gamma" in named:
        named["gamma"] = named["gamma"] * sign
    weights = [*named.values(), layer.moving_mean.numpy() * sign, layer.moving_variance.numpy()]
    own = layer.gamma_constraint or tf_keras.constraints.NonNeg()
    return clone(layer, gamma_constraint=own, weights=weights)
