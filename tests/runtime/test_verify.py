"""`verify` runs artifacts and says whether, and where, they differ from the sim."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import keras_edgeq as eq
from keras_edgeq.errors import CalibrationDataError, EdgeqError
from keras_edgeq.profiles import load_profile
from keras_edgeq.runtime.artifact import LiteRt, OnnxRuntime
from keras_edgeq.runtime.explain import explain
from keras_edgeq.runtime.tflite_file import TfliteGraph
from keras_edgeq.runtime.walk import first_difference, walk
from tests.models import inputs_for, make


@pytest.fixture(scope="module")
def model():
    return make("sequential")


@pytest.fixture(scope="module")
def x(model):
    return inputs_for(model)


@pytest.fixture(scope="module")
def sim(model, x):
    return eq.quantize(model, x, progress=False)


@pytest.fixture(scope="module")
def files(sim, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    return eq.export(sim, folder, verify=False, progress=False).files


@pytest.mark.parametrize(
    ("kind", "runtimes"),
    [
        ("tflite", ["LiteRT xnnpack", "LiteRT builtin"]),
        ("onnx", ["ONNX Runtime"]),
        ("saved_model", ["SavedModel"]),
    ],
)
def test_every_artifact_agrees_with_the_sim_on_its_runtime(sim, x, files, kind, runtimes):
    runs = eq.verify(sim, files[kind], x)
    assert [run.runtime for run in runs] == runtimes
    for run in runs:
        assert run.agrees
        assert run.first_difference is None
        assert (run.artifact, run.samples, run.on_data) == (files[kind].name, 16, True)
        assert run.max_steps <= 1
        assert str(run).startswith(f"{run.runtime} on {run.artifact}: 16 samples, agreement")
    exact = [run for run in runs if run.runtime != "LiteRT builtin"]
    assert all(run.identical == 1.0 and run.max_abs_difference < 1e-5 for run in exact)


def test_int8_weights_are_verified_on_kernels_that_do_not_saturate(tmp_path):
    model = make("moves")
    x = inputs_for(model)
    profile = replace(load_profile("onnxruntime_int8"), onnx_activation="int8", onnx_weight="int8")
    sim = eq.quantize(model, x, profile, progress=False)
    (run,) = eq.export(sim, tmp_path, ["onnx"], verify=x, progress=False).runs
    assert run.identical == 1.0
    assert run.first_difference is None


def test_a_report_says_where_optimizations_move_the_outputs(tmp_path, monkeypatch):
    model = make("moves")
    x = inputs_for(model)
    sim = eq.quantize(model, x, "onnxruntime_int8", precision={"*": "W8A16"}, progress=False)
    (run,) = eq.export(sim, tmp_path, ["onnx"], verify=x, progress=False).runs
    assert run.optimizer_difference < 1e-4
    assert "optimizations" not in str(run)
    plain = OnnxRuntime.plain_outputs
    monkeypatch.setattr(OnnxRuntime, "plain_outputs", lambda *a: [1.005 * y for y in plain(*a)])
    (run,) = eq.verify(sim, tmp_path / "model.onnx", x)
    assert run.optimizer_difference > 2e-4
    assert "ONNX Runtime's optimizations move outputs in the mean by" in str(run)


def test_data_is_taken_as_a_dict_by_input_name_and_in_batches(sim, x, files):
    (name,) = sim.input_names
    (whole,) = eq.verify(sim, files["onnx"], {name: x})
    (parts,) = eq.verify(sim, files["onnx"], (part for part in (x[:10], x[10:])))
    assert whole == parts
    assert whole.samples == 16


def test_without_data_the_samples_of_the_sim_are_used(sim, files):
    for run in eq.verify(sim, files["tflite"]):
        assert run.on_data
        assert run.samples == 4
        assert "not verified on data" not in str(run)


def test_without_data_and_samples_the_report_says_so(model, x, tmp_path):
    sim = eq.quantize(model, x, keep_samples=0, progress=False)
    report = eq.export(sim, tmp_path, ["tflite"], progress=False)
    assert [run.on_data for run in report.runs] == [False, False]
    assert "random input, not verified on data" in str(report)
    assert report.runs[0].identical == 1.0


def test_data_that_does_not_fit_the_model_is_an_error(sim, files):
    with pytest.raises(CalibrationDataError, match="shape"):
        eq.verify(sim, files["onnx"], np.zeros((2, 5, 5, 3), np.float32))


def test_a_model_without_scores_is_judged_by_steps(tmp_path):
    model = make("upsampling")
    sim = eq.quantize(model, inputs_for(model), progress=False)
    run = eq.export(sim, tmp_path, ["tflite"], progress=False).runs[0]
    assert run.agreement is None
    assert run.mean_steps == 0.0
    assert run.agrees


def tampered(content, name):
    """Return a TFLite file whose largest weight in one kernel has the other sign."""
    graph = TfliteGraph(content)
    (number,) = [n for n in range(len(graph.tensors)) if graph.name(n) == name]
    values = graph.constant(number).copy()
    flat = values.reshape(-1)
    flat[np.argmax(np.abs(flat.astype(int)))] *= -1
    buffer = graph.model.buffers[graph.tensors[number].buffer]
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    return graph.write()


@pytest.mark.parametrize(("layer", "op"), [("conv", "Conv2D+relu"), ("head", "Dense")])
def test_one_wrong_weight_is_found_in_the_layer_that_has_it(sim, x, files, tmp_path, layer, op):
    path = tmp_path / "tampered.tflite"
    path.write_bytes(tampered(files["tflite"].read_bytes(), f"{layer}/kernel"))
    for run in eq.verify(sim, path, x):
        assert not run.agrees
        assert run.first_difference.tensor.startswith(layer)
        assert run.first_difference.op == op
        assert run.first_difference.max_steps > 1
        assert run.first_difference.cause == "file"
        assert f"first part at {run.first_difference.tensor} ({op}: " in str(run)
        assert "the file says something else than the sim" in str(run)
        assert run.to_json()["first_difference"]["tensor"] == run.first_difference.tensor


def test_the_integer_executor_runs_a_file_in_the_place_of_litert(sim, x, files):
    runs = eq.verify(sim, files["tflite"], x, kernels="integer")
    names = ["integer executor xnnpack_float", "integer executor fixed_point"]
    assert [run.runtime for run in runs] == names
    for run, real in zip(runs, eq.verify(sim, files["tflite"], x, kernels="litert"), strict=True):
        assert replace(run, runtime=real.runtime) == real


def test_the_integer_executor_finds_a_wrong_weight(sim, x, files, tmp_path):
    path = tmp_path / "tampered.tflite"
    path.write_bytes(tampered(files["tflite"].read_bytes(), "conv/kernel"))
    for run in eq.verify(sim, path, x, kernels="integer"):
        assert not run.agrees
        assert run.first_difference.op == "Conv2D+relu"


def test_unknown_kernels_are_an_error(sim, files):
    with pytest.raises(EdgeqError, match="kernels is 'fast'"):
        eq.verify(sim, files["tflite"], kernels="fast")


WITHOUT_LITERT = """
import sys
sys.modules["ai_edge_litert"] = None
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == "ai_edge_litert" else found(name, *a)
import keras_edgeq as eq
for run in eq.verify(eq.load_sim(sys.argv[1]), sys.argv[2]):
    print(run.runtime, run.agrees)
"""


@pytest.mark.slow
def test_without_litert_the_integer_executor_verifies(sim, files, tmp_path):
    eq.save_sim(sim, tmp_path / "sim.keras")
    command = [sys.executable, "-c", WITHOUT_LITERT, tmp_path / "sim.keras", files["tflite"]]
    made = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    lines = ["integer executor xnnpack_float True", "integer executor fixed_point True"]
    assert made.stdout.splitlines() == lines


def first_step(sim, x, files, kernels):
    """Return LiteRT, its tensors, and the first tensor that is not the sim's bit for bit."""
    runtime = LiteRt(files["tflite"].read_bytes(), sim, kernels)
    tensors = runtime.tensors([x])
    return runtime, tensors, first_difference(walk(sim, [x], tensors), 1.0)


def cause_of(step, *others):
    (explained,) = explain([step], *others)
    return explained.cause


def test_a_difference_that_the_kernels_arithmetic_makes_is_the_kernels(sim, x, files):
    many = np.concatenate([x * factor for factor in np.linspace(0.5, 1.5, 20, dtype=np.float32)])
    runtime, tensors, step = first_step(sim, many, files, "builtin")
    assert step is not None
    assert step.max_steps == 1
    assert cause_of(step, sim, runtime, [many], tensors) == "kernel"


def test_a_difference_that_no_arithmetic_makes_is_the_runtimes(sim, x, files):
    runtime, tensors, _ = first_step(sim, x, files, "xnnpack")
    name = next(name for name in tensors if name.startswith("conv"))
    changed = {**tensors, name: tensors[name] ^ 1}
    step = first_difference(walk(sim, [x], changed))
    assert step is not None
    assert step.tensor == name
    assert cause_of(step, sim, runtime, [x], changed) == "runtime"


def test_an_artifact_of_another_sim_is_an_error(files):
    model = make("forward_dense")
    other = eq.quantize(model, inputs_for(model), progress=False)
    for kind in ("tflite", "onnx", "saved_model"):
        with pytest.raises(EdgeqError, match="exported from another sim"):
            eq.verify(other, files[kind])


def test_a_missing_file_is_an_error(sim, tmp_path):
    with pytest.raises(EdgeqError, match="No such artifact"):
        eq.verify(sim, tmp_path / "missing.tflite")


@pytest.mark.parametrize("name", ["garbage.tflite", "garbage.onnx"])
@pytest.mark.parametrize("content", [b"", b"no model at all", bytes(2000)])
def test_a_damaged_file_is_an_error_that_names_the_runtime(sim, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(EdgeqError, match=r"cannot load the file|damaged"):
        eq.verify(sim, tmp_path / name)


def test_a_truncated_file_is_an_error(sim, files, tmp_path):
    for kind in ("tflite", "onnx"):
        path = tmp_path / files[kind].name
        path.write_bytes(files[kind].read_bytes()[:-1000])
        with pytest.raises(EdgeqError, match=r"cannot load the file|damaged"):
            eq.verify(sim, path)


def test_a_file_of_another_kind_and_a_folder_without_a_model_are_errors(sim, files, tmp_path):
    for path in (files["encodings"], files["float"], tmp_path):
        with pytest.raises(EdgeqError, match="not an artifact that can be run"):
            eq.verify(sim, path)


def test_a_damaged_saved_model_is_an_error(sim, tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"no model at all")
    with pytest.raises(EdgeqError, match="TensorFlow cannot load the folder"):
        eq.verify(sim, tmp_path)


def test_16_bit_tensors_are_judged_by_steps_of_their_own(model, x, tmp_path):
    sim = eq.quantize(model, x, precision={"*": "W8A16"}, progress=False)
    report = eq.export(sim, tmp_path, ["tflite"], verify=x, progress=False)
    for run in report.runs:
        assert run.agrees
        assert run.bits == 16
        assert run.first_difference is None
    path = tmp_path / "tampered.tflite"
    path.write_bytes(tampered(report.files["tflite"].read_bytes(), "conv/kernel"))
    for run in eq.verify(sim, path, x):
        assert not run.agrees
        assert run.first_difference.tensor.startswith("conv")
        assert run.first_difference.max_steps > 4
