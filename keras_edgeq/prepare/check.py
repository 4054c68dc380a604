"""Say at once, and in one sentence, why a model cannot be taken."""

from __future__ import annotations

from typing import Any

import numpy as np
import tf_keras

from keras_edgeq.errors import UnsupportedModelError
from keras_edgeq.graph import keras_compat
from keras_edgeq.layers import FakeQuant, QuantizedLayer
from keras_edgeq.prepare.check_layers import check_layers
from keras_edgeq.prepare.own_layers import is_own


def check_model(model: Any) -> None:
    """Raise unless `model` is a built functional or Sequential float `tf_keras` model.

    Raises:
        UnsupportedModelError: names what was given and the way out, or a weight with NaN.
    """
    if not isinstance(model, tf_keras.Model):
        module = type(model).__module__
        raise UnsupportedModelError(f"Got {module}.{type(model).__name__}. Give a tf_keras.Model.")
    if isinstance(model, tf_keras.Sequential) and not keras_compat.is_graph_model(model):
        raise UnsupportedModelError(
            f"Sequential model {model.name!r} is not built: its input shape is unknown. "
            "Start it with tf_keras.Input(shape) or call model.build((None, ...))."
        )
    if is_own(model):
        raise UnsupportedModelError(
            f"Model {model.name!r} ({type(model).__name__}) is subclassed: its graph lives in "
            "Python code. Give keras_edgeq.as_functional(model), which computes the same."
        )
    if any(isinstance(layer, FakeQuant | QuantizedLayer) for layer in model.layers):
        raise UnsupportedModelError(
            f"Model {model.name!r} is a sim already; quantize the float model it came from."
        )
    for layer in model.layers:
        if isinstance(layer, tf_keras.Model):
            check_model(layer)
    check_layers(model)
    for weight in model.weights:
        if weight.dtype.is_floating and not np.isfinite(np.float64(weight)).all():
            name = weight.name.removesuffix(":0")
            raise UnsupportedModelError(f"Weight {name} of {model.name!r} has NaN or infinity.")
