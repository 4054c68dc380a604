"""`PrecisionStudy`: what analyses and searches over precisions share: grids, evaluator, score."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras

from keras_edgeq.errors import EdgeqError
from keras_edgeq.graph.rebuild import rebuild
from keras_edgeq.measure.candidate_grids import CandidateGrids, candidate_grids
from keras_edgeq.measure.evaluator import Evaluator
from keras_edgeq.measure.fingerprint import fingerprint
from keras_edgeq.measure.groups import SearchSpace, width
from keras_edgeq.measure.jobs import check_jobs
from keras_edgeq.measure.measurement_log import MeasurementLog
from keras_edgeq.measure.rounded_weights import round_forms
from keras_edgeq.measure.workers import release
from keras_edgeq.nearest import did_you_mean
from keras_edgeq.ptq.gptq import gptq
from keras_edgeq.ptq.session import PtqSession
from keras_edgeq.sim.derive import raise_scales
from keras_edgeq.sim.judge import say
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.streams.store import StoredBatches

ROUNDINGS = ("nearest", "gptq")
Score = Callable[[tf_keras.Model], float]


class PrecisionStudy:
    """A sim, its candidates and data, ready to be measured.

    A context manager: leaving it deletes what it keeps on disk, except the folder of `resume`.

    Args:
        space: a calibrated sim, which is not changed, and what it can become.
        data: in any form `keras_edgeq.quantize` takes; labels are not used.
        rounding: `"nearest"` or `"gptq"`.
        batch_size: for arrays and files.
        steps: read at most that many batches.
        memory_bytes: what is kept of the data stays in memory up to that size.
        resume: folder of what was measured, made where it is missing; None keeps nothing.
        progress: show progress bars.
        jobs: number of processes that measure; None if joblib's context says or they pay.

    Attributes:
        judged: batches of model inputs on which choices are judged.

    Raises:
        EdgeqError: no such rounding, the sim cannot be searched, or joblib is missing.
    """

    def __init__(
        self,
        space: SearchSpace,
        data: Any,
        rounding: str,
        batch_size: int,
        steps: int | None,
        memory_bytes: int,
        resume: str | Path | None,
        progress: bool,
        jobs: int | None = None,
    ):
        if rounding not in ROUNDINGS:
            raise EdgeqError(
                f"rounding must be one of {ROUNDINGS}, not {rounding!r}."
                + did_you_mean(rounding, ROUNDINGS)
            )
        check_jobs(jobs)
        self.space, self.rounding, self.progress = space, rounding, progress
        self.sim, self.candidates = space.sim, space.candidates
        grids = candidate_grids(space)
        folder = None if resume is None else Path(resume)
        self._session = PtqSession(
            grids.base, data, batch_size, steps, memory_bytes, None, progress
        )
        try:
            options = {"candidates": self.candidates, "rounding": rounding}
            print_ = fingerprint(self.sim, self._session.source, options)
            log = MeasurementLog(folder and folder / "measured.jsonl", print_)
            self.judged = self._session.source
            if rounding == "gptq":
                grids, self.judged = self._rounded(grids, folder, print_)
            self.evaluator = Evaluator(grids, self.judged, self._session.store, log, progress, jobs)
        except BaseException:
            self._session.store.close()
            raise

    @property
    def grids(self) -> CandidateGrids:
        """What layers and tensors become at each candidate."""
        return self.evaluator.grids

    @property
    def finest(self) -> str:
        """The most precise candidate: widest activations, then widest weights."""
        profile = self.sim.record.profile
        return max(
            self.candidates, key=lambda n: (width(profile, n), profile.precision(n).weight_bits)
        )

    def score(self, choice: Mapping[str, str], score: Score) -> float:
        """Return a user's score of a choice.

        Raises:
            EdgeqError: the score is not a finite number.
        """
        return self._score(choice, score, lambda: self.model_of(choice))

    def _score(
        self, choice: Mapping[str, str], score: Score, model: Callable[[], tf_keras.Model]
    ) -> float:
        log = self.evaluator.log
        known = log.get(choice, "score")
        if known is not None:
            return float(known[0])
        value = score(model())
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = float("nan")
        if not np.isfinite(number):
            raise EdgeqError(
                f"The score of {dict(choice)} is {value!r}; it must be a finite number, the more "
                "the better."
            )
        log.add(choice, "score", np.array([number]))
        return number

    def model_of(self, choice: Mapping[str, str]) -> QuantSim:
        """Return a sim of a choice, with the weights of the grids."""
        made = self.space.sim_of(choice)
        layers = made.quantized_layers()
        for name, candidate in choice.items():
            form = self.grids.forms[name][candidate]
            for parameter, values in form.values.items():
                if form.encodings:
                    getattr(layers[name].layer, parameter).assign(values)
            for parameter, encoding in form.encodings.items():
                layers[name].quantizers[parameter].assign(encoding)
        raise_scales(made)
        return made

    def score_float(self, score: Score) -> float:
        """Return a user's score of the float model.

        Raises:
            EdgeqError: the score is not a finite number.
        """
        return self._score(
            {"": "FP32"}, score, lambda: rebuild(self.space.requantize.prepared.model)
        )

    def _rounded(
        self, grids: CandidateGrids, folder: Path | None, print_: str
    ) -> tuple[CandidateGrids, StoredBatches]:
        """Return grids of rounded weights, and the batches to judge them on.

        Weights are fitted to every second batch and judged on the others: a layer with many inputs
        for few samples fits what it sees too well to be judged by it.
        """
        every = self._session.source
        if len(every) < 2:
            return round_forms(grids, self._session, folder, print_), every
        self._session.source = every.every(2)
        try:
            return round_forms(grids, self._session, folder, print_), every.every(2, 1)
        finally:
            self._session.source = every

    def rounded_model(self, choice: Mapping[str, str]) -> QuantSim:
        """Return a sim of a choice, its weights rounded again behind the layers it has."""
        made = self.space.sim_of(choice)
        say(made)
        if self.rounding == "nearest":
            return made
        return gptq(made, self._session.source, progress=self.progress)

    def __enter__(self) -> PrecisionStudy:
        """Return the study."""
        return self

    def __exit__(self, *_: object) -> None:
        """Delete what is kept on disk."""
        release()
        self.evaluator.close()
        self._session.store.close()
