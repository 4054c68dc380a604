"""Operations of `keras.ops` on tensors of TensorFlow."""

from __future__ import annotations

from typing import Any

from keras_edgeq.errors import UnsupportedModelError, first_words
from keras_edgeq.keras3.operation_table import TABLE, Call


def function_of(operation: Any) -> Call:
    """Return an operation as a function on tensors of TensorFlow.

    What is not in the table, and settings that its function lacks, are computed as Keras 3 does on
    its TensorFlow backend.
    """
    known = TABLE.get(type(operation).__name__)
    if known is None or not type(operation).__module__.startswith("keras."):
        return _as_keras_does(operation)
    function, settings = known
    options = settings(operation)

    def compute(*args, **kwargs):
        try:
            return function(*args, **kwargs, **options)
        except Exception:  # of many kinds; the other way says what is wrong if it fails as well
            return _as_keras_does(operation)(*args, **kwargs)

    return compute


def _as_keras_does(operation: Any) -> Call:
    def compute(*args, **kwargs):
        import keras

        name = f"{type(operation).__name__} (operation {operation.name!r})"
        if keras.backend.backend() != "tensorflow":
            raise UnsupportedModelError(
                f"keras_edgeq does not know {name}, and computes others only where Keras has its "
                "TensorFlow backend: set KERAS_BACKEND=tensorflow before Keras is imported."
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
