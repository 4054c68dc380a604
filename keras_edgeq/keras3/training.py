"""Losses, metrics and optimizers of Keras 3 as those of `tf_keras`, with which a sim trains."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from operator import attrgetter
from typing import Any

import tf_keras

from keras_edgeq.errors import TrainingError
from keras_edgeq.keras3 import compat

SCHEDULES = "optimizers.schedules"
# Module of both -> the class of Keras 3 that all of its objects have.
KINDS = {
    "losses": "Loss", "metrics": "Metric", "optimizers": "Optimizer",
    SCHEDULES: "LearningRateSchedule", "callbacks": "Callback",
}  # fmt: skip
SUM = ("sum", "none")
MEAN = ("sum_over_batch_size", "mean", "mean_with_sample_weight")
# Settings that say how TensorFlow runs it, or repeat what the class is.
DROPPED = frozenset({"dtype", "fn", "is_legacy_optimizer"})
WAYS_OUT = {
    "losses": "Give a loss of tf_keras, or a function (y_true, y_pred).",
    "metrics": "Give a metric of tf_keras, or a function (y_true, y_pred).",
    "optimizers": "Give an optimizer of tf_keras.",
    SCHEDULES: "Give a schedule of tf_keras.",
}


def as_tf_keras_training(given: Any) -> Any:
    """Return what training is given with each object of Keras 3 as the equal one of `tf_keras`.

    Names and functions stay, as do all objects of `tf_keras`. Keras 3 is not imported for it.

    Args:
        given: a loss, metric, optimizer, schedule or callback, also in a dict or list.

    Raises:
        TrainingError: `tf_keras` has no such class or setting; an optimizer has taken steps; or a
            callback of Keras 3, which only the `fit` of Keras 3 can call.
    """
    if isinstance(given, Mapping):
        return {key: as_tf_keras_training(value) for key, value in given.items()}
    if type(given) in (list, tuple):
        return type(given)(map(as_tf_keras_training, given))
    for module, base in KINDS.items():
        if compat.is_instance(given, module, base):
            return _translated(given, module)
    return given


def _translated(given: Any, module: str) -> Any:
    own = not type(given).__module__.startswith("keras.src.")
    name = type(given).__name__ if own else f"keras.{module}.{type(given).__name__}"
    cls = None if own else getattr(attrgetter(module)(tf_keras), type(given).__name__, None)
    if module == "callbacks":
        there = f"tf_keras.callbacks.{type(given).__name__}" if cls else "one that derives from "
        raise TrainingError(
            f"Callback {name} is of Keras 3, and a sim trains in tf_keras. Give "
            f"{there if cls else there + 'tf_keras.callbacks.Callback'}."
        )
    if cls is None:
        raise TrainingError(
            f"{name} is of Keras 3 and not in tf_keras, in which a sim trains. {WAYS_OUT[module]}"
        )
    if module == "optimizers" and compat.steps_taken(given):
        raise TrainingError(
            f"{name} of Keras 3 has taken {compat.steps_taken(given)} steps, which a sim could not "
            "go on from. Give a new one."
        )
    return cls(**_settings(given, cls, name))


def _settings(given: Any, cls: type, name: str) -> dict[str, Any]:
    """Return the settings of an object of Keras 3 as those of a class of `tf_keras`."""
    allowed = {
        key
        for base in cls.__mro__
        if "__init__" in vars(base)
        for key in inspect.signature(base.__init__).parameters
    }
    config = {}
    for key, value in compat.training_settings(given).items():
        if key in DROPPED:
            continue
        if key == "reduction" and value in (*SUM, *MEAN, None):
            config[key] = "sum_over_batch_size" if value in MEAN else value or "none"
        elif key in allowed and key != "reduction":
            config[key] = as_tf_keras_training(value)
        elif not compat.is_default(given, key, value):
            raise TrainingError(
                f"{name} of Keras 3 has {key}={value!r}, which tf_keras does not have."
            )
    return config
