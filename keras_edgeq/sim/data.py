"""Calibration data in any form Keras users have it, as batches in the order of the inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from keras_edgeq.errors import CalibrationDataError
from keras_edgeq.nearest import did_you_mean
from keras_edgeq.sim.npz import READ_ERRORS, open_arrays

Batch = list[np.ndarray]
# Data that deflates to a hundredth is all but constant.
MOST_BYTES = 64_000_000
MOST_INFLATION = 100


def batches(
    data: Any, model: tf_keras.Model, batch_size: int = 32, steps: int | None = None
) -> Iterator[Batch]:
    """Yield batches of model inputs, checked against the model.

    Args:
        data: an array `(samples, ...)`, a dict by input name or a list of arrays, the path of an
            `.npy` or `.npz` file, a `tf.data.Dataset`, a generator or a `Sequence` of batches.
            Batches may carry labels, `(inputs, labels[, weights])`; they are left out.
        model: gives names, order, shapes and dtypes of the inputs.
        batch_size: for arrays and files; other sources are batched already. A model with a fixed
            batch gets batches of that size.
        steps: read at most that many batches; needed for endless sources.

    Raises:
        CalibrationDataError: nothing to read, a wrong shape or name, NaN or infinity.
    """
    names = list(model.input_names)
    if isinstance(data, str | Path):
        data = _read_file(Path(data), names)
    arrays = _holds_arrays(data)
    source = _array_batches(data, model, batch_size) if arrays else _stream(data, steps)
    count = 0
    for item in islice(source, steps):
        batch = [
            _checked(part, symbol, name)
            for part, symbol, name in zip(_inputs(item, model), model.inputs, names, strict=True)
        ]
        sizes = {len(part) for part in batch}
        if len(sizes) != 1:
            raise CalibrationDataError(f"The inputs of a batch have different lengths: {sizes}.")
        if sizes != {0}:
            count += 1
            yield batch
    if not count:
        raise CalibrationDataError(
            "The data holds no samples. Give an array, dict or list of arrays, .npy or .npz file, "
            "tf.data.Dataset, generator or Sequence with at least one sample; a generator that "
            "was read before is empty."
        )


def fixed_batch(model: tf_keras.Model) -> int | None:
    """Return the batch size that a model is built for, None where it takes any."""
    return next((s.shape[0] for s in model.inputs if s.shape[0] is not None), None)


def _read_file(path: Path, names: list[str]) -> Any:
    try:
        with open_arrays(path, MOST_BYTES + MOST_INFLATION * path.stat().st_size) as loaded:
            if isinstance(loaded, np.ndarray):
                return loaded
            return {name: loaded[key] for name, key in _keys(path, loaded.files, names).items()}
    except CalibrationDataError:
        raise
    except READ_ERRORS as error:
        raise CalibrationDataError(f"Cannot read {path} as .npy or .npz: {error}") from None


def _keys(path: Path, keys: list[str], names: list[str]) -> dict[str, str]:
    """Return which array of an `.npz` file feeds which input."""
    if set(names) <= set(keys):
        return {name: name for name in names}
    if len(names) == 1 and ("x" in keys or len(keys) == 1):
        return {names[0]: "x" if "x" in keys else keys[0]}
    raise CalibrationDataError(
        f"{path} holds arrays {keys}; the model's inputs are {names}. Name the arrays so"
        + (" (or 'x')." if len(names) == 1 else ".")
    )


def _holds_arrays(data: Any) -> bool:
    values = data.values() if isinstance(data, dict) else data
    if isinstance(data, dict | list | tuple):
        return len(data) > 0 and all(_is_array(v) for v in values)
    return _is_array(data)


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | tf.Tensor)


def _array_batches(data: Any, model, batch_size: int) -> Iterator[Any]:
    parts = [np.asarray(v) for v in _inputs(data, model)]
    lengths = {len(part) if part.ndim else 0 for part in parts}
    if len(lengths) != 1:
        raise CalibrationDataError(f"The arrays have different lengths: {sorted(lengths)}.")
    if batch_size < 1:
        raise CalibrationDataError(f"batch_size is {batch_size}; it is at least 1.")
    size = fixed_batch(model) or batch_size
    for start in range(0, lengths.pop(), size):
        yield [part[start : start + size] for part in parts]


def _stream(data: Any, steps: int | None) -> Iterable[Any]:
    if isinstance(data, tf.data.Dataset):
        if steps is None and int(data.cardinality()) == int(tf.data.INFINITE_CARDINALITY):
            raise CalibrationDataError("The dataset repeats for ever; give steps=.")
        return data
    if isinstance(data, tf_keras.utils.Sequence):
        return (data[i] for i in range(len(data)))
    if isinstance(data, Iterable):
        return data
    raise CalibrationDataError(
        f"Cannot read calibration data from {type(data).__name__}; give an array, dict or list of "
        "arrays, .npy or .npz file, tf.data.Dataset, generator or Sequence."
    )


def _inputs(item: Any, model) -> list[Any]:
    """Return one array per model input out of a batch with or without labels."""
    names = list(model.input_names)
    if isinstance(item, tuple) and not _fits(item, names):
        item = item[0] if item else item
    if isinstance(item, dict):
        missing = [name for name in names if name not in item]
        if missing:
            raise CalibrationDataError(
                f"The data has no {missing}; it has {sorted(item)}, the model's inputs are {names}."
                + did_you_mean(missing[0], item)
            )
        return [item[name] for name in names]
    parts = list(item) if isinstance(item, list | tuple) else [item]
    if len(parts) != len(names):
        raise CalibrationDataError(
            f"A batch has {len(parts)} arrays; the model has {len(names)} inputs: {names}."
        )
    return parts


def _fits(item: tuple, names: list[str]) -> bool:
    """Tell whether a tuple is the inputs themselves: as many arrays as a multi-input model has."""
    return len(names) > 1 and len(item) == len(names) and all(_is_array(part) for part in item)


def _checked(part: Any, symbol: Any, name: str) -> np.ndarray:
    try:
        array = np.asarray(part)
        array = array.astype(symbol.dtype.as_numpy_dtype, copy=False)
    except (TypeError, ValueError):
        raise CalibrationDataError(
            f"Input {name!r}: cannot turn {type(part).__name__} into {symbol.dtype.name}."
        ) from None
    if not symbol.shape.is_compatible_with(array.shape):
        hint = " Add the batch axis." if array.ndim + 1 == symbol.shape.rank else ""
        raise CalibrationDataError(
            f"Input {name!r}: a batch has shape {array.shape}, the model takes "
            f"{tuple(symbol.shape)}.{hint}"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise CalibrationDataError(f"Input {name!r} has NaN or infinite values.")
    return array
