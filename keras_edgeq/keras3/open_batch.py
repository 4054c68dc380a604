"""Layers of Keras 3 that read the size of their batch, as `ops.shape(x)[0]`.

That size is None in a symbolic call, and most code cannot compute with None. Such a layer is called
on a batch of a fixed size instead, and what it made of that number is opened again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.rebuild import symbols_in
from keras_edgeq.keras3 import compat
from keras_edgeq.spec.tensor_ref import part_name

BATCH = 2


def reads_batch(graph: Any) -> bool:
    """Tell whether a graph of an open batch has reshapes to a size that is not known."""
    return any(
        type(node.operation).__name__ == "Reshape"
        and not compat.is_keras3(node.operation)
        and list(node.operation.newshape).count(None) > 0
        for node in compat.nodes(graph)
    )


def batch_of(node: Any) -> tuple[int | None, ...]:
    """Return the size of the batch that a call reads; none of a single number."""
    read = compat.symbols(node)
    return read[0].shape[:1] if read else (None,)


def for_any_batch(node: Any, compute: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function of a call that was traced on a batch of `BATCH`, for any batch."""
    name = type(node.operation).__name__
    if name == "Reshape" and not compat.is_keras3(node.operation):
        sizes = tuple(node.outputs[0].shape[1:])
        if None not in sizes:
            return lambda x: tf.reshape(x, (-1, *sizes))

    def opened(*args: Any, **kwargs: Any) -> Any:
        symbols = symbols_in((args, kwargs))
        rows = part_name(node.operation.name, "rows")
        changed = tf.nest.map_structure(
            lambda value: _repeated(value, symbols, rows), (args, kwargs)
        )
        return compute(*changed[0], **changed[1])

    return opened


def _repeated(value: Any, symbols: list[Any], name: str) -> Any:
    """Return a constant of equal rows, one per sample of the fixed batch, as one of any batch."""
    if not isinstance(value, tf.Tensor) or keras_compat.is_keras_tensor(value) or not symbols:
        return value
    like, rows = symbols[0], value.shape[0] if value.shape.rank else None
    if rows != BATCH or value.shape.rank != like.shape.rank or value.shape.rank < 2:
        return value
    array = value.numpy()
    if not np.array_equal(array[0], array[1]):
        return value
    if array.shape[1:] == (1, like.shape[-1]) and like.shape.rank == 3:
        first = like[:, :1]  # targets have kernels for this, and none for a constant that is tiled
        if first.shape[1] == 1:
            keras_compat.rename(keras_compat.producer(first)[0], part_name(name, "first"))
            return tf_keras.layers.Rescaling(0.0, array[0, 0].tolist(), name=name)(first)
    return tf.tile(value[:1], [tf.shape(like)[0], *[1] * (array.ndim - 1)])
