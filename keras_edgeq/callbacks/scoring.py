"""Score a sim with the loss and the metrics that its float model was compiled with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf
import tf_keras

from keras_edgeq.errors import CalibrationDataError, UnsupportedModelError
from keras_edgeq.graph import keras_compat
from keras_edgeq.sim import QuantSim

SCORED_BY = ("loss", "metrics", "loss_weights", "weighted_metrics")


def check_validation(validation: Any) -> None:
    """Raise unless the data can be read again for every epoch.

    Raises:
        CalibrationDataError: names what was given and the way out.
    """
    if isinstance(validation, Iterator):
        raise CalibrationDataError(
            f"Validation data is a {type(validation).__name__}, which can be read only once. Give "
            "(x, y), a tf.data.Dataset or a Sequence."
        )
    endless = int(tf.data.INFINITE_CARDINALITY)
    if isinstance(validation, tf.data.Dataset) and int(validation.cardinality()) == endless:
        raise CalibrationDataError("The validation dataset repeats forever; give .take(batches).")
    if isinstance(validation, tuple) and len(validation) not in (2, 3):
        raise CalibrationDataError(
            f"Validation data is a tuple of {len(validation)}; give (x, y) or (x, y, weights)."
        )


def compile_like(sim: QuantSim, model: tf_keras.Model) -> None:
    """Compile a sim with the loss of a model and with copies of its metrics.

    Raises:
        UnsupportedModelError: there is neither loss nor metric, or a metric cannot be copied.
    """
    given = keras_compat.compile_arguments(model) or {}
    chosen = {name: given.get(name) for name in SCORED_BY}
    if chosen["loss"] is None and not chosen["metrics"] and not chosen["weighted_metrics"]:
        raise UnsupportedModelError(
            f"Model {model.name!r} is compiled without loss and metrics, so its quantized weights "
            "cannot be scored; give compile() one."
        )
    for name in ("metrics", "weighted_metrics"):
        chosen[name] = _copied(chosen[name])
    sim.compile(**chosen)


def evaluate(
    sim: QuantSim, model: tf_keras.Model, validation: Any, batch_size: int
) -> dict[str, float]:
    """Return the sim's loss and metrics, with the weight regularization of the float model."""
    if isinstance(validation, tuple):
        x, y, weight = tf_keras.utils.unpack_x_y_sample_weight(validation)
        data = {"x": x, "y": y, "sample_weight": weight, "batch_size": batch_size}
    else:
        data = {"x": validation}
    scores = sim.evaluate(**data, verbose=0, return_dict=True)
    # A folded kernel has another norm than the one that is trained.
    extra = keras_compat.weight_penalty(model) - keras_compat.weight_penalty(sim)
    return {**scores, "loss": scores["loss"] + extra}


def _copied(metrics: Any) -> Any:
    """Return metrics in the same structure; objects with a state of their own are copied."""
    if isinstance(metrics, dict):
        return {name: _copied(value) for name, value in metrics.items()}
    if isinstance(metrics, list | tuple):
        return [_copied(value) for value in metrics]
    if not isinstance(metrics, tf_keras.metrics.Metric):
        return metrics
    try:
        return type(metrics).from_config(metrics.get_config())
    except (TypeError, ValueError, NotImplementedError) as error:
        reason = str(error).splitlines()[-1]
        raise UnsupportedModelError(
            f"Metric {metrics.name!r} cannot be copied: {reason} Give {type(metrics).__name__} a "
            "get_config() that returns the arguments of its constructor."
        ) from None
