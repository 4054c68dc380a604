"""HiGHS prints past Python; users see none of it, and all that others print."""

import ctypes
import os
import threading

import numpy as np
import pytest

from keras_edgeq.mixed_precision.solve import solve_ilp
from keras_edgeq.mixed_precision.solver_output import without_solver_output

LINE = "HighsMipSolverData::transformNewIntegerFeasibleSolution tmpSolver.run();\n"


def test_lines_of_the_solver_are_dropped_and_others_follow(capfd):
    print("before")
    with without_solver_output():
        os.write(1, LINE.encode())
        print("of another thread")
        os.write(1, b"no end of line")
    print("\nafter")
    assert capfd.readouterr().out == "before\nof another thread\nno end of line\nafter\n"


@pytest.mark.skipif(os.name == "nt", reason="has another C library")
def test_what_c_buffers_is_dropped_too(capfd):
    c = ctypes.CDLL(None)
    with without_solver_output():
        c.printf(LINE.encode())
    c.fflush(None)
    assert capfd.readouterr().out == ""


def test_stdout_is_there_again_after_an_error(capfd):
    with pytest.raises(ZeroDivisionError), without_solver_output():
        1 / 0  # noqa: B018
    print("here")
    assert capfd.readouterr().out == "here\n"


def test_threads_do_not_lose_stdout_to_each_other(capfd):
    losses = np.random.default_rng(0).normal(size=(12, 3))
    threads = [threading.Thread(target=solve_ilp, args=(losses,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("still here")
    assert capfd.readouterr().out == "still here\n"


def test_a_search_solves_behind_it(monkeypatch, capfd):
    import scipy.optimize

    real = scipy.optimize.milp

    def loud(*args, **options):
        os.write(1, LINE.encode())
        return real(*args, **options)

    monkeypatch.setattr("scipy.optimize.milp", loud)
    choice = solve_ilp(np.array([[1.0, 0.0], [0.0, 1.0]]))
    assert list(choice) == [1, 0]
    assert capfd.readouterr().out == ""
