"""Bring weights of a `tf_keras` model back to the model of Keras 3 that it was made of."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import tf_keras

from keras_edgeq.errors import UnsupportedModelError, first_words
from keras_edgeq.graph import keras_compat
from keras_edgeq.keras3 import compat
from keras_edgeq.keras3.convert import Conversion


def copy_back(model: tf_keras.Model, like: Any) -> Any:
    """Return a copy of `like` with the weights of `model`, whose layers are those it became."""
    copy = _cloned(like)
    copy.set_weights(like.get_weights())  # of what became constants, like an adapted Normalization
    compat.take_statistics(copy)
    conversion = Conversion(like)
    copies = compat.counterparts(like, copy)  # layers in a user's own may have other names
    found = _by_path(model)
    weighted = {path: pair for path, pair in conversion.pairs.items() if pair[1].weights}
    for path, first in _second_models(conversion).items():
        _check_second(path, first, found, model.name)
        found.pop(path, None)
    for path in [*weighted, *(p for p in found if found[p].weights)]:
        wanted, given = weighted.get(path), found.get(path)
        if wanted is None or given is None or not _alike(wanted[1], given):
            had = "has no such layer" if wanted is None else f"has a {type(wanted[0]).__name__}"
            here = "missing" if given is None else f"a {type(given).__name__}"
            raise UnsupportedModelError(
                f"Layer {path!r} is {here} in {model.name!r}, and {like.name!r} {had}: weights go "
                "back only where the layers are the same. A model with folded batch norms or other "
                "layers stays one of tf_keras."
            )
    for path, (theirs, _) in weighted.items():
        own = compat.own_weights(copies[id(theirs)])
        for variable, value in zip(own, found[path].get_weights(), strict=True):
            variable.assign(value)
    return copy


def _second_models(conversion: Conversion) -> dict[str, str]:
    """Return layers in a second model of a layer called with a mask and without -> in the first."""
    first = {id(ours): path for path, (_, ours) in conversion.pairs.items()}
    made = _by_path(conversion.result)
    return {p: first[id(made[p])] for p in made if first.get(id(made[p]), p) != p}


def _check_second(
    path: str, first: str, found: dict[str, tf_keras.layers.Layer], name: str
) -> None:
    """Raise unless a layer in a second model has the weights of the same layer in the first."""
    pair = [found.get(one) for one in (first, path)]
    values = [[] if layer is None else layer.get_weights() for layer in pair]
    if len(values[0]) != len(values[1]) or not all(map(np.array_equal, *values)):
        raise UnsupportedModelError(
            f"Layers {first!r} and {path!r} of {name!r} have different weights. They are one layer "
            "of the model of Keras 3, in a layer that is called with a mask and without: train a "
            "model in which they share their weights, as from_keras3 makes it."
        )


def _cloned(model: Any) -> Any:
    import keras

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The object being serialized includes a `lambda`")
            return keras.models.clone_model(model)
    except Exception as error:  # of many kinds
        raise UnsupportedModelError(
            f"Keras cannot copy {model.name!r}: give its layers a get_config(), and its functions "
            "names of their own, registered by keras.saving.register_keras_serializable. Keras "
            f"says: {first_words(error)}"
        ) from error


def _alike(one: tf_keras.layers.Layer, other: tf_keras.layers.Layer) -> bool:
    shapes = [[tuple(w.shape) for w in layer.weights] for layer in (one, other)]
    return type(one) is type(other) and shapes[0] == shapes[1]


def _by_path(model: tf_keras.Model, path: str = "") -> dict[str, tf_keras.layers.Layer]:
    found: dict[str, tf_keras.layers.Layer] = {}
    for layer in model.layers:
        if keras_compat.is_graph_model(layer):
            found |= _by_path(layer, f"{path}{layer.name}/")
        else:
            found[f"{path}{layer.name}"] = layer
    return found
