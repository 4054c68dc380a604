"""What a call of Keras 3 is given and makes, as tensors of TensorFlow."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras

from keras_edgeq.errors import UnsupportedModelError
from keras_edgeq.graph import keras_compat
from keras_edgeq.keras3 import compat

# Types that a tensor of TensorFlow and of Keras 3 may have beside each other.
FLOATS = ("float32", "float64")


def like_symbol(made: Any, symbol: Any, is_any_batch: bool = False) -> Any:
    """Return a tensor with the sizes and type that it has in Keras 3.

    What numbers of NumPy make float64 in Keras 3 stays float32, as targets have it. Where the
    symbol has a batch of a fixed size, `is_any_batch` leaves the first size open.
    """
    if not keras_compat.is_keras_tensor(made):
        return made
    if made.dtype.name != symbol.dtype and (made.dtype.name, symbol.dtype) != FLOATS:
        made = tf.cast(made, symbol.dtype)
    known, wanted = made.shape.rank, tuple(symbol.shape)
    if is_any_batch and wanted:
        wanted = (None, *wanted[1:])
    if known not in (None, len(wanted)):  # the comparison of the layer's numbers decides
        return made
    lost = known is None or any(
        one is None and other is not None for one, other in zip(made.shape, wanted, strict=True)
    )
    return tf.ensure_shape(made, wanted) if lost else made


def as_arrays(given: Any) -> Any:
    """Return arguments with variables of Keras 3 as arrays."""
    import keras

    def leaf(value):
        is_symbol = keras_compat.is_keras_tensor(value)
        if isinstance(value, keras.Variable) or (not is_symbol and keras.ops.is_tensor(value)):
            array = value.numpy() if isinstance(value, keras.Variable) else value
            array = keras.ops.convert_to_numpy(array)
            return tf.constant(array, *(["float32"] if array.dtype == "float64" else []))
        return value

    return keras.tree.map_structure(leaf, given)


def input_like(symbol: Any, is_open: bool) -> Any:
    """Return the input of a model that stands for one of Keras 3, its batch open if asked.

    Raises:
        UnsupportedModelError: it is sparse or ragged.
    """
    layer = compat.input_layer(symbol)
    if getattr(symbol, "sparse", False) or getattr(symbol, "ragged", False):
        raise UnsupportedModelError(
            f"Input {layer.name!r} is sparse or ragged; give dense tensors."
        )
    shape = tuple(symbol.shape)
    shape = (None, *shape[1:]) if is_open and shape else shape
    return tf_keras.Input(batch_shape=shape, dtype=symbol.dtype, name=layer.name)
