"""`export` writes what other programs read: files are run, and loaded in a fresh process."""

import json
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import (
    CalibrationDataError,
    ExportError,
    QuantizationWarning,
)
from keras_edgeq.files import sha256_of
from keras_edgeq.runtime.litert import LiteRtModel
from tests.harness import assert_close, outputs
from tests.models import inputs_for, make, train_like

L = tf_keras.layers
ARTIFACTS = {
    "tflite": "small.tflite",
    "onnx": "small.onnx",
    "encodings": "small.encodings.json",
    "aimet": "small.aimet",
    "saved_model": "saved_model",
    "float": "small_float.keras",
}


@pytest.fixture(scope="module")
def model():
    return make("unsorted_inputs")


@pytest.fixture(scope="module")
def x(model):
    return inputs_for(model)


@pytest.fixture(scope="module")
def sim(model, x):
    return eq.quantize(model, x, progress=False)


@pytest.fixture(scope="module")
def report(sim, tmp_path_factory):
    return eq.export(sim, tmp_path_factory.mktemp("new") / "out", name="small", progress=False)


@pytest.mark.slow
def test_every_format_is_written_under_its_name_and_nothing_else(report):
    folder = report.files["tflite"].parent
    assert {kind: path.name for kind, path in report.files.items()} == ARTIFACTS
    there = {path.name for path in folder.iterdir()}
    assert there == {*ARTIFACTS.values(), "report.json"}
    aimet = {path.name for path in report.files["aimet"].iterdir()}
    assert aimet == {"small.onnx", "small.encodings"}
    assert report.sizes["tflite"] == report.files["tflite"].stat().st_size
    inside = [f for f in report.files["saved_model"].rglob("*") if f.is_file()]
    assert report.sizes["saved_model"] == sum(f.stat().st_size for f in inside)


def test_the_report_says_what_computes_in_integers_and_how_each_runtime_compares(report):
    assert report.profile == "litert_int8"
    assert sorted(report.integer_layers) == ["both", "da", "dz", "head"]
    assert dict(report.float_layers) == dict(report.float_ops) == {}
    runtimes = {run.runtime: run for run in report.runs}
    assert list(runtimes) == ["LiteRT xnnpack", "LiteRT builtin", "ONNX Runtime", "SavedModel"]
    assert all(run.agrees and run.on_data and run.samples == 4 for run in report.runs)
    assert runtimes["LiteRT xnnpack"].identical == runtimes["SavedModel"].identical == 1.0
    text = str(report)
    assert all(str(path) in text for path in report.files.values())
    assert all(run.runtime in text for run in report.runs)


def test_the_report_is_written_as_json(report):
    text = (report.files["tflite"].parent / "report.json").read_text(encoding="utf-8")
    read = json.loads(text, parse_constant=pytest.fail)
    assert read == json.loads(json.dumps(report.to_json()))
    assert read["files"] == ARTIFACTS
    assert [run["runtime"] for run in read["runs"]] == [run.runtime for run in report.runs]
    assert read["runs"][0]["first_difference"] is None


def test_a_generator_verifies_every_artifact_on_all_of_its_data(sim, x, tmp_path):
    data = ({name: value[i : i + 5] for name, value in x.items()} for i in (0, 5))
    report = eq.export(sim, tmp_path, ["tflite", "onnx"], verify=data, progress=False)
    assert [run.samples for run in report.runs] == [10, 10, 10]


def test_data_that_does_not_fit_is_an_error_before_anything_is_written(sim, tmp_path):
    with pytest.raises(CalibrationDataError, match="zebra"):
        eq.export(sim, tmp_path / "out", verify={"ant": np.zeros((1, 3))}, progress=False)
    assert not (tmp_path / "out").exists()


def test_names_that_are_no_identifiers_are_kept_in_every_format(tmp_path):
    x = tf_keras.Input((6,), name="in-put.1")
    model = train_like(tf_keras.Model(x, L.Dense(3, name="out-put.1")(x)))
    sim = eq.quantize(model, inputs_for(model), progress=False)
    report = eq.export(sim, tmp_path, progress=False)
    assert [run.max_abs_difference < 1e-6 for run in report.runs] == [True] * 4
    (tflite,) = LiteRtModel(report.files["tflite"].read_bytes()).inputs
    serve = tf.saved_model.load(str(report.files["saved_model"])).signatures["serving_default"]
    assert list(serve(**{"in-put.1": tf.zeros((1, 6))})) == ["out-put.1"]
    assert tflite == "in-put.1"


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 8])
def test_a_model_with_a_fixed_batch_is_quantized_exported_and_verified(tmp_path, batch):
    x = tf_keras.Input((5, 5, 2), batch_size=batch, name="image")
    y = L.Flatten()(L.Conv2D(3, 3, name="conv")(x))
    model = train_like(tf_keras.Model(x, L.Dense(4, name="head")(y)))
    data = np.random.default_rng(0).normal(size=(16, 5, 5, 2)).astype(np.float32)
    sim = eq.quantize(model, data, progress=False)
    report = eq.export(sim, tmp_path, progress=False)
    assert [run.runtime for run in report.runs if run.agrees] == [r.runtime for r in report.runs]
    assert [run.samples for run in report.runs] == [max(batch, 4)] * 4
    assert report.runs[0].identical == 1.0


def test_a_float_layer_and_its_ops_are_named_with_the_reason(tmp_path):
    model = make("lambda_island")
    sim = eq.quantize(model, inputs_for(model), progress=False)
    report = eq.export(sim, tmp_path, ["tflite"], progress=False)
    assert report.integer_layers == ("before", "after")
    assert list(report.float_layers) == ["island"]
    # TensorFlow's converter names what it makes of a tf.function by the function's operations.
    assert all("Softplus" in name for name in report.float_ops)
    assert report.float_ops
    assert "2 of 3 layers compute in integers" in str(report)
    assert f"float: island: {report.float_layers['island']}" in str(report)


def test_a_dead_channel_is_reported(tmp_path):
    model = make("dead_channel")
    sim = eq.quantize(model, inputs_for(model), progress=False)
    report = eq.export(sim, tmp_path, ["tflite"], progress=False)
    assert dict(report.floored) == {"conv": 1}
    assert "1 dead channels" in str(report)


def test_one_format_can_be_given_as_a_string_and_verification_switched_off(sim, tmp_path):
    report = eq.export(sim, tmp_path, "tflite", verify=False, progress=False)
    assert list(report.files) == ["tflite"]
    assert report.runs == ()


@pytest.mark.parametrize("formats", [["tflite", "coreml"], [], "keras"])
def test_formats_that_do_not_exist_are_an_error_that_lists_the_others(sim, tmp_path, formats):
    with pytest.raises(ExportError, match="tflite, onnx, encodings, saved_model"):
        eq.export(sim, tmp_path / "out", formats, progress=False)
    assert not (tmp_path / "out").exists()


def test_a_format_that_the_profile_does_not_have_is_an_error(tmp_path, model, x):
    sim = eq.quantize(model, x, "onnxruntime_int8", progress=False)
    with pytest.raises(ExportError, match=r"\['tflite'\].*'onnxruntime_int8'; it has onnx"):
        eq.export(sim, tmp_path, ["onnx", "tflite"], progress=False)
    assert list(tmp_path.iterdir()) == []


def test_only_a_sim_is_exported(model, tmp_path):
    with pytest.raises(ExportError, match=r"Functional; export takes what keras_edgeq\.quantize"):
        eq.export(model, tmp_path, progress=False)


@pytest.mark.parametrize("kind", ["tflite", "onnx", "encodings", "saved_model"])
def test_a_place_that_cannot_be_written_is_an_error_that_names_it(sim, tmp_path, kind):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(ExportError, match=r"Cannot write .*file/out"):
        eq.export(sim, tmp_path / "file" / "out", [kind], progress=False)
    assert (tmp_path / "file").read_text() == "kept"


def test_an_export_over_an_older_one_replaces_it(sim, tmp_path):
    for name in ("model.tflite", "saved_model"):
        (tmp_path / name).mkdir() if name == "saved_model" else (tmp_path / name).write_text("old")
    (tmp_path / "saved_model" / "old").write_text("old")
    eq.export(sim, tmp_path, ["tflite", "saved_model"], progress=False)
    assert (tmp_path / "model.tflite").read_bytes()[4:8] == b"TFL3"
    assert not (tmp_path / "saved_model" / "old").exists()
    assert {p.name for p in tmp_path.iterdir()} == {
        "model.tflite", "saved_model", "model_float.keras", "report.json",
    }  # fmt: skip


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_second_export_removes_what_the_first_wrote_and_nothing_of_the_users(sim, tmp_path):
    eq.export(sim, tmp_path, ["encodings"], name="a", progress=False)
    first = json.loads((tmp_path / "report.json").read_text())
    assert first["sha256"]["aimet"] == sha256_of(tmp_path / "a.aimet")
    (tmp_path / "a.encodings.json").write_text("edited")
    (tmp_path / "b.onnx").write_text("mine")
    first["files"].update(other="../outside", up="..", pipe="b.onnx", number=3)
    (tmp_path / "report.json").write_text(json.dumps(first))
    eq.export(sim, tmp_path, "tflite", verify=False, name="b", progress=False)
    assert {p.name for p in tmp_path.iterdir()} == {
        "a.encodings.json", "b.onnx", "b.tflite", "report.json",
    }  # fmt: skip
    assert (tmp_path / "b.onnx").read_text() == "mine"


def test_files_of_a_report_without_digests_are_known_by_their_size(sim, tmp_path):
    report = {"files": {"onnx": "old.onnx", "aimet": "old.aimet"}, "sizes": {"onnx": 3, "aimet": 3}}
    (tmp_path / "report.json").write_text(json.dumps(report))
    (tmp_path / "old.onnx").write_text("old")
    (tmp_path / "old.aimet").write_text("longer")
    eq.export(sim, tmp_path, "tflite", verify=False, progress=False)
    assert {p.name for p in tmp_path.iterdir()} == {"old.aimet", "model.tflite", "report.json"}


@pytest.mark.parametrize("fault", [ExportError("no such op"), KeyError("raw\nlines")])
def test_a_format_that_fails_leaves_the_others_and_is_named(sim, tmp_path, monkeypatch, fault):
    def fail(sim):
        raise fault

    monkeypatch.setattr(import_module("keras_edgeq.export.onnx.qdq"), "to_onnx_qdq", fail)
    with pytest.warns(QuantizationWarning, match=r"Format 'onnx' was not exported") as caught:
        report = eq.export(sim, tmp_path, ["onnx", "tflite"], progress=False)
    assert caught[0].filename == __file__
    assert {p.name for p in tmp_path.iterdir()} == {"model.tflite", "report.json"}
    assert list(report.files) == ["tflite"]
    assert list(report.failed) == ["onnx"]
    why = "no such op" if isinstance(fault, ExportError) else "'onnx': the converter failed"
    assert why in report.failed["onnx"]
    assert f"FAILED onnx: {report.failed['onnx']}" in str(report)
    read = json.loads((tmp_path / "report.json").read_text())
    assert read["failed"] == dict(report.failed)
    assert len(report.runs) == 2


def test_a_file_that_cannot_be_run_is_kept_and_said_to_fail(sim, tmp_path, monkeypatch):
    class Damaged:
        content, floats, constant_bytes = b"TFL3 no more", {}, {}

    monkeypatch.setattr(
        import_module("keras_edgeq.export.tflite.convert"), "to_tflite", lambda *_: Damaged
    )
    report = eq.export(sim, tmp_path, ["tflite", "onnx"], progress=False)
    names = {"model.onnx", "model.tflite", "report.json"}
    assert {p.name for p in tmp_path.iterdir()} == names
    failed, *others = report.runs
    assert failed.verdict == "failed"
    assert "LiteRT cannot load" in str(failed.failed)
    assert [run.verdict for run in others] == ["same"]


def test_when_every_format_fails_the_older_set_stays(sim, tmp_path, monkeypatch):
    eq.export(sim, tmp_path, ["tflite"], verify=False, progress=False)
    before = contents(tmp_path)

    def fail(*_):
        raise RuntimeError("no converter")

    monkeypatch.setattr(import_module("keras_edgeq.export.onnx.qdq"), "to_onnx_qdq", fail)
    monkeypatch.setattr(import_module("keras_edgeq.export.tflite.convert"), "to_tflite", fail)
    with pytest.raises(ExportError, match=r"(?s)No format.*\ntflite: .*\nonnx: .*no converter"):
        eq.export(sim, tmp_path, ["tflite", "onnx"], progress=False)
    with pytest.raises(ExportError, match=r"'onnx'.*RuntimeError: no converter"):
        eq.export(sim, tmp_path, "onnx", progress=False)
    assert contents(tmp_path) == before


def test_an_export_that_is_interrupted_leaves_the_older_set(sim, tmp_path, monkeypatch):
    eq.export(sim, tmp_path, ["tflite"], verify=False, progress=False)
    before = contents(tmp_path)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(import_module("keras_edgeq.export.onnx.qdq"), "to_onnx_qdq", interrupt)
    with pytest.raises(KeyboardInterrupt):
        eq.export(sim, tmp_path, ["tflite", "onnx"], progress=False)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["../model", "a/b", "", "..", None])
def test_a_name_with_a_folder_is_refused(sim, tmp_path, name):
    with pytest.raises(ExportError, match="stem of file names"):
        eq.export(sim, tmp_path / "out", "tflite", name=name, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_trained_sim_is_exported_bit_for_bit(tmp_path):
    model = make("forward_conv")
    x = inputs_for(model)
    sim = eq.quantize(model, x, progress=False)
    before = sim.get_weights()
    sim.compile(tf_keras.optimizers.SGD(0.05), "mse")
    wanted = np.full((len(x), *sim.output_shape[1:]), 0.3)
    sim.fit(x, wanted, epochs=1, batch_size=4, verbose=0)
    assert any(not np.array_equal(a, b) for a, b in zip(before, sim.get_weights(), strict=True))
    xnnpack = eq.export(sim, tmp_path, ["tflite"], verify=x, progress=False).runs[0]
    assert xnnpack.samples == len(x)
    assert xnnpack.identical == 1.0
    assert xnnpack.first_difference is None


# A program of somebody who has TensorFlow and tf_keras alone.
ELSEWHERE = """
import sys
sys.modules["keras_edgeq"] = None  # an import of it is an error
import numpy as np, tensorflow as tf, tf_keras
saved, floats, data, results = sys.argv[1:]
x = dict(np.load(data))
serve = tf.saved_model.load(saved).signatures["serving_default"]
specs = serve.structured_input_signature[1]
assert {n: s.shape.as_list() for n, s in specs.items()} == {"zebra": [None, 4], "ant": [None, 3]}
quantized = serve(**{name: tf.constant(value) for name, value in x.items()})["head"]
converted = tf.lite.TFLiteConverter.from_saved_model(saved).convert()
model = tf_keras.models.load_model(floats)
plain = model([x["zebra"], x["ant"]])
np.savez(results, quantized=quantized, plain=plain, tflite=np.frombuffer(converted, np.uint8))
"""


@pytest.fixture(scope="module")
def elsewhere(report, x, tmp_path_factory):
    """What a fresh process without keras_edgeq makes of the SavedModel and of the float model."""
    folder = tmp_path_factory.mktemp("elsewhere")
    np.savez(folder / "x.npz", **x)
    paths = [report.files["saved_model"], report.files["float"]]
    command = [sys.executable, "-c", ELSEWHERE, *paths, folder / "x.npz", folder / "results.npz"]
    done = subprocess.run(
        list(map(str, command)), cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(np.load(folder / "results.npz"))


@pytest.mark.slow
def test_a_saved_model_gives_the_sims_outputs_without_this_package(sim, x, elsewhere):
    np.testing.assert_array_equal(elsewhere["quantized"], outputs(sim, x)[0])


def test_a_saved_model_can_be_converted_by_tensorflow_alone(sim, x, elsewhere):
    converted = LiteRtModel(elsewhere["tflite"].tobytes())
    made = converted.run([x[name] for name in sim.input_names], sim.input_names)
    np.testing.assert_allclose(made["head"], outputs(sim, x)[0], rtol=0, atol=1e-5)


def test_the_float_model_is_the_users_without_this_package(model, x, elsewhere):
    assert_close(outputs(model, x), [elsewhere["plain"]])
