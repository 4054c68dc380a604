"""What `benchmark` says of files on their real runtimes, and how it refuses what it cannot run."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import CalibrationDataError, EdgeqError, ExportError, RuntimeFailedError
from keras_edgeq.evaluate.benchmark import benchmark
from keras_edgeq.evaluate.latency import Latency
from keras_edgeq.runtime.operation_times import Event, rows
from keras_edgeq.runtime.tflite_file import TfliteGraph
from tests.runtime import hostile

L = tf_keras.layers
QUICK = {"runs": 3, "warmup": 1, "progress": False}


def tflite(model, batch=None):
    sizes = [[batch, *t.shape[1:]] for t in model.inputs]
    specs = [
        tf.TensorSpec(s, t.dtype, name=name)
        for s, t, name in zip(sizes, model.inputs, model.input_names, strict=True)
    ]
    function = tf.function(lambda *args: model(list(args) if len(args) > 1 else args[0]))
    made = function.get_concrete_function(*specs)
    return tf.lite.TFLiteConverter.from_concrete_functions([made], model).convert()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A float file, one without a signature, one of a fixed batch, and an exported sim."""
    tf_keras.utils.set_random_seed(0)
    image = tf_keras.Input((8, 8, 2), name="image")
    x = L.Conv2D(4, 3, activation="relu", name="conv")(image)
    x = L.Softmax(name="share")(L.Dense(3, name="head")(L.Flatten()(x)))
    model = tf_keras.Model(image, x)
    folder = tmp_path_factory.mktemp("benchmark")
    data = np.random.default_rng(0).normal(size=(32, 8, 8, 2)).astype(np.float32)
    sim = eq.quantize(model, data, progress=False)
    formats = ["tflite", "onnx", "saved_model"]
    eq.export(sim, folder, formats, verify=False, progress=False)
    (folder / "float.tflite").write_bytes(tflite(model))
    (folder / "three.tflite").write_bytes(tflite(model, 3))
    bare = TfliteGraph((folder / "float.tflite").read_bytes())
    bare.model.signatureDefs = None
    (folder / "bare.tflite").write_bytes(bare.write())
    ids = tf_keras.Input((None,), name="ids", dtype="int32")
    words = tf_keras.Model(ids, L.Dense(2)(L.Embedding(5, 4)(ids)))
    (folder / "words.tflite").write_bytes(tflite(words))
    return folder


@pytest.mark.parametrize(
    ("name", "runtime", "kernels"),
    [
        ("float.tflite", "LiteRT xnnpack", {"XNNPACK"}),
        ("model.tflite", "LiteRT xnnpack", {"XNNPACK", "builtin"}),
        ("model.onnx", "ONNX Runtime", {"CPUExecutionProvider"}),
    ],
)
def test_a_file_is_timed_and_its_operations_are(folder, name, runtime, kernels):
    found = benchmark(folder / name, **QUICK)
    assert (found.artifact, found.runtime, found.runs) == (name, runtime, 3)
    assert len(found.latencies_ms) == 3
    assert found.latency.min == min(found.latencies_ms) > 0.0
    assert found.size_bytes == (folder / name).stat().st_size
    assert found.load_ms > 0.0
    assert found.process_memory_bytes > found.load_memory_bytes
    assert set(found.kernels) == kernels
    assert sum(share for _, share in found.kernels.values()) == pytest.approx(1.0)
    assert found.no_operations == ""


def test_litert_s_own_kernels_name_what_they_make(folder):
    found = benchmark(folder / "model.tflite", kernels="builtin", **QUICK)
    graph = TfliteGraph((folder / "model.tflite").read_bytes())
    assert [one.type for one in found.operations] == [op.name for op in graph.ops]
    made = [graph.name(op.outputs[0]) for op in graph.ops]
    assert [one.name for one in found.operations] == made
    assert set(found.kernels) == {"builtin"}


@pytest.mark.slow
def test_a_saved_model_runs_in_the_child_and_says_what_is_not_known(folder):
    found = benchmark(folder / "saved_model", **QUICK)
    assert (found.runtime, found.operations) == ("TensorFlow", ())
    assert "not read" in found.no_operations
    assert found.no_operations in str(found)


def test_a_file_of_a_fixed_batch_gets_that(folder):
    found = benchmark(folder / "three.tflite", operations=False, **QUICK)
    assert list(found.input_shapes.values()) == [(3, 8, 8, 2)]


def test_a_file_without_a_signature_runs(folder):
    found = benchmark(folder / "bare.tflite", operations=False, **QUICK)
    assert list(found.input_shapes.values()) == [(1, 8, 8, 2)]


def test_free_sizes_are_asked_for(folder):
    path = folder / "words.tflite"
    with pytest.raises(EdgeqError, match=r"'ids'.* has free sizes: \(None, None\)"):
        benchmark(path, **QUICK)
    with pytest.raises(EdgeqError, match=r"not \(1, 2, 3\)"):
        benchmark(path, sizes=(1, 2, 3), **QUICK)
    with pytest.raises(EdgeqError, match=r"no input 'id'.*Did you mean 'ids'"):
        benchmark(path, sizes={"id": (1, 2)}, **QUICK)
    found = benchmark(path, sizes={"ids": (2, 6)}, **QUICK)
    assert found.input_shapes == {"ids": (2, 6)}
    # Where LiteRT knows the sizes of inner tensors only as it runs, its profiler does not.
    assert bool(found.operations) != bool(found.no_operations)
    of_data = benchmark(path, np.zeros((9, 4), np.int32), operations=False, **QUICK)
    assert (of_data.on_data, of_data.input_shapes) == (True, {"ids": (1, 4)})


def test_what_cannot_be_run_is_one_clear_error(folder, tmp_path):
    for path, word in ((folder / "no.tflite", "No such artifact"), (folder, "not an artifact")):
        with pytest.raises(EdgeqError, match=word):
            benchmark(path, **QUICK)
    (tmp_path / "damaged.onnx").write_bytes(b"no model at all")
    with pytest.raises(EdgeqError, match="not an ONNX model"):
        benchmark(tmp_path / "damaged.onnx", **QUICK)
    with pytest.raises(EdgeqError, match="must be 'xnnpack' or 'builtin'"):
        benchmark(folder / "model.tflite", kernels="gpu", **QUICK)
    with pytest.raises(CalibrationDataError, match="runs is 0"):
        benchmark(folder / "model.tflite", runs=0)
    with pytest.raises(CalibrationDataError, match="the model takes"):
        benchmark(folder / "model.tflite", np.zeros((4, 5, 5, 2), np.float32), **QUICK)


def test_a_runtime_that_never_comes_back_is_an_error(folder, tmp_path):
    path = tmp_path / "hangs.onnx"
    path.write_bytes(hostile.hangs((folder / "model.onnx").read_bytes()))
    with pytest.raises(RuntimeFailedError, match=r"longer than 3 s \(timeout_s=\)"):
        benchmark(path, timeout_s=3.0, **QUICK)


def test_a_profiler_that_ends_leaves_the_rest(folder, monkeypatch):
    from keras_edgeq.evaluate import artifact_run

    load = artifact_run.Child.load

    def refused(self, kind, *args, **options):
        if kind == "litert_profiler":
            raise RuntimeFailedError("LiteRT's profiler ended with SIGSEGV")
        return load(self, kind, *args, **options)

    monkeypatch.setattr(artifact_run.Child, "load", refused)
    found = benchmark(folder / "float.tflite", **QUICK)
    assert found.operations == ()
    assert found.no_operations == "LiteRT's profiler ended with SIGSEGV"
    assert found.latency.p50 > 0.0


def test_a_report_is_saved_whole(folder, tmp_path):
    found = benchmark(folder / "model.onnx", **QUICK)
    found.save(tmp_path / "found.json")
    values = json.loads((tmp_path / "found.json").read_text("utf-8"))
    assert values == json.loads(json.dumps(found.to_json()))
    assert values["latency"]["p50"] == found.latency.p50
    found.save(tmp_path / "found.csv")
    lines = (tmp_path / "found.csv").read_text("utf-8").splitlines()
    assert lines[0] == "name,type,kernel,time_us,calls"
    assert len(lines) == 1 + len(found.operations)
    with pytest.raises(ExportError, match=r"\.csv, \.json, not '\.png'"):
        found.save(tmp_path / "found.png")


def test_percentiles_are_those_of_the_runs():
    found = Latency.of(np.arange(1, 102) * 1_000_000)
    assert (found.min, found.p50, found.p90, found.p99, found.max) == (
        1.0,
        51.0,
        91.0,
        100.0,
        101.0,
    )
    assert found.mean == 51.0


def test_an_operation_in_a_loop_is_one_row():
    events = [Event(0, "a", "ADD", "builtin", 2.0)] * 6 + [Event(1, "b", "MUL", "builtin", 1.0)] * 2
    assert rows(events, 2) == [
        {"name": "a", "type": "ADD", "kernel": "builtin", "time_us": 6.0, "calls": 3.0},
        {"name": "b", "type": "MUL", "kernel": "builtin", "time_us": 1.0, "calls": 1.0},
    ]
