"""Operations of `keras.ops` on tensors of TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from keras_edgeq.errors import UnsupportedModelError, first_words
from keras_edgeq.keras3.operation_table import TABLE, Call

# Operations that compute something else each time.
RANDOM = frozenset({"ElasticTransform"})


def function_of(operation: Any, outputs: Sequence[Any]) -> Call:
    """Return an operation as a function on tensors of TensorFlow.

    What is not in the table, and settings that its function lacks, are computed as Keras 3 does on
    its TensorFlow backend: the mean of integers, for example, which is real in Keras 3.

    Args:
        operation: of `keras.ops`.
        outputs: symbolic tensors that it made.
    """
    known = TABLE.get(type(operation).__name__)
    if known is None or not type(operation).__module__.startswith("keras."):
        return _as_keras_does(operation)
    function, settings = known
    options = settings(operation)

    def compute(*args, **kwargs):
        try:
            made = function(*args, **kwargs, **options)
            if list(map(_is_real, tf.nest.flatten(made))) != list(map(_is_real, outputs)):
                raise NotImplementedError
            return made
        except Exception:  # of many kinds; the other way says what is wrong if it fails as well
            return _as_keras_does(operation)(*args, **kwargs)

    return compute


def _is_real(tensor: Any) -> bool:
    return tf.as_dtype(tensor.dtype).is_floating


def _as_keras_does(operation: Any) -> Call:
    def compute(*args, **kwargs):
        import keras

        name = f"{type(operation).__name__} (operation {operation.name!r})"
        if keras.backend.backend() != "tensorflow":
            raise UnsupportedModelError(
                f"keras_edgeq does not know {name}, and computes others only where Keras has its "
                "TensorFlow backend: set KERAS_BACKEND=tensorflow before Keras is imported."
            )
        if type(operation).__name__ in RANDOM:
            raise UnsupportedModelError(
                f"keras_edgeq does not know {name}: it draws random numbers. Leave it out of the "
                "model, in front of which it belongs."
            )
        try:
            return operation.call(*args, **kwargs)
        except Exception as error:  # whatever the backend meets in symbolic tensors
            raise UnsupportedModelError(
                f"keras_edgeq does not know {name}, and its TensorFlow form cannot be traced. "
                "Write it with other keras.ops, or leave it out of the model. TensorFlow says: "
                f"{first_words(error)}"
            ) from error

    return compute
