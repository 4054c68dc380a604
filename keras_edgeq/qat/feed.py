"""Training data in any form Keras users have it, as one `tf.data.Dataset` per pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from keras_edgeq.errors import TrainingError

Passes = Callable[[int], tf.data.Dataset]


def passes_over(data: Any, batch_size: int, shuffle: bool = False, seed: int = 0) -> Passes:
    """Return a function that gives the batches of one pass over the data.

    Pass `n` of the same arguments gives the same batches in every process, so that training that
    was killed can go on: arrays are shuffled by `seed` and `n`.

    Args:
        data: arrays x, `(x, y)` or `(x, y, sample_weight)`, each possibly a dict or list; a
            `tf.data.Dataset` or a `Sequence` of such batches; or a function of the number of the
            pass that returns one of these.
        batch_size: for arrays.
        shuffle: for arrays.
        seed: of the order of arrays.

    Raises:
        TrainingError: data that cannot be read again, or of another type.
    """
    if isinstance(data, tf.data.Dataset):
        return lambda number: data
    if isinstance(data, tf_keras.utils.Sequence):
        sequence = _of_sequence(data)
        return lambda number: sequence
    if isinstance(data, Iterator):
        raise TrainingError(
            f"The data is a {type(data).__name__}, which can be read only once; give arrays, a "
            "tf.data.Dataset, a Sequence, or a function of the number of the pass."
        )
    if callable(data):
        return lambda number: passes_over(data(number), batch_size, shuffle, seed)(number)
    arrays = _of_arrays(data)
    count = _length(arrays)

    def shuffled(number: int) -> tf.data.Dataset:
        order = np.arange(count)
        if shuffle:
            order = np.random.default_rng((seed, number)).permutation(count)
        rows = tf.data.Dataset.from_tensor_slices(order).batch(batch_size)
        return _sharded(rows.map(lambda row: _take(arrays, row)))

    return shuffled


def check_length(passes: Passes, steps_per_epoch: int | None, what: str) -> None:
    """Raise on a dataset that is empty, or endless without `steps_per_epoch`.

    Raises:
        TrainingError: says what to do.
    """
    known = int(passes(0).cardinality())
    if known == 0:
        raise empty_error(what)
    if known == int(tf.data.INFINITE_CARDINALITY) and steps_per_epoch is None:
        raise TrainingError(
            f"The {what} dataset repeats forever; give "
            + ("steps_per_epoch=." if what == "training" else ".take(batches).")
        )


def batches_in(dataset: tf.data.Dataset) -> int | None:
    """Return how many batches a dataset has, None if only reading it tells."""
    known = int(dataset.cardinality())
    return known if known >= 0 else None


def empty_error(what: str) -> TrainingError:
    """Return what to raise where the data holds no batch."""
    return TrainingError(f"The {what} data holds no samples; give at least one.")


def _of_arrays(data: Any) -> Any:
    """Return arrays as tensors on the host; lists become tuples, as datasets have them."""
    if isinstance(data, dict):
        return {name: _of_arrays(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return tuple(_of_arrays(value) for value in data if value is not None)
    if not isinstance(data, np.ndarray | tf.Tensor):
        raise TrainingError(
            f"Cannot read training data from {type(data).__name__}; give arrays x, (x, y) or (x, "
            "y, sample_weight), a tf.data.Dataset, a Sequence, or a function of the number of the "
            "pass that returns one."
        )
    with tf.device("CPU:0"):
        return tf.identity(data)


def _length(arrays: Any) -> int:
    lengths = {int(part.shape[0]) if part.shape.rank else 0 for part in tf.nest.flatten(arrays)}
    if len(lengths) != 1:
        raise TrainingError(f"The arrays have different lengths: {sorted(lengths)}.")
    return lengths.pop()


def _take(arrays: Any, row: Any) -> Any:
    return tf.nest.map_structure(lambda tensor: tf.gather(tensor, row), arrays)


def _of_sequence(sequence: Any) -> tf.data.Dataset:
    if not len(sequence):
        raise empty_error("training")

    def signature(part):
        array = np.asarray(part)
        return tf.TensorSpec([None, *array.shape[1:]], array.dtype)

    def read():
        return (sequence[i] for i in range(len(sequence)))

    spec = tf.nest.map_structure(signature, sequence[0])
    dataset = tf.data.Dataset.from_generator(read, output_signature=spec)
    return _sharded(dataset.apply(tf.data.experimental.assert_cardinality(len(sequence))))


def _sharded(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Let several workers that read the same data take a part of each batch."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options)
