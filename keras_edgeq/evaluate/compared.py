"""One candidate of a comparison while it is measured: its scores, its times, how it failed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_edgeq.errors import RuntimeFailedError
from keras_edgeq.evaluate.artifact_run import ArtifactRun
from keras_edgeq.evaluate.comparison import Candidate
from keras_edgeq.evaluate.float_files import is_float_file
from keras_edgeq.evaluate.latency import Latency, timed_runs
from keras_edgeq.evaluate.metrics import Metric, as_array
from keras_edgeq.evaluate.validate import non_finite
from keras_edgeq.numerics.metrics import ratio_db, top1
from keras_edgeq.sim.data import Labelled

ROUNDS = 10
Predict = Callable[[Sequence[np.ndarray]], list[np.ndarray]]


@dataclass
class Compared:
    """A candidate while it is measured.

    Args:
        name: as its row has it.
        runtime: what runs it.
        predict: computes its outputs, in the order of the model's.
        score: what its predictions sum up to.
        run: the artifact; None for models.
        failed: why its runtime could not go on, `""` while it can.
        taken_ns: of the timed runs, per sample.
    """

    name: str
    runtime: str
    predict: Predict
    score: Score
    run: ArtifactRun | None = None
    failed: str = ""
    taken_ns: list[np.ndarray] = field(default_factory=list)

    @contextmanager
    def unless_failed(self) -> Iterator[bool]:
        """Tell whether it still runs; if its runtime ends inside, note why and go on."""
        try:
            yield not self.failed
        except RuntimeFailedError as error:
            self.failed = str(error)

    @property
    def median_ns(self) -> float | None:
        """Of the timed runs; None if there are none, or it failed."""
        if self.failed or not self.taken_ns:
            return None
        return float(np.median(np.concatenate(self.taken_ns)))

    def row(self, float_ns: float | None = None) -> Candidate:
        """Return what was measured; `float_ns` is the median of the float file beside it."""
        size = self.run.file.size_bytes if self.run else None
        if self.failed:
            return Candidate(
                self.name, self.runtime, None, None, math.nan, size, failed=self.failed
            )
        middle = self.median_ns
        return Candidate(
            name=self.name,
            runtime=self.runtime,
            **self.score.values(),
            size_bytes=size,
            latency=Latency.of(np.concatenate(self.taken_ns)) if self.taken_ns else None,
            latency_ratio=middle / float_ns if middle and float_ns else None,
        )


@dataclass
class Score:
    """What is summed over batches for one candidate.

    Args:
        output: whose predictions are measured; `""` for none.
        given: the user's metric; None without.
        most_bytes: that predictions may take which are kept for it.
    """

    output: str
    given: Any
    most_bytes: int
    samples: int = 0
    signal: Any = 0.0
    noise: Any = 0.0
    agrees: int | None = 0
    broken: int = 0
    metric: Metric = field(init=False)

    def __post_init__(self):
        if self.given is not None:
            self.metric = Metric(self.given, self.most_bytes)

    @property
    def is_split(self) -> bool:
        """Whether each candidate can fill a metric of its own."""
        return self.given is None or self.metric.is_split

    @property
    def metric_name(self) -> str:
        """Of the user's metric, `""` without."""
        return "" if self.given is None else self.metric.name

    def add(
        self, names: list[str], exact: list[np.ndarray], made: list[np.ndarray], batch: Labelled
    ) -> None:
        """Add a batch: the float model's outputs and the candidate's, named as the model's."""
        pairs = zip(exact, made, strict=True)
        wide = [(np.asarray(e, np.float64), np.asarray(m, np.float64)) for e, m in pairs]
        self.signal += np.array([np.sum(e * e) for e, _ in wide])
        self.noise += np.array([np.sum((m - e) ** 2) for e, m in wide])
        self.samples += len(made[0])
        self.broken += max(non_finite(m) for m in made)
        at = names.index(self.output) if self.output else -1
        if at < 0 or exact[at].ndim != 2 or exact[at].shape[1] < 2:
            self.agrees = None
        elif self.agrees is not None:
            self.agrees += int(np.sum(top1(exact[at]) == top1(made[at])))
        if self.given is not None:
            labels = as_array(batch.labels, self.output, self.metric.name)
            self.metric.add(labels, made[at], batch.weights)

    def values(self) -> dict[str, Any]:
        """Return the fields of a `Candidate` that are about its predictions."""
        ratios = [
            ratio_db(float(s), float(n)) if math.isfinite(n) else math.nan
            for s, n in zip(self.signal, self.noise, strict=True)
        ]
        return {
            "metric": None if self.given is None else self.metric.result(),
            "agreement": None if self.agrees is None else 100.0 * self.agrees / self.samples,
            "sqnr_db": float(np.mean(ratios)),
            "non_finite": self.broken,
        }


def time_in_turn(
    files: Sequence[Compared], inputs: Callable[[ArtifactRun], list[np.ndarray]], runs: int
) -> None:
    """Time artifacts a few runs of each at a time, so that what else runs falls on all of them.

    Args:
        files: artifacts; those that fail are left out from there on.
        inputs: makes what a run is given, in its order and in real numbers.
        runs: of each.
    """
    fed: dict[int, list[np.ndarray]] = {}
    begin: dict[int, float] = {}
    for at, one in enumerate(files):
        with one.unless_failed() as works:
            if works and one.run:
                fed[at] = one.run.feed(inputs(one.run))
                begin[at] = float(np.median(one.run.time(fed[at], 2).taken_ns))
    left = runs
    for rounds in range(min(ROUNDS, runs), 0, -1):
        count = -(-left // rounds)
        left -= count
        for at, one in enumerate(files):
            with one.unless_failed() as works:
                if works and one.run:
                    taken, _ = timed_runs(one.run, fed[at], count, begin[at])
                    one.taken_ns.append(taken / len(fed[at][0]))


def timed_rows(files: Sequence[Compared]) -> list[Candidate]:
    """Return rows with their ratio to the first float file of the same runtime that ran."""
    floats: dict[str, float] = {}
    for one in files:
        middle = one.median_ns
        if middle and one.run and is_float_file(one.run.file):
            floats.setdefault(one.runtime, middle)
    return [one.row(floats.get(one.runtime)) for one in files]
