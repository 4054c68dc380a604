"""What a model is worth on samples: a score with its standard error, and its SQNR."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from keras_edgeq.autoquant.split import Part
from keras_edgeq.diagnose.trials import scored
from keras_edgeq.errors import EdgeqError
from keras_edgeq.evaluate.metrics import Metric
from keras_edgeq.graph.rebuild import run
from keras_edgeq.measure.output_loss import OutputLoss
from keras_edgeq.streams.store import MEMORY_BYTES, TensorStore

Score = Callable[[Any], float]
AGREEMENT = "agreement, %"


@dataclass(frozen=True)
class Judged:
    """What a model is worth.

    Args:
        score: the user's, or how often it agrees with the float model, in percent.
        error: standard error of the score, from the spread of its samples; NaN where only the
            user's function knows them.
        sqnr_db: of the outputs to the float model's, in dB.
    """

    score: float
    error: float
    sqnr_db: float

    def __str__(self) -> str:
        return with_error(self.score, self.error)


@dataclass(frozen=True)
class Target:
    """What a model must reach.

    Args:
        least: smallest score.
        float_score: of the float model.
        drop: most that may be lost, `float_score - least`.
    """

    least: float
    float_score: float

    @property
    def drop(self) -> float:
        """Most that may be lost."""
        return self.float_score - self.least

    def met(self, judged: Judged) -> bool:
        """Tell whether a score is enough."""
        return judged.score >= self.least - 1e-9 * max(1.0, abs(self.least))


class Judge:
    """Judges models on one part of the data.

    Args:
        model: the float model.
        part: samples, with labels if the score is a metric.
        score: function of a model, higher is better; a metric of `tf_keras` or Keras 3 or its name,
            higher is better; None for agreement with the float model.
        store: where the float model's outputs are kept.

    Attributes:
        name: of the score.

    Raises:
        EdgeqError: agreement is asked for, and the model has no classes.
    """

    def __init__(self, model: tf_keras.Model, part: Part, score: Any, store: TensorStore):
        self._part, self._store = part, store
        self._metric = score if is_metric(score) else None
        self._function: Score | None = None if self._metric is not None else score
        self.name = AGREEMENT
        if score is not None:
            named = Metric(score, MEMORY_BYTES).name if self._metric is not None else None
            self.name = named or getattr(score, "__name__", "score").replace("<lambda>", "score")
        elif not any(out.shape.rank and out.shape.rank > 1 and out.shape[-1] != 1
                     for out in model.outputs):  # fmt: skip
            raise EdgeqError(
                f"The outputs of {model.name!r} are no classes, so agreement with the float model "
                "says nothing. Give score=, a function of a model or a metric, higher is better."
            )
        self._exact = [[store.put(t) for t in _outputs(model, b)] for b in part.batches]

    def __call__(self, model: tf_keras.Model) -> Judged:
        """Judge a model.

        Raises:
            EdgeqError: the score is not a finite number.
        """
        losses, values = [], []
        total = Metric(self._metric, MEMORY_BYTES) if self._metric is not None else None
        for number, batch in enumerate(self._part.batches):
            exact = [self._store.get(kept).numpy() for kept in self._exact[number]]
            made = [np.asarray(one) for one in _outputs(model, batch)]
            losses.append(OutputLoss.of(exact, made))
            if total is not None:
                labels = self._part.labels[number]
                one = Metric(self._metric, MEMORY_BYTES)
                one.add(labels, made[0])
                values.append(one.result())
                total.add(labels, made[0])
        loss = OutputLoss.total(losses)
        if total is not None:
            value = scored(lambda _: total.result(), model)
            count = len(values)
            error = float(np.std(values, ddof=1)) / math.sqrt(count) if count > 1 else math.nan
            return Judged(value, error, loss.sqnr_db)
        if self._function is not None:
            return Judged(scored(self._function, model), math.nan, loss.sqnr_db)
        n = self._part.samples
        # With two agreements and two others more (Agresti and Coull), no share has an error of 0.
        share = (0.01 * loss.agreement * n + 2.0) / (n + 4.0)
        return Judged(
            loss.agreement, 100.0 * math.sqrt(share * (1 - share) / (n + 4)), loss.sqnr_db
        )

    def score(self, model: tf_keras.Model) -> float:
        """Return the score alone."""
        return self(model).score


def with_error(score: float, error: float) -> str:
    """Return a score for people, with its standard error where that is known."""
    return f"{score:.5g}" + ("" if math.isnan(error) else f" ± {error:.2g}")


def is_metric(score: Any) -> bool:
    """Tell whether a score is a metric on labels, by name or an object."""
    return isinstance(score, str) or hasattr(score, "update_state")


def _outputs(model: tf_keras.Model, batch: Any) -> list[Any]:
    return tf.nest.flatten(run(model, batch))
