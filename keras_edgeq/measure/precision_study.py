"""`Study`: what every analysis and search over precisions needs: a bank, an evaluator, a score."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras

from keras_edgeq.errors import EdgeqError
from keras_edgeq.graph.rebuild import rebuild
from keras_edgeq.measure.candidate_grids import Bank, make_bank
from keras_edgeq.measure.evaluator import Evaluator
from keras_edgeq.measure.fingerprint import fingerprint
from keras_edgeq.measure.groups import SearchSpace, width
from keras_edgeq.measure.jobs import check_jobs
from keras_edgeq.measure.measurement_log import Ledger
from keras_edgeq.measure.rounded_weights import round_forms
from keras_edgeq.measure.workers import release
from keras_edgeq.nearest import did_you_mean
from keras_edgeq.ptq.gptq import gptq
from keras_edgeq.ptq.session import Workshop
from keras_edgeq.sim.derive import raise_scales
from keras_edgeq.sim.judge import say
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.streams.store import StoredBatches

ROUNDINGS = ("nearest", "gptq")
Score = Callable[[tf_keras.Model], float]


class Study:
    """A sim, its candidates and data, ready to be measured.

    A context manager: leaving it deletes what it keeps on disk, but for the folder of `resume`.

    Args:
        space: a calibrated sim, which is not changed, and what it can become.
        data: in any form `keras_edgeq.quantize` takes; labels are not used.
        rounding: `"nearest"` or `"gptq"`.
        batch_size: for arrays and files.
        steps: read at most that many batches.
        memory_bytes: what is kept of the data stays in memory up to that size.
        resume: folder of what was measured, made where it is missing; None keeps nothing.
        progress: show progress bars.
        jobs: number of processes that measure; None where joblib's context says or they pay.

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
                f"rounding is one of {ROUNDINGS}, not {rounding!r}."
                + did_you_mean(rounding, ROUNDINGS)
            )
        check_jobs(jobs)
        self.space, self.rounding, self.progress = space, rounding, progress
        self.sim, self.candidates = space.sim, space.candidates
        bank = make_bank(space)
        folder = None if resume is None else Path(resume)
        self._shop = Workshop(bank.base, data, batch_size, steps, memory_bytes, None, progress)
        try:
            options = {"candidates": self.candidates, "rounding": rounding}
            print_ = fingerprint(self.sim, self._shop.source, options)
            ledger = Ledger(folder and folder / "measured.jsonl", print_)
            self.judged = self._shop.source
            if rounding == "gptq":
                bank, self.judged = self._rounded(bank, folder, print_)
            self.evaluator = Evaluator(bank, self.judged, self._shop.store, ledger, progress, jobs)
        except BaseException:
            self._shop.store.close()
            raise

    @property
    def bank(self) -> Bank:
        """What layers and tensors become at each candidate."""
        return self.evaluator.bank

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
            EdgeqError: the score is no finite number.
        """
        return self._score(choice, score, lambda: self.model_of(choice))

    def _score(
        self, choice: Mapping[str, str], score: Score, model: Callable[[], tf_keras.Model]
    ) -> float:
        ledger = self.evaluator.ledger
        known = ledger.get(choice, "score")
        if known is not None:
            return float(known[0])
        value = score(model())
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = float("nan")
        if not np.isfinite(number):
            raise EdgeqError(
                f"The score of {dict(choice)} is {value!r}; it has to be a finite number, the more "
                "the better."
            )
        ledger.add(choice, "score", np.array([number]))
        return number

    def model_of(self, choice: Mapping[str, str]) -> QuantSim:
        """Return a sim of a choice, with the weights of the bank."""
        made = self.space.sim_of(choice)
        layers = made.quantized_layers()
        for name, candidate in choice.items():
            form = self.bank.forms[name][candidate]
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
            EdgeqError: the score is no finite number.
        """
        return self._score(
            {"": "FP32"}, score, lambda: rebuild(self.space.requantize.prepared.model)
        )

    def _rounded(self, bank: Bank, folder: Path | None, print_: str) -> tuple[Bank, StoredBatches]:
        """Return a bank of rounded weights, and the batches to judge them on.

        Weights are fitted to every second batch and judged on the others: a layer with many inputs
        for few samples fits what it sees too well to be judged by it.
        """
        every = self._shop.source
        if len(every) < 2:
            return round_forms(bank, self._shop, folder, print_), every
        self._shop.source = every.every(2)
        try:
            return round_forms(bank, self._shop, folder, print_), every.every(2, 1)
        finally:
            self._shop.source = every

    def rounded_model(self, choice: Mapping[str, str]) -> QuantSim:
        """Return a sim of a choice, its weights rounded anew behind the layers it has."""
        made = self.space.sim_of(choice)
        say(made)
        if self.rounding == "nearest":
            return made
        return gptq(made, self._shop.source, progress=self.progress)

    def __enter__(self) -> Study:
        """Return the study."""
        return self

    def __exit__(self, *_: object) -> None:
        """Delete what is kept on disk."""
        release()
        self.evaluator.close()
        self._shop.store.close()
