"""An artifact while it is timed in turn with others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_edgeq.errors import RuntimeFailedError
from keras_edgeq.evaluate.artifact_run import ArtifactRun
from keras_edgeq.evaluate.float_files import is_float_file
from keras_edgeq.evaluate.latency import Latency, timed_runs

ROUNDS = 10


@dataclass
class TimedFile:
    """An artifact while it is timed.

    Args:
        run: the artifact.
        failed: why its runtime could not go on, `""` while it can.
        taken_ns: of the timed runs, per sample.
    """

    run: ArtifactRun
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


def time_in_turn(
    files: Sequence[TimedFile], inputs: Callable[[ArtifactRun], list[np.ndarray]], runs: int
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
            if works:
                fed[at] = one.run.feed(inputs(one.run))
                begin[at] = float(np.median(one.run.time(fed[at], 2).taken_ns))
    left = runs
    for rounds in range(min(ROUNDS, runs), 0, -1):
        count = -(-left // rounds)
        left -= count
        for at, one in enumerate(files):
            with one.unless_failed() as works:
                if works:
                    taken, _ = timed_runs(one.run, fed[at], count, begin[at])
                    one.taken_ns.append(taken / len(fed[at][0]))


def costs(files: Sequence[TimedFile]) -> list[dict[str, Any]]:
    """Return the fields of a `Candidate` that are about what each file costs.

    Ratios are to the first float file of the same runtime that ran.
    """
    floats: dict[str, float] = {}
    for one in files:
        middle = one.median_ns
        if middle and is_float_file(one.run.file):
            floats.setdefault(one.run.runtime, middle)
    return [_costs(one, floats.get(one.run.runtime)) for one in files]


def _costs(one: TimedFile, float_ns: float | None) -> dict[str, Any]:
    middle = one.median_ns
    return {
        "size_bytes": one.run.file.size_bytes,
        "latency": None if middle is None else Latency.of(np.concatenate(one.taken_ns)),
        "latency_ratio": middle / float_ns if middle and float_ns else None,
        "failed": one.failed,
    }
