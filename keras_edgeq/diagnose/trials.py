"""Measure what remedies give, on samples that they are not fitted to."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tf_keras
from numpy.typing import NDArray

from keras_edgeq.diagnose.finding import Finding, Trial
from keras_edgeq.diagnose.remedies import apply_remedy
from keras_edgeq.diagnose.remedy import Remedy
from keras_edgeq.errors import EdgeqError, QuantizationWarning, first_words
from keras_edgeq.graph.rebuild import run
from keras_edgeq.measure.output_loss import OutputLoss
from keras_edgeq.progress import Bar
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.sim.weight_bytes import weight_bytes
from keras_edgeq.streams.store import StoredBatches

Score = Callable[[Any], Any]
CALIBRATE = Remedy("calibrate")
# A sim calibrated on the samples for remedies that loses more says that they are too few.
FEW_DB = 3.0


class Trials:
    """Tries remedies on a sim, each once, however many findings name it.

    Args:
        sim: the sim; it is not changed.
        model: its float model.
        fit: batches for remedies that read data.
        judge: batches that they are judged on.
        score: of the user, higher is better; None without.

    Attributes:
        base: loss of the sim on the batches to judge on.
        outputs: of the float model and of the sim there, an array per output.
        score: of the sim; None without.
    """

    def __init__(
        self,
        sim: QuantSim,
        model: tf_keras.Model,
        fit: StoredBatches,
        judge: StoredBatches,
        score: Score | None,
    ):
        self._sim, self._fit, self._judge, self._score = sim, fit, judge, score
        self._exact = [_outputs(model, batch) for batch in judge]
        sims = [_outputs(sim, batch) for batch in judge]
        self.outputs = tuple(
            [np.concatenate(column) for column in zip(*parts, strict=True)]
            for parts in (self._exact, sims)
        )
        pairs = zip(self._exact, sims, strict=True)
        self.base = OutputLoss.total(OutputLoss.of(exact, rounded) for exact, rounded in pairs)
        self.score = None if score is None else scored(score, sim)
        self._known: dict[Remedy, Trial] = {}

    def try_all(
        self, findings: Sequence[Finding], budget: float | None, bar: Bar
    ) -> tuple[Finding, ...]:
        """Return findings with what was tried for them.

        Args:
            findings: the costliest first.
            budget: seconds; no remedy is begun past them. None sets no limit.
            bar: moves by one for each finding.
        """
        begin, made = time.perf_counter(), []
        for number, finding in enumerate(findings):
            trials: list[Trial] = []
            for remedy in finding.remedies:
                if budget is not None and time.perf_counter() - begin > budget:
                    break
                trials.append(self(remedy))
                if trials[-1].wins(finding):
                    break
            made.append(replace(finding, trials=tuple(trials)))
            bar.to(number + 1)
        return tuple(made)

    @property
    def lost_db(self) -> float:
        """What a sim loses by calibration on the samples for remedies; 0 if none read them."""
        again = self._known.get(CALIBRATE)
        return 0.0 if again is None or again.failed else -again.gain_db

    def __call__(self, remedy: Remedy) -> Trial:
        """Try a remedy."""
        if remedy not in self._known:
            self._known[remedy] = self._tried(remedy)
        return self._known[remedy]

    def _tried(self, remedy: Remedy) -> Trial:
        begin = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", QuantizationWarning)
                made = apply_remedy(remedy, self._sim, self._fit)
        except EdgeqError as error:
            return Trial(remedy, failed=first_words(error))
        seconds = time.perf_counter() - begin
        score = None if self._score is None else scored(self._score, made)
        loss = self._loss(made)
        base_db, base = self._reference(remedy)
        return Trial(
            remedy,
            sqnr_db=loss.sqnr_db,
            gain_db=loss.sqnr_db - base_db,
            score=score,
            gain_score=None if score is None or base is None else score - base,
            bytes=weight_bytes(made) - weight_bytes(self._sim),
            seconds=seconds,
        )

    def _reference(self, remedy: Remedy) -> tuple[float, float | None]:
        """Return SQNR and score of what a remedy is measured beside."""
        if remedy.reads_data and remedy != CALIBRATE:
            again = self(CALIBRATE)
            if not again.failed:
                return again.sqnr_db, again.score
        return self.base.sqnr_db, self.score

    def _loss(self, sim: QuantSim) -> OutputLoss:
        parts = zip(self._exact, self._judge, strict=True)
        return OutputLoss.total(OutputLoss.of(e, _outputs(sim, batch)) for e, batch in parts)


def scored(score: Score, model: Any) -> float:
    """Return a user's score of a model.

    Raises:
        EdgeqError: it is not a finite number.
    """
    value = score(model)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise EdgeqError(
            f"The score of {getattr(model, 'name', model)!r} is {value!r}; it must be a finite "
            "number, the more the better."
        )
    return number


def _outputs(model: tf_keras.Model, batch: Sequence[Any]) -> list[NDArray]:
    import tensorflow as tf

    return [np.asarray(part) for part in tf.nest.flatten(run(model, batch))]
