import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("replicas.py")
# Sums over replicas are added in another order.
NOISE = {"rtol": 1e-5, "atol": 1e-6}
LIMIT_SECONDS = 300
NO_GPU = {"CUDA_VISIBLE_DEVICES": "-1"}


def run(folder, calls):
    """Run the script in a process per call, at the same time; a call is arguments, environment."""
    processes = []
    try:
        for number, (arguments, environment) in enumerate(calls):
            with (folder / f"{number}.log").open("w") as log:
                processes.append(
                    subprocess.Popen(
                        [sys.executable, str(SCRIPT), *map(str, arguments)],
                        env={**os.environ, "PYTHONPATH": str(ROOT), **NO_GPU, **environment},
                        stdout=log,
                        stderr=subprocess.STDOUT,
                    )
                )
        for number, process in enumerate(processes):
            code = process.wait(LIMIT_SECONDS)
            assert code == 0, (folder / f"{number}.log").read_text()[-3000:]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def read(path):
    """Return stage -> where -> what -> values."""
    found = {}
    with np.load(path) as arrays:
        for key in arrays.files:
            stage, where, what = key.split("|")
            found.setdefault(stage, {}).setdefault(where, {})[what] = arrays[key]
    return found


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """One process: alone, and mirrored on two logical devices."""
    folder = tmp_path_factory.mktemp("replicas")
    run(folder, [(("mirrored", folder / "result.npz"), {})])
    return read(folder / "result.npz")


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """Two processes that train together."""
    folder = tmp_path_factory.mktemp("workers")
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    calls = []
    for index in range(2):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        arguments = ("worker", folder / f"worker{index}.npz", folder / "saved")
        calls.append((arguments, {"TF_CONFIG": json.dumps(config)}))
    run(folder, calls)
    return folder, [read(folder / f"worker{index}.npz") for index in range(2)]


def assert_close(one, other):
    assert one.keys() == other.keys()
    for what, values in one.items():
        np.testing.assert_allclose(values, other[what], **NOISE, err_msg=what)


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for what, values in one.items():
        np.testing.assert_array_equal(values, other[what], err_msg=what)


def moved(found, stage):
    """Return how many variables training moved."""
    before, after = found["calibrated"]["alone0"], found[stage]["alone0"]
    return sum(not np.array_equal(before[what], after[what]) for what in before)


@pytest.mark.slow
def test_calibration_under_a_mirrored_strategy_gives_the_same_grids(single):
    assert_equal(single["calibrated"]["mirrored0"], single["calibrated"]["alone0"])


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["fit", "train"])
def test_two_devices_step_as_one_does_on_the_whole_batch(single, stage):
    # Two kernels, beta, gamma and bias, and changes of all five ranges at least.
    assert moved(single, stage) >= 10
    assert_close(single[stage]["mirrored0"], single[stage]["alone0"])
    assert_equal(single[stage]["mirrored1"], single[stage]["mirrored0"])


@pytest.mark.slow
def test_batch_norms_average_the_statistics_of_the_devices(single):
    assert_close(single["moving mean"]["mirrored0"], single["moving mean"]["alone0"])
    assert_equal(single["thawed"]["mirrored1"], single["thawed"]["mirrored0"])


@pytest.mark.slow
def test_losses_and_metrics_are_those_of_the_whole_batch(single):
    assert_close(single["history"]["mirrored0"], single["history"]["alone0"])


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["fit", "train"])
def test_two_workers_step_as_one_process_does(single, workers, stage):
    _, (first, second) = workers
    assert_equal(first[stage]["worker0"], second[stage]["worker0"])
    assert_close(first[stage]["worker0"], single[stage]["alone0"])


@pytest.mark.slow
def test_workers_go_on_from_what_the_chief_saved(workers):
    folder, (first, second) = workers
    for found in (first, second):
        assert_equal(found["restored"]["worker0"], found["train"]["worker0"])
    assert [path.name for path in (folder / "saved").glob("aside*")] == []


@pytest.mark.slow
def test_one_worker_folds_what_all_of_them_saved(single, workers):
    _, (first, _) = workers
    ours, theirs = (f["folded"][w]["outputs"] for f, w in ((first, "worker0"), (single, "alone0")))
    # A sum that is a tie of rounding but for float noise may come out a step apart.
    step = np.ptp(theirs) / 100.0
    np.testing.assert_allclose(ours, theirs, atol=step)
