"""Models of Keras 3, as the equal models of `tf_keras`; Keras 3 is imported only for its models."""

from __future__ import annotations

from typing import Any

import tf_keras

from keras_edgeq.errors import UnsupportedModelError
from keras_edgeq.keras3 import compat


def as_tf_keras(model: Any) -> Any:
    """Return the equal `tf_keras` model of a model of Keras 3, and any other value as it is."""
    return from_keras3(model) if compat.is_keras3(model) else model


def from_keras3(model: Any) -> tf_keras.Model:
    """Return the `tf_keras` model that computes what a model of Keras 3 does.

    Every function of the package that takes a float model does this by itself; the result here can
    be kept, and compared. Each layer is compared with its original on the same input, and the
    whole model at its outputs. The given model is not changed.

    Args:
        model: functional or Sequential, nested ones and calls of `keras.ops` included; a subclassed
            model, or a layer of a class of its own, where a symbolic call can follow it. Of any
            backend: weights are read as NumPy arrays.

    Returns:
        A functional model with the same names of layers, inputs and outputs, and the same weights.
        Losses, metrics and optimizers are not taken over: `compile` it with those of `tf_keras`.

    Raises:
        UnsupportedModelError: the value is not such a model, or something in it has no form in
            `tf_keras`; the layer is named.
        SimMismatchError: the result would compute something else, which is a fault of this package;
            the first layer that differs is named.

    Example:
        >>> import keras, keras_edgeq as eq
        >>> x = keras.Input((8, 8, 3))
        >>> y = keras.layers.Conv2D(4, 3, activation="relu", name="conv")(x)
        >>> model = keras.Model(x, keras.ops.mean(y, axis=(1, 2)))
        >>> eq.from_keras3(model).get_layer("conv").get_weights()[0].shape
        (3, 3, 3, 4)
    """
    from keras_edgeq.keras3.check import check_conversion
    from keras_edgeq.keras3.convert import Conversion

    _check_type(model)
    conversion = Conversion(model)
    check_conversion(conversion, model)
    return conversion.result


def to_keras3(model: tf_keras.Model, like: Any) -> Any:
    """Return a copy of a Keras 3 model with the weights of its `tf_keras` form.

    For weights that were changed and layers that were not: a model that `from_keras3` made and
    `tf_keras` trained, for example.

    Args:
        model: has the layers that `from_keras3(like)` has, by name, class and shapes of weights.
        like: the model of Keras 3; it is not changed.

    Raises:
        UnsupportedModelError: a layer is missing, new or another one; it is named.

    Example:
        >>> import keras, keras_edgeq as eq
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> plain = eq.from_keras3(model)
        >>> plain.set_weights([w + 1.0 for w in plain.get_weights()])
        >>> float(eq.to_keras3(plain, like=model).get_weights()[1][0])
        1.0
    """
    from keras_edgeq.keras3.back import copy_back

    _check_type(like)
    return copy_back(model, like)


def _check_type(model: Any) -> None:
    if not compat.is_keras3_model(model):
        raise UnsupportedModelError(
            f"Got {type(model).__module__}.{type(model).__name__} "
            f"{getattr(model, 'name', '')!r}, which is not a model of Keras 3."
        )


__all__ = ["as_tf_keras", "from_keras3", "to_keras3"]
