"""How many processes measure: what the caller says, what joblib's context says, or what pays."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_edgeq.errors import EdgeqError

# Cores that one process keeps busy by itself: TensorFlow spreads the sums of a layer over them.
CORES_PER_PROCESS = 4
# To start a process and import TensorFlow there, on a slow machine.
START_SECONDS = 10.0
# Work has to save that many times what the start of the processes costs.
GAIN = 2.0


def check_jobs(jobs: int | None) -> None:
    """Raise unless that many processes can be had.

    Raises:
        EdgeqError: `jobs` is not a count, or joblib is missing.
    """
    if jobs is None:
        return
    if isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1:
        raise EdgeqError(f"jobs must be None or a number of processes from 1 on, not {jobs!r}.")
    if jobs > 1:
        import_joblib()


def import_joblib() -> Any:
    """Return joblib.

    Raises:
        EdgeqError: it is missing or too old.
    """
    try:
        import joblib
    except ImportError as error:
        raise EdgeqError(
            'Several processes need joblib: pip install "keras_edgeq[parallel]", or jobs=1.'
        ) from error
    if not hasattr(joblib, "parallel_config"):
        raise EdgeqError(
            f"joblib {joblib.__version__} is too old for several processes: pip install "
            '"keras_edgeq[parallel]", or jobs=1.'
        )
    return joblib


def asked_jobs(jobs: int | None) -> int | None:
    """Return how many workers the caller, or else joblib's context, asks for; None if neither.

    Under `joblib.parallel_config("dask")` the cluster says how many there are.
    """
    if jobs == 1:
        return 1
    if jobs is not None:
        return int(import_joblib().effective_n_jobs(jobs))
    try:
        joblib = import_joblib()
    except EdgeqError:
        return 1
    backend, count = joblib.parallel.get_active_backend()
    is_default = type(backend).__name__ == "LokyBackend" and count is None
    if is_default:
        return None
    return int(joblib.effective_n_jobs(backend.default_n_jobs if count is None else count))


def usable_cores() -> int:
    """Return the cores that processes could share; one where TensorFlow computes on a GPU."""
    if tf.config.list_physical_devices("GPU"):
        return 1
    return int(import_joblib().cpu_count())


def paying_jobs(cores: int, seconds: float, building: float) -> int:
    """Return how many processes pay; 1 where none do, as always on small machines.

    TensorFlow uses several cores within one process, and a new one has to import it and to trace
    the network again. With fewer than eight cores the answer is 1 for all work.

    Args:
        cores: that can be used.
        seconds: that the work takes in this process.
        building: seconds in which this process traced the network; 0 where processes are ready.
    """
    jobs = cores // CORES_PER_PROCESS
    if jobs < 2:
        return 1
    saved = seconds * (1.0 - 1.0 / jobs)
    start = START_SECONDS + building if building else 1.0
    return jobs if saved > GAIN * start else 1
