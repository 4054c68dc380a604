"""How many processes measure."""

import sys

import joblib
import pytest

from keras_edgeq.errors import EdgeqError
from keras_edgeq.measure.jobs import asked_jobs, check_jobs, import_joblib, paying_jobs


@pytest.mark.parametrize(
    ("cores", "seconds", "building", "jobs"),
    [
        (2, 1e6, 1.0, 1),
        (7, 1e6, 1.0, 1),
        (8, 1e6, 1.0, 2),
        (32, 1e6, 1.0, 8),
        (8, 20.0, 1.0, 1),
        (8, 50.0, 1.0, 2),
        (8, 50.0, 100.0, 1),
        (8, 20.0, 0.0, 2),
    ],
)
def test_processes_pay_with_cores_and_work(cores, seconds, building, jobs):
    assert paying_jobs(cores, seconds, building) == jobs


@pytest.mark.parametrize("jobs", [0, -1, 1.5, "2", True])
def test_jobs_are_a_count(jobs):
    with pytest.raises(EdgeqError, match="number of processes"):
        check_jobs(jobs)


def test_the_caller_decides_and_then_the_context_of_joblib():
    assert asked_jobs(1) == 1
    assert asked_jobs(2) == 2
    assert asked_jobs(None) is None
    with joblib.parallel_config("threading", n_jobs=3):
        assert asked_jobs(None) == 3
        assert asked_jobs(1) == 1
    with joblib.parallel_config(n_jobs=3):
        assert asked_jobs(None) == 3
    with joblib.parallel_config("threading"):
        assert asked_jobs(None) == 1


def test_without_joblib_one_process_measures(monkeypatch):
    monkeypatch.setitem(sys.modules, "joblib", None)
    assert asked_jobs(None) == 1
    check_jobs(None)
    check_jobs(1)
    with pytest.raises(EdgeqError, match=r"keras_edgeq\[parallel\]"):
        check_jobs(2)
    with pytest.raises(EdgeqError, match="jobs=1"):
        import_joblib()
