"""`Evaluator`: the loss of choices of precisions on data, each batch of each choice once."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from keras_edgeq.measure.candidate_grids import CandidateGrids
from keras_edgeq.measure.evaluation import Evaluation
from keras_edgeq.measure.groups import Choice
from keras_edgeq.measure.jobs import asked_jobs, paying_jobs, usable_cores
from keras_edgeq.measure.measurement_log import MeasurementLog, key_of
from keras_edgeq.measure.output_loss import OutputLoss
from keras_edgeq.measure.portable_study import PortableStudy
from keras_edgeq.measure.workers import Part, split, work_off
from keras_edgeq.progress import Bar
from keras_edgeq.streams.store import StoredBatches, TensorStore

Measurement = tuple[int, Choice, NDArray[np.float64]]


class Evaluator:
    """Measures choices against the float model.

    Args:
        grids: what layers and tensors become at each candidate.
        source: batches of model inputs.
        store: where the float model's outputs lie.
        log: what is known already.
        progress: show progress bars.
        jobs: number of processes; None as joblib's context says, or as many as pay.

    Attributes:
        passes_elsewhere: work that this process's evaluation did not do.
    """

    def __init__(
        self,
        grids: CandidateGrids,
        source: StoredBatches,
        store: TensorStore,
        log: MeasurementLog,
        progress: bool,
        jobs: int | None = 1,
    ):
        self.grids, self.log, self.progress = grids, log, progress
        self._source, self._store, self._jobs = source, store, jobs
        begin = time.perf_counter()
        self._evaluation = Evaluation(grids, source, store)
        self._building, self._seconds = time.perf_counter() - begin, 0.0
        self._recipe: PortableStudy | None = None
        self.passes_elsewhere = 0.0
        self._bar: Bar | None = None
        self._expected = 0.0

    @property
    def passes(self) -> float:
        """Work done so far, that of all processes, in forward passes over the data."""
        return self._evaluation.passes + self.passes_elsewhere

    def measure(
        self, choices: Sequence[Choice], around: Choice, name: str = "measure"
    ) -> list[OutputLoss]:
        """Return the loss of each choice.

        Args:
            choices: what to measure.
            around: a choice that they are near: what they have in common with it at the front of
                the network is computed once for all.
            name: what the progress bar says.
        """
        unique = {key_of(choice): choice for choice in choices}
        missing = [
            tuple(c for c in unique.values() if self.log.get(c, str(batch)) is None)
            for batch in range(len(self._source))
        ]
        parts = [Part(batch, open_) for batch, open_ in enumerate(missing) if open_]
        if parts:
            open_keys = {key_of(choice) for part in parts for choice in part.choices}
            self._expect(name, [unique[key] for key in unique if key in open_keys], around)
        with closing(self._measured(parts, around)) as measured:
            for batch, choice, sums in measured:
                self.log.add(choice, str(batch), sums)
                if self._bar is not None:
                    self._bar.to(self.passes)
        return [self._total(choice) for choice in choices]

    def expect(self, passes: float) -> None:
        """Take note of how many passes will be done in all, for the progress bar."""
        self._expected = passes

    def close(self) -> None:
        """End the progress bar."""
        if self._bar is not None:
            self._bar.close()

    def _expect(self, name: str, choices: Sequence[Choice], around: Choice) -> None:
        """Let the one bar of all measurements go on with some more."""
        total = max(self._expected, self.passes + self.expense(choices, around))
        if self._bar is None:
            self._bar = Bar(name, total, shown=self.progress)
        self._bar.to(self.passes, total, name)

    def expense(self, choices: Sequence[Choice], around: Choice) -> float:
        """Return the forward passes over the data that measuring choices takes."""
        return self._evaluation.expense(choices, around)

    def _measured(self, parts: list[Part], around: Choice) -> Generator[Measurement, None, None]:
        """Yield measurements; processes may join once it is known how long a batch takes."""
        for number, part in enumerate(parts):
            jobs = self._jobs_for(parts[number:], around)
            if jobs > 1:
                yield from self._by_workers(parts[number:], around, jobs)
                return
            begin = time.perf_counter()
            for choice, sums in self._evaluation.measure(part.batch, part.choices, around):
                yield part.batch, choice, sums
            self._seconds += time.perf_counter() - begin

    def _jobs_for(self, parts: Sequence[Part], around: Choice) -> int:
        asked = asked_jobs(self._jobs)
        if asked is not None:
            return asked
        cores = usable_cores()
        if paying_jobs(cores, np.inf, self._building) == 1 or not self._seconds:
            return 1
        passes = sum(self.expense(p.choices, around) for p in parts) / len(self._source)
        seconds = passes * self._seconds / self._evaluation.passes
        return paying_jobs(cores, seconds, 0.0 if self._recipe else self._building)

    def _by_workers(
        self, missing: Sequence[Part], around: Choice, jobs: int
    ) -> Generator[Measurement, None, None]:
        if self._recipe is None:
            memory_bytes = self._store.memory_bytes // jobs
            self._recipe = PortableStudy.of(self.grids, self._source, memory_bytes)
        parts = split(self._evaluation, missing, around, jobs)
        with closing(work_off(self._recipe, parts, around, jobs)) as results:
            for done in results:
                part = parts[done.number]
                self.passes_elsewhere += done.passes
                for choice, sums in zip(part.choices, done.sums, strict=True):
                    yield part.batch, choice, sums

    def _total(self, choice: Choice) -> OutputLoss:
        parts = (self.log.get(choice, str(batch)) for batch in range(len(self._source)))
        return OutputLoss.total(OutputLoss(sums) for sums in parts if sums is not None)
