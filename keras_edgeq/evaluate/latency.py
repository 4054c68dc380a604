"""Times of runs, and what is said of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from keras_edgeq.evaluate.artifact_run import ArtifactRun
from keras_edgeq.table import brief

# Long enough that a message to the child and back is nothing, short enough for a bar to move.
SECONDS_PER_MESSAGE = 0.2


@dataclass(frozen=True)
class Latency:
    """How long a run takes, in milliseconds.

    Args:
        mean: over all runs.
        min: the fastest.
        p50: half of the runs take at most this long.
        p90: nine of ten do.
        p99: 99 of 100 do.
        max: the slowest.
    """

    mean: float
    min: float
    p50: float
    p90: float
    p99: float
    max: float

    @classmethod
    def of(cls, taken_ns: Sequence[int] | np.ndarray) -> Latency:
        """Return what is said of runs that took so many nanoseconds each."""
        ms = 1e-6 * np.asarray(taken_ns, np.float64)
        p50, p90, p99 = (float(value) for value in np.percentile(ms, (50, 90, 99)))
        return cls(float(ms.mean()), float(ms.min()), p50, p90, p99, float(ms.max()))

    def to_json(self) -> dict[str, float]:
        """Return JSON values, in milliseconds."""
        return asdict(self)

    def __repr__(self) -> str:
        return brief("Latency", str(self))

    def __str__(self) -> str:
        return (
            f"{self.p50:.3g} ms (p90 {self.p90:.3g}, p99 {self.p99:.3g}, mean {self.mean:.3g}, "
            f"min {self.min:.3g})"
        )


@dataclass(frozen=True)
class Machine:
    """What else was going on where times were taken.

    Args:
        cpus: that this process may use.
        load_average: processes that wanted to run, in the mean over the last minute; None where the
            system does not tell.
    """

    cpus: int
    load_average: float | None

    @classmethod
    def now(cls) -> Machine:
        """Look at the machine."""
        allowed = getattr(os, "sched_getaffinity", None)
        cpus = len(allowed(0)) if allowed else os.cpu_count() or 1
        loads = getattr(os, "getloadavg", None)
        return cls(cpus, round(loads()[0], 2) if loads else None)

    def __str__(self) -> str:
        cpus = f"{self.cpus} CPU{'' if self.cpus == 1 else 's'}"
        return cpus if self.load_average is None else f"{cpus}, load {self.load_average:g}"


def timed_runs(
    run: ArtifactRun,
    fed: Sequence[np.ndarray],
    count: int,
    first_ns: float,
    done: Callable[[int], object] = lambda _: None,
) -> tuple[np.ndarray, dict[str, int]]:
    """Time so many runs, in messages of a fifth of a second.

    Args:
        run: an artifact that has run before.
        fed: inputs in the types of the file.
        count: how many runs.
        first_ns: about how long one takes.
        done: called with the number of runs that each message took.

    Returns:
        How long each took, in nanoseconds; and the peak of memory, as that of `Loaded`.
    """
    parts, memory = [], {"file": 0, "process": 0}
    while (left := count - sum(map(len, parts))) > 0:
        size = per_message(first_ns, left)
        # What lay in the caches is gone after a message: where runs are short, one is not counted.
        settle = int(size > 1)
        made = run.time(fed, size + settle)
        parts.append(made.taken_ns[settle:])
        memory = {name: max(peak, made.memory[name]) for name, peak in memory.items()}
        first_ns = float(np.median(parts[-1]))
        done(size)
    return np.concatenate(parts), memory


def per_message(run_ns: float, most: int) -> int:
    """Return how many runs of a length one message asks for."""
    return int(min(most, max(1.0, SECONDS_PER_MESSAGE * 1e9 / max(run_ns, 1.0))))
