"""Measure choices in other processes, on this machine or on a cluster, by joblib's backends."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from queue import Empty, SimpleQueue

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_edgeq.errors import EdgeqError
from keras_edgeq.measure.evaluation import Evaluation
from keras_edgeq.measure.groups import Choice
from keras_edgeq.measure.jobs import import_joblib
from keras_edgeq.measure.portable_study import PortableStudy

# Parts of the work per worker: enough that all end at about the same time.
PARTS_PER_JOB = 3
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Part:
    """What a worker does in one go: some choices on one batch."""

    batch: int
    choices: tuple[Choice, ...]


@dataclass(frozen=True, eq=False)
class Done:
    """What came of a part.

    Args:
        number: of the part.
        sums: of each of its choices.
        passes: work of it, in forward passes over all data.
    """

    number: int
    sums: tuple[NDArray[np.float64], ...]
    passes: float


def split(evaluation: Evaluation, missing: Sequence[Part], around: Choice, jobs: int) -> list[Part]:
    """Return parts of about equal work.

    Batches stay whole where there are enough of them. Else each is split between choices that begin
    to differ one after the other, so that a part computes the front of the network once.
    """
    pieces = -(-PARTS_PER_JOB * jobs // len(missing))
    behind = np.append(np.cumsum(evaluation.shares[::-1])[::-1], 0.0)
    parts = []
    for part in missing:
        starts = np.array(evaluation.starts(part.choices, around))
        order = np.argsort(starts, kind="stable")
        # A small price for each, since what follows the last place costs nothing here.
        work = np.cumsum(behind[starts[order]] + 1e-6)
        ends = np.searchsorted(work, work[-1] * np.arange(1, pieces) / pieces) + 1
        for numbers in np.split(order, np.unique(ends)):
            if len(numbers):
                parts.append(Part(part.batch, tuple(part.choices[i] for i in numbers)))
    return parts


def work_off(
    portable: PortableStudy, parts: Sequence[Part], around: Choice, jobs: int
) -> Generator[Done, None, None]:
    """Yield what comes of parts as the workers finish them.

    Args:
        portable: what the workers build, each once.
        parts: what to do.
        around: a choice that all are near.
        jobs: number of workers.

    Raises:
        EdgeqError: a worker failed; the choice is named.
    """
    joblib = import_joblib()
    backend = joblib.parallel.get_active_backend()[0]
    streams = bool(getattr(backend, "supports_return_generator", False))
    tasks = [
        joblib.delayed(measure_part)(portable, number, part, around, jobs)
        for number, part in enumerate(parts)
    ]
    # Where results come all at once, short rounds lose little when they are interrupted.
    size = len(tasks) if streams else jobs * PARTS_PER_JOB
    kind = "generator_unordered" if streams else "list"
    # One pool for all rounds: Ray starts its workers with it.
    with joblib.Parallel(jobs, return_as=kind, batch_size=1) as pool:
        for begin in range(0, len(tasks), size):
            results = None
            try:
                results = pool(tasks[begin : begin + size])
                # Not `yield from`: it would close the results itself, with joblib's warnings.
                for done in results:  # noqa: UP028
                    yield done
            except EdgeqError:
                raise
            except Exception as error:
                raise EdgeqError(
                    f"The workers of joblib's {type(backend).__name__} stopped with "
                    f"{type(error).__name__}: {str(error).partition(chr(10))[0]} What was "
                    "measured is kept; fewer jobs= need less memory."
                ) from error
            finally:
                if streams and results is not None:
                    with warnings.catch_warnings():
                        # joblib warns of what it drops; the log knows what is missing.
                        warnings.simplefilter("ignore")
                        results.close()


def measure_part(
    portable: PortableStudy, number: int, part: Part, around: Choice, jobs: int
) -> Done:
    """Measure a part in the process that this is called in.

    Raises:
        EdgeqError: it failed; the choice is named.
    """
    _share_cores(jobs)
    with _ONE_AT_A_TIME:
        idle = _idle(portable.key)
        evaluation = _take(idle, portable)
    before, sums = evaluation.passes, []
    try:
        for _, values in evaluation.measure(part.batch, part.choices, around):
            sums.append(values)
    except Exception as error:
        raise EdgeqError(
            f"Measuring {_name(part.choices[len(sums)], around)} on batch {part.batch} failed in "
            f"a worker with {type(error).__name__}: {error}"
        ) from error
    idle.put(evaluation)
    return Done(number, tuple(sums), evaluation.passes - before)


@lru_cache(maxsize=1)
def _idle(key: str) -> SimpleQueue[Evaluation]:
    """Return the benches of a portable that nobody uses; those of other recipes are let go.

    Workers of some backends are threads of one process; a evaluation is for one of them at a time.
    """
    return SimpleQueue()


def release() -> None:
    """Let go of the benches in this process, which workers that are threads have built."""
    _idle.cache_clear()


def _take(idle: SimpleQueue[Evaluation], portable: PortableStudy) -> Evaluation:
    with suppress(Empty):
        return idle.get_nowait()
    try:
        return portable.evaluation()
    except Exception as error:
        raise EdgeqError(
            f"A worker cannot rebuild the sim ({type(error).__name__}: {error}); jobs=1 measures "
            "in this process."
        ) from error


def _share_cores(jobs: int) -> None:
    threads = max(1, int(import_joblib().cpu_count()) // jobs)
    # Where TensorFlow computes already, it keeps the threads that it has.
    with suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(threads)


def _name(choice: Choice, around: Choice) -> str:
    """Return what a choice changes, in words."""
    changes = [f"{group} in {name}" for group, name in choice.items() if around[group] != name]
    more = f" and {len(changes) - 5} more" if len(changes) > 5 else ""
    return ", ".join(changes[:5]) + more if changes else "the choice that others lie around"
