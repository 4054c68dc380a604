"""Calibration data in any form Keras users have it, as batches in the order of the inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras

from keras_edgeq.errors import CalibrationDataError, QuantizationWarning, warn
from keras_edgeq.nearest import did_you_mean
from keras_edgeq.sim.data_file import read_inputs
from keras_edgeq.sim.odd_values import OddValues

Batch = list[np.ndarray]
# Batches of a source without an end in sight after which a word is due.
MANY = 1_000


class Labelled(NamedTuple):
    """A batch with what else the data says of it; None where it says nothing.

    Attributes:
        inputs: in the order of the model's.
        labels: as the data has them: an array, or arrays by output.
        weights: of the samples.
    """

    inputs: Batch
    labels: Any = None
    weights: Any = None


def batches(
    data: Any,
    model: tf_keras.Model,
    batch_size: int = 32,
    steps: int | None = None,
    notes: list[str] | None = None,
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
        notes: receives remarks on the data, at its end; with None they become warnings.

    Raises:
        CalibrationDataError: nothing to read, a wrong shape, name or type, NaN or infinity; or
            `batch_size` or `steps` is not a count.

    Warns:
        QuantizationWarning: samples far beyond the others, or all of one number; and 1,000 batches
            of a source that does not say how many there will be.
    """
    for batch in labelled_batches(data, model, batch_size, steps, notes, labels=False):
        yield batch.inputs


def labelled_batches(
    data: Any,
    model: tf_keras.Model,
    batch_size: int = 32,
    steps: int | None = None,
    notes: list[str] | None = None,
    labels: bool = True,
) -> Iterator[Labelled]:
    """Yield what `batches` does, and labels and weights beside it.

    Args:
        data: as for `batches`; an `.npz` file holds the labels as `y`.
        model: as for `batches`.
        batch_size: as for `batches`.
        steps: as for `batches`.
        notes: as for `batches`.
        labels: whether to read those of a file.
    """
    check_count("batch_size", batch_size)
    if steps is not None:
        check_count("steps", steps)
    names, odd = list(model.input_names), OddValues(model.input_names)
    is_open = steps is None and not _says_its_length(data)
    if isinstance(data, str | Path):
        data = read_inputs(Path(data), names, labels)
    source = (
        _array_batches(data, model, batch_size, labels)
        if holds_all(data, names)
        else _stream(data, steps)
    )
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
            odd.see(batch)
            if is_open and count == MANY:
                warn(
                    f"The data gave {MANY:,} batches and does not say how many are left. If it "
                    "never ends, stop this and give steps=, the number of batches to read.",
                    QuantizationWarning,
                )
            yield Labelled(batch, *_parts(item, names)[1:])
    if not count:
        raise CalibrationDataError(
            "The data holds no samples. Give an array, dict or list of arrays, .npy or .npz file, "
            "tf.data.Dataset, generator or Sequence with at least one sample; a generator that "
            "was read before is empty."
        )
    for message in odd.messages():
        if notes is None:
            warn(message, QuantizationWarning)
        else:
            notes.append(message)


def fixed_batch(model: tf_keras.Model) -> int | None:
    """Return the batch size that a model is built for, None if it takes any."""
    return next((s.shape[0] for s in model.inputs if s.shape[0] is not None), None)


def holds_all(data: Any, names: list[str]) -> bool:
    """Tell whether data is all samples at once, for inputs of these names, and no batches."""
    return _holds_arrays(data) or _is_labelled(data, names)


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raise unless an argument is a whole number.

    Raises:
        CalibrationDataError: it is not a whole number, or below `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise CalibrationDataError(
            f"{name} is {value!r}; it must be a whole number, at least {least}."
        )


def _says_its_length(data: Any) -> bool:
    if isinstance(data, tf.data.Dataset):
        return int(data.cardinality()) != int(tf.data.UNKNOWN_CARDINALITY)
    return isinstance(data, str | Path) or hasattr(data, "__len__") or _is_array(data)


def _holds_arrays(data: Any) -> bool:
    values = data.values() if isinstance(data, dict) else data
    if isinstance(data, dict | list | tuple):
        return len(data) > 0 and all(_is_array(v) for v in values)
    return _is_array(data)


def _is_labelled(data: Any, names: list[str]) -> bool:
    """Tell whether a tuple is all inputs and all labels, in dicts or lists, and no two batches."""
    if not (isinstance(data, tuple) and len(data) in (2, 3)):
        return False
    inputs, labels = data[:2]
    if _is_array(inputs):
        return _holds_arrays(labels)
    other = _is_array(labels) or (isinstance(labels, dict) and not set(names) <= set(labels))
    return _holds_arrays(inputs) and other


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | tf.Tensor)


def _array_batches(data: Any, model, batch_size: int, labels: bool) -> Iterator[Any]:
    parts = [v if isinstance(v, np.ndarray) else np.asarray(v) for v in _inputs(data, model)]
    beside: Any = (None, None)
    if labels:
        beside = tuple(map(_as_arrays, _parts(data, list(model.input_names))[1:]))
    every = [*parts, *(part for part in tf.nest.flatten(beside) if part is not None)]
    lengths = {len(part) if part.ndim else 0 for part in every}
    if len(lengths) != 1:
        raise CalibrationDataError(f"The arrays have different lengths: {sorted(lengths)}.")
    size = fixed_batch(model) or batch_size
    for start in range(0, lengths.pop(), size):
        inputs = [part[start : start + size] for part in parts]
        cut = (_rows(part, start, start + size) for part in beside)
        yield (inputs, *cut) if labels else inputs


def _as_arrays(value: Any) -> Any:
    return None if value is None else tf.nest.map_structure(np.asarray, value)


def _rows(value: Any, start: int, stop: int) -> Any:
    return None if value is None else tf.nest.map_structure(lambda part: part[start:stop], value)


def _stream(data: Any, steps: int | None) -> Iterable[Any]:
    if isinstance(data, tf.data.Dataset):
        if steps is None and int(data.cardinality()) == int(tf.data.INFINITE_CARDINALITY):
            raise CalibrationDataError("The dataset repeats forever; give steps=.")
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
    item = _parts(item, names)[0]
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


def _parts(item: Any, names: list[str]) -> tuple[Any, Any, Any]:
    """Return inputs, labels and weights of a batch, None for those that it does not have."""
    if isinstance(item, tuple) and item and not _fits(item, names):
        inputs, labels, weights = (*item, None, None)[:3]
        return inputs, labels, weights
    return item, None, None


def _fits(item: tuple, names: list[str]) -> bool:
    """Tell whether a tuple is the inputs themselves: as many arrays as a multi-input model has."""
    return len(names) > 1 and len(item) == len(names) and all(_is_array(part) for part in item)


def _checked(part: Any, symbol: Any, name: str) -> np.ndarray:
    try:
        given = np.asarray(part)
        _check_type(part, given, symbol.dtype, name)
        with np.errstate(invalid="ignore", over="ignore"):  # looked at below
            array = given.astype(symbol.dtype.as_numpy_dtype, copy=False)
    except CalibrationDataError:
        raise
    except (TypeError, ValueError):
        raise CalibrationDataError(
            f"Input {name!r}: cannot turn {type(part).__name__} into {symbol.dtype.name}."
        ) from None
    if array.dtype.kind in "iu" and given.dtype.kind in "iuf" and not np.array_equal(array, given):
        raise CalibrationDataError(
            f"Input {name!r}: the model takes {symbol.dtype.name}, and the data ({given.dtype}) "
            "has numbers that do not fit it, such as fractions or larger ones."
        )
    if not symbol.shape.is_compatible_with(array.shape):
        hint = " Add the batch axis." if array.ndim + 1 == symbol.shape.rank else ""
        raise CalibrationDataError(
            f"Input {name!r}: a batch has shape {array.shape}, the model takes "
            f"{tuple(symbol.shape)}.{hint}"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise CalibrationDataError(f"Input {name!r} has NaN or infinite values.")
    return array


def _check_type(part: Any, array: np.ndarray, wanted: tf.DType, name: str) -> None:
    """Refuse what NumPy would turn into numbers by losing or inventing something."""
    if isinstance(part, np.ma.MaskedArray) and np.ma.is_masked(part):
        raise CalibrationDataError(
            f"Input {name!r} is a masked array with {np.ma.count_masked(part)} masked values; the "
            "model would see the numbers under the mask. Fill them: array.filled(0.0)."
        )
    try:
        given = tf.as_dtype(array.dtype)
    except TypeError:  # dates, records
        given = None
    is_number = given is not None and (given.is_floating or given.is_integer or given.is_bool)
    if not is_number and given != wanted:
        raise CalibrationDataError(
            f"Input {name!r} is of type {array.dtype}, which holds no real numbers; the model "
            f"takes {wanted.name}. Convert it yourself, in the way that the model was trained with."
        )
