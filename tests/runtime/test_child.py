"""Runtimes run in a child: what ends, hangs or eats memory there is a line of the report."""

import io
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import keras_edgeq as eq
from keras_edgeq.errors import EdgeqError, RuntimeFailedError
from keras_edgeq.runtime.artifact import load_artifact
from keras_edgeq.runtime.child.frames import FrameError, read_frame, write_frame
from keras_edgeq.runtime.child.process import BOOT, Child, Limits
from tests.models import inputs_for, make
from tests.runtime import hostile

posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


@pytest.fixture(scope="module")
def model():
    return make("forward_dense")


@pytest.fixture(scope="module")
def x(model):
    return inputs_for(model)


@pytest.fixture(scope="module")
def sim(model, x):
    return eq.quantize(model, x, progress=False)


@pytest.fixture(scope="module")
def files(sim, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    return eq.export(sim, folder, ["onnx", "tflite"], verify=False, progress=False).files


@pytest.fixture(scope="module")
def content(files):
    return files["onnx"].read_bytes()


def verified(sim, x, path, content, **limits):
    path.write_bytes(content)
    (run,) = eq.verify(sim, path, x, **limits)
    return run


def is_failed(run):
    """Tell whether a report says so in all of its forms."""
    assert (run.verdict, run.agrees) == ("failed", False)
    assert run.failed in str(run)
    assert "FAILED" in str(run)
    said = run.to_json()
    assert (said["verdict"], said["agrees"], said["failed"]) == ("failed", False, run.failed)
    assert said["max_abs_difference"] is None
    return True


@posix
def test_a_file_that_aborts_its_runtime_is_a_line_of_the_report(sim, x, content, tmp_path):
    run = verified(sim, x, tmp_path / "model.onnx", hostile.aborts(content))
    assert is_failed(run)
    assert run.failed.startswith(
        "ONNX Runtime ended with SIGABRT while it loaded the file; it last"
    )


def test_a_file_that_hangs_is_a_line_of_the_report(sim, x, content, tmp_path):
    run = verified(sim, x, tmp_path / "model.onnx", hostile.hangs(content), timeout_s=3.0)
    assert is_failed(run)
    assert run.failed == "ONNX Runtime took longer than 3 s (timeout_s=) while it ran the file."


@pytest.mark.parametrize("limits", [{}, {"memory_bytes": 2**28}])
def test_a_file_that_needs_64_gb_is_a_line_of_the_report(sim, x, content, tmp_path, limits):
    run = verified(sim, x, tmp_path / "model.onnx", hostile.needs_64_gb(content), **limits)
    assert is_failed(run)
    size = "0.25" if limits else "16"
    assert f"ONNX Runtime needed more than {size} GiB of memory (memory_bytes=)" in run.failed


def test_what_comes_after_a_failed_artifact_is_still_verified(
    sim, x, content, tmp_path, monkeypatch
):
    onnx_qdq = import_module("keras_edgeq.export.onnx.qdq")
    write = onnx_qdq.to_onnx_qdq

    class Written:
        def __init__(self, model):
            self.model = model

        def SerializeToString(self):
            return hostile.hangs(self.model.SerializeToString())

    monkeypatch.setattr(onnx_qdq, "to_onnx_qdq", lambda sim: Written(write(sim)))
    formats = ["onnx", "tflite"]
    report = eq.export(sim, tmp_path, formats, verify=x, progress=False, timeout_s=3.0)
    assert [run.verdict for run in report.runs] == ["failed", "same", "same"]
    assert "ONNX Runtime" in str(report)
    assert "FAILED" in str(report)


@posix
@pytest.mark.parametrize("name", ["SIGSEGV", "SIGKILL"])
def test_the_signal_that_ended_a_runtime_is_named(sim, x, content, name):
    with Child(Limits(timeout_s=60.0)) as child:
        loaded = child.load("onnx", hostile.hangs(content), "ONNX Runtime", optimize=False)
        process = child._running._process
        threading.Timer(0.5, process.send_signal, [getattr(signal, name)]).start()
        with pytest.raises(RuntimeFailedError, match=f"ended with {name} while it ran the file"):
            loaded.compute([x], sim.input_names)
        with pytest.raises(RuntimeFailedError, match=f"ended with {name}"):
            loaded.compute([x], sim.input_names)
        again = child.load("onnx", content, "ONNX Runtime", optimize=True)
        assert list(again.compute([x], sim.input_names)) == sim.output_names


def test_one_child_runs_files_one_after_the_other_and_ends_with_its_owner(sim, x, content):
    with Child() as child:
        first, second = (child.load("onnx", content, "ONNX Runtime") for _ in range(2))
        process = child._running._process
        a, b = (model.compute([x], sim.input_names) for model in (first, second))
        assert all(np.array_equal(a[name], b[name]) for name in a)
        assert process.poll() is None
    assert process.poll() is not None


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc")
@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_a_child_loads_one_runtime_and_no_tensorflow(sim, files, kind):
    with Child() as child:
        load_artifact(files[kind], sim, child=child)
        maps = Path(f"/proc/{child._running._process.pid}/maps").read_text()
    libraries = {"onnxruntime", "litert", "tensorflow"}
    loaded = {name for name in libraries if f"site-packages/{name}" in maps or f"_{name}" in maps}
    assert loaded == {"onnxruntime" if kind == "onnx" else "litert"}


@posix
@pytest.mark.parametrize("busy", [False, True])
def test_a_child_ends_with_the_process_that_started_it(content, x, sim, tmp_path, busy):
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "model.onnx").write_bytes(hostile.hangs(content))
    code = PARENT.format(busy=busy, names=sim.input_names)
    given = [BOOT.parents[2], tmp_path / "model.onnx", tmp_path / "x.npy"]
    command = [sys.executable, "-c", code, *map(str, given)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        pid = int(parent.stdout.readline())
        time.sleep(0.3)
        parent.kill()
    for _ in range(600):
        if not is_running(pid):
            break
        time.sleep(0.1)
    assert not is_running(pid)


# A process that has a child and imports no TensorFlow, so that it is there soon.
PARENT = """
import sys, types
import numpy as np
root = sys.modules["keras_edgeq"] = types.ModuleType("keras_edgeq")
root.__path__ = [sys.argv[1]]
from keras_edgeq.runtime.child.process import Child
child = Child()
model = child.load("onnx", open(sys.argv[2], "rb").read(), "", optimize=False)
print(child._running._process.pid, flush=True)
if {busy}:
    model.compute([np.load(sys.argv[3])], {names})
sys.stdin.read()
"""


def is_running(pid):
    """Tell whether a process is there, and not only waits for somebody to ask how it ended."""
    try:
        os.kill(pid, 0)
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_what_native_code_prints_does_not_end_up_in_the_messages():
    with subprocess.Popen(
        [sys.executable, "-c", PRINTING, str(BOOT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        write_frame(process.stdin, {"do": "nothing", "timeout_s": 60.0})
        head, _ = read_frame(process.stdout)
        process.stdin.close()
        assert b"printed by native code" in process.stderr.read()
    assert "failed" in head


# Writes to descriptor 1 as soon as the child has made room for its messages.
PRINTING = """
import os, runpy, sys
import signal
ignore = signal.signal
def printing(*args):
    os.write(1, b"printed by native code")
    return ignore(*args)
signal.signal = printing
sys.path.insert(0, "")
runpy.run_path(sys.argv[1], run_name="__main__")
"""


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"timeout_s": 0}, "timeout_s is 0"),
        ({"timeout_s": float("nan")}, "timeout_s is nan"),
        ({"memory_bytes": -1}, "memory_bytes is -1"),
    ],
)
def test_limits_that_are_none_are_an_error(sim, x, tmp_path, limits, message):
    with pytest.raises(EdgeqError, match=message):
        eq.verify(sim, tmp_path / "model.onnx", x, **limits)
    with pytest.raises(EdgeqError, match=message):
        eq.export(sim, tmp_path / "out", ["onnx"], x, progress=False, **limits)
    assert not (tmp_path / "out").exists()


@posix
@pytest.mark.parametrize("name", ["model.tflite", "model.onnx", "folder"])
def test_a_pipe_is_refused_at_once(sim, x, tmp_path, name):
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
        os.mkfifo(path / "saved_model.pb")
    else:
        os.mkfifo(path)
    with pytest.raises(EdgeqError, match=r"it is not a file|not an artifact that can be run"):
        eq.verify(sim, path, x)


def test_a_file_larger_than_the_memory_is_refused(sim, x, content, tmp_path):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(EdgeqError, match=r"has \d+ bytes, more than may be taken"):
        eq.verify(sim, tmp_path / "model.onnx", x, memory_bytes=100)


ARRAYS = {
    "scalar": np.float32(1.5),
    "empty": np.zeros((0, 3), np.int8),
    "matrix": np.arange(6, dtype=np.int16).reshape(2, 3).T,
    "half": np.float16([[1, 2]]),
    "flags": np.array([True, False]),
}


def test_a_message_holds_values_and_arrays():
    stream = io.BytesIO()
    write_frame(stream, {"do": "run", "names": ["a"]}, ARRAYS)
    stream.seek(0)
    head, arrays = read_frame(stream)
    assert head == {"do": "run", "names": ["a"]}
    for name, value in ARRAYS.items():
        assert arrays[name].dtype == value.dtype
        assert arrays[name].shape == np.shape(value)
        assert np.array_equal(arrays[name], value)


@pytest.mark.parametrize("value", [np.array(["a"]), np.array([{}]), np.array([1j])])
def test_other_types_are_not_sent(value):
    with pytest.raises(TypeError, match="is not sent"):
        write_frame(io.BytesIO(), {}, {"a": value})


@pytest.mark.parametrize(
    ("head", "size"),
    [
        (b"no json", 0),
        (b"[]", 0),
        (b"{}", 0),
        (b'{"arrays": [["a", "object", [1]]]}', 8),
        (b'{"arrays": [["a", "int8", [-1]]]}', 0),
        (b'{"arrays": [["a", "int8", [1.5]]]}', 1),
        (b'{"arrays": [["a", "int8", [3]]]}', 4),
        (b'{"arrays": [["a", "int8", [1000000]]]}', 10**6),
        (b'{"arrays": ' + b"[" * 100_000, 0),
    ],
)
def test_what_is_no_message_is_an_error(head, size):
    stream = io.BytesIO(struct.pack("<QQ", len(head), size) + head + bytes(size))
    with pytest.raises(FrameError):
        read_frame(stream, 10_000)


def test_a_message_cut_short_is_the_end():
    stream = io.BytesIO()
    write_frame(stream, {}, ARRAYS)
    for size in (0, 7, 20, len(stream.getvalue()) - 1):
        with pytest.raises(EOFError):
            read_frame(io.BytesIO(stream.getvalue()[:size]))
