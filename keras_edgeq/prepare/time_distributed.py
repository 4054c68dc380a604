"""`TimeDistributed` opened: its layer on batch and time as one, or on the tensor as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tf_keras

from keras_edgeq.graph import keras_compat
from keras_edgeq.spec.tensor_ref import part_name

L = tf_keras.layers
# Layers that compute each position of all axes but the last on its own.
EACH = (L.Dense, L.Activation, L.ReLU, L.LeakyReLU, L.ELU, L.Dropout, L.Rescaling, L.Embedding)


def why_together(x: Any) -> str | None:
    """Return why `TimeDistributed` stays whole on an input; None if it is opened."""
    if not keras_compat.is_keras_tensor(x):
        return "it reads several tensors"
    if keras_compat.mask_of(x) is not None:
        return "its input carries a mask"
    if x.shape.rank is None or None in tuple(x.shape)[2:]:
        return "sizes behind the time axis are not known"
    return None


def each_step(layer: Any, name: str, inner: Callable[[Any], Any], x: Any) -> Any | None:
    """Return what a layer's inner one makes of every step; None if steps cannot be put together.

    Args:
        layer: of class `TimeDistributed`.
        name: reshapes around the inner layer are named by it.
        inner: what the inner layer became.
        x: symbolic, for which `why_together` is None.
    """
    if type(layer.layer) in EACH:
        return inner(x)
    merged = tf.reshape(x, (-1, *x.shape[2:]))
    made = inner(_named(merged, part_name(name, "in")))
    sizes = made.shape[1:] if keras_compat.is_keras_tensor(made) else (None,)
    if None in tuple(sizes) or keras_compat.mask_of(made) is not None:
        return None
    steps = x.shape[1]
    if steps is None:
        shape = _named(tf.shape(x), part_name(name, "shape"))
        steps = _named(shape[1], part_name(name, "steps"))
    return _named(tf.reshape(made, (-1, steps, *sizes)), part_name(name, "out"))


def _named(tensor: Any, name: str) -> Any:
    keras_compat.rename(keras_compat.producer(tensor)[0], name)
    return tensor
