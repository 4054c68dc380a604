"""What calls of operations are given: constants, axes and their sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_edgeq.graph import keras_compat

# What a function of TensorFlow, or a Keras layer, is called with -> equal numbers made otherwise;
# None where that is not possible.
Rewrite = Callable[..., Any]


def is_constant(value: Any) -> bool:
    """Tell whether no tensor of the model is in an argument."""
    return not any(map(keras_compat.is_keras_tensor, tf.nest.flatten(value)))


def axes_of(x: Any, axis: Any) -> tuple[int, ...]:
    """Return axes counted from the front; none if they are no constants or the batch is one."""
    if axis is None or not is_constant(axis):
        return ()
    axes = tuple(int(a) % x.shape.rank for a in np.ravel(axis))
    return () if 0 in axes else axes


def sizes_of(x: Any, axis: Any) -> dict[int, int]:
    """Return the sizes of axes; none if one is unknown."""
    sizes = {a: x.shape[a] for a in axes_of(x, axis)}
    return {} if None in sizes.values() else sizes
