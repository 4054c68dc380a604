"""Metrics in the forms that users have them, over batches of predictions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from keras_edgeq.errors import CalibrationDataError, EdgeqError
from keras_edgeq.nearest import did_you_mean

# Names that stand for other metrics, by the form of the labels.
BY_FORM = {"accuracy": "accuracy", "acc": "accuracy", "crossentropy": "crossentropy"}


class Metric:
    """A metric over batches.

    Args:
        metric: a function `(y_true, y_pred) -> number`, a metric object of `tf_keras` or Keras 3,
            or the name of one of `tf_keras`. An object is reset. A function sees all samples at
            once; of a number per sample the mean is taken.
        most_bytes: what labels and predictions may take that are kept for a function.

    Attributes:
        name: of the metric.

    Raises:
        EdgeqError: it is none of these.
    """

    def __init__(self, metric: Any, most_bytes: int):
        self.name = _name(metric)
        self._most_bytes, self._bytes = most_bytes, 0
        self._kept: list[tuple[Any, Any]] = []
        self._metric = _named(metric) if isinstance(metric, str) else metric
        if _is_object(self._metric):
            self._metric.reset_state()
        self._state = self._read()

    @property
    def is_split(self) -> bool:
        """Whether several of the same object can be filled in turn: its state is in variables."""
        return not _is_object(self._metric) or bool(self._metric.variables)

    def add(self, labels: Any, predictions: Any, weights: Any = None) -> None:
        """Add a batch."""
        if isinstance(self._metric, str):
            self._metric = _by_form(self._metric, labels, predictions)
            self._state = self._read()
        if _is_object(self._metric):
            self._write()
            given = {} if weights is None else {"sample_weight": weights}
            self._metric.update_state(labels, predictions, **given)
            self._state = self._read()
            return
        if weights is not None:
            raise EdgeqError(
                f"The data has weights of samples, and the function {self.name} takes none. Give a "
                "metric object, or data without weights."
            )
        parts = tf.nest.flatten((labels, predictions))
        self._bytes += sum(part.nbytes for part in parts)
        if self._bytes > self._most_bytes:
            raise EdgeqError(
                f"Labels and predictions for the function {self.name} take more than memory_bytes="
                f"{self._most_bytes}. Give a metric object, which keeps none, or fewer samples."
            )
        self._kept.append((labels, predictions))

    def result(self) -> float:
        """Return the value over all batches.

        Raises:
            EdgeqError: the function does not return a number.
        """
        if _is_object(self._metric):
            self._write()
            return self._number(self._metric.result())
        labels, predictions = tf.nest.map_structure(
            lambda *parts: np.concatenate(parts), *self._kept
        )
        count = len(tf.nest.flatten(predictions)[0])
        return self._number(self._metric(labels, predictions), count)

    def _number(self, value: Any, count: int = 0) -> float:
        try:
            made = np.asarray(value, np.float64)
        except (TypeError, ValueError):
            made = np.empty(0)
        if made.size == 1:
            return float(made.reshape(()))
        if count and made.shape[:1] == (count,):
            return float(made.mean())
        raise EdgeqError(
            f"The metric {self.name} returned {type(value).__name__} of shape {made.shape}, not a "
            "number."
        )

    def _read(self) -> list[np.ndarray]:
        if not _is_object(self._metric):
            return []
        return [np.array(variable.numpy()) for variable in self._metric.variables]

    def _write(self) -> None:
        for variable, value in zip(self._metric.variables, self._state, strict=True):
            variable.assign(value)


def as_array(labels: Any, output: str, name: str) -> np.ndarray:
    """Return the labels of one output as numbers.

    Args:
        labels: of a batch, as the data has them.
        output: of the artifact.
        name: of the metric, for errors.

    Raises:
        CalibrationDataError: the data has none, or not of this output.
    """
    if labels is None:
        raise CalibrationDataError(
            f"The data has no labels for {name}. Give (inputs, labels), batches of such, or an "
            ".npz file with the labels as 'y'."
        )
    if isinstance(labels, Mapping):
        if output not in labels and len(labels) > 1:
            raise CalibrationDataError(
                f"The data has labels for {sorted(labels)}, not for the output {output!r}."
                + did_you_mean(output, labels)
            )
        labels = labels.get(output, next(iter(labels.values())))
    made = np.asarray(labels)
    if made.dtype.kind not in "biuf":
        raise CalibrationDataError(f"The labels are of type {made.dtype}, not numbers.")
    return made


def _name(metric: Any) -> str:
    if isinstance(metric, str):
        return metric
    if _is_object(metric) and not inspect.isclass(metric):
        return str(metric.name)
    if inspect.isclass(metric) or not callable(metric):
        hint = ": give an object, with ()" if inspect.isclass(metric) else ""
        raise EdgeqError(
            f"{getattr(metric, '__name__', repr(metric))} is no metric{hint}. A metric is a "
            "function (y_true, y_pred) -> number, a metric object, or the name of one."
        )
    name = getattr(metric, "__name__", type(metric).__name__)
    return "metric" if name == "<lambda>" else name


def _is_object(metric: Any) -> bool:
    return all(hasattr(metric, name) for name in ("update_state", "reset_state", "result"))


def _named(name: str) -> Any:
    """Return the metric of a name, or its plain name if the labels decide."""
    if name in BY_FORM:
        return BY_FORM[name]
    try:
        found = tf_keras.metrics.get(name)
    except ValueError:
        found = None
    if not callable(found):
        known = [*BY_FORM, *dir(tf_keras.metrics)]
        raise EdgeqError(f"No metric {name!r}.{did_you_mean(name, known)}")
    return found if _is_object(found) else tf_keras.metrics.MeanMetricWrapper(found, name=name)


def _by_form(name: str, labels: np.ndarray, predictions: np.ndarray) -> Any:
    """Return what Keras takes a name for: by the sizes of labels and predictions."""
    if predictions.ndim < 2 or predictions.shape[-1] == 1:
        kind = "binary_"
    elif labels.shape == predictions.shape:
        kind = "categorical_"
    else:
        kind = "sparse_categorical_"
    function: Callable[..., Any] = tf_keras.metrics.get(kind + name)
    return tf_keras.metrics.MeanMetricWrapper(function, name=name)
