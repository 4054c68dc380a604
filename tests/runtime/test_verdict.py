"""A verdict tells a wrong file, a kernel's rounding, a moved tensor and an amplified step apart."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import tf_keras
from onnx import numpy_helper

import keras_edgeq as eq
from keras_edgeq.runtime.artifact import OnnxRuntime
from keras_edgeq.runtime.run_report import VERDICTS, Drift
from keras_edgeq.runtime.verify import _judged
from keras_edgeq.runtime.walk import Step, walk

L = tf_keras.layers


@pytest.fixture(scope="module")
def of_pool(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("out"), (8, 8, 3), pooled, "onnx")


def exported(folder, shape, build, kind, samples=64):
    """Return the sim of a small model, data, and one exported file."""
    tf_keras.utils.set_random_seed(0)
    i = tf_keras.Input(shape)
    model = tf_keras.Model(i, build(i))
    x = np.random.default_rng(0).normal(size=(samples, *shape)).astype(np.float32)
    sim = eq.quantize(model, x, progress=False)
    return sim, x, eq.export(sim, folder, [kind], verify=False, progress=False).files[kind]


def pooled(i):
    return L.Dense(5, name="head")(
        L.Flatten()(L.AveragePooling2D(2)(L.Conv2D(6, 3, name="conv")(i)))
    )


def test_ties_that_a_kernel_rounds_otherwise_are_the_kernels(of_pool):
    sim, x, path = of_pool
    (run,) = eq.verify(sim, path, x)
    assert (run.verdict, run.agrees) == ("kernel", True)
    assert run.first_difference.op == "AveragePool"
    assert run.first_difference.cause == "kernel"
    assert run.first_difference.identical < 0.9
    assert run.first_difference.is_nearest
    assert "kernel: its kernels round otherwise, as is known of them" in str(run)


@pytest.mark.parametrize(
    "build",
    [
        lambda i: L.LeakyReLU(0.1)(L.Conv2D(6, 3)(i)),
        lambda i: L.LeakyReLU(0.6)(L.Conv2D(6, 3)(i)),
        lambda i: L.PReLU(alpha_initializer="random_uniform")(L.Conv2D(6, 3)(i)),
    ],
)
def test_slopes_below_zero_are_at_most_the_kernels(tmp_path, build):
    def scored(i):
        return L.Dense(5)(L.Flatten()(build(i)))

    sim, x, path = exported(tmp_path, (8, 8, 3), scored, "tflite")
    for run in eq.verify(sim, path, x):
        assert run.verdict in ("same", "kernel")


def changed(path, name, change):
    """Change an initializer of an ONNX file in place."""
    model = onnx.load(path)
    (constant,) = [c for c in model.graph.initializer if c.name == name]
    values = numpy_helper.to_array(constant).copy()
    constant.CopyFrom(numpy_helper.from_array(change(values), name))
    onnx.save(model, path)


def one_negated(values):
    """Give the largest weight the other sign, whether zero lies at 0 or at 128."""
    zero = 128 if values.dtype == np.uint8 else 0
    whole = values.astype(int) - zero
    whole.reshape(-1)[np.argmax(np.abs(whole))] *= -1
    return (np.clip(whole, -127, 127) + zero).astype(values.dtype)


def test_a_wrong_weight_behind_a_kernels_rounding_is_the_files(of_pool, tmp_path):
    sim, x, path = of_pool
    path = Path(shutil.copy(path, tmp_path))
    changed(path, "head/kernel/quantized", one_negated)
    (run,) = eq.verify(sim, path, x)
    assert (run.verdict, run.agrees) == ("file", False)
    assert run.first_difference.tensor == "head"
    assert "the file says something else than the sim" in str(run)
    assert run.to_json()["verdict"] == "file"


def test_a_runtime_that_does_something_else_than_the_file_is_named(of_pool, monkeypatch):
    sim, x, path = of_pool
    tensors = OnnxRuntime.tensors

    def other(self, inputs):
        made = tensors(self, inputs)
        return {**made, "conv": made["conv"] ^ 4}

    monkeypatch.setattr(OnnxRuntime, "tensors", other)
    (run,) = eq.verify(sim, path, x)
    assert (run.verdict, run.agrees) == ("runtime", False)
    assert run.first_difference.tensor == "conv"


def test_optimizations_that_change_the_outputs_are_the_runtimes(of_pool, monkeypatch):
    sim, x, path = of_pool
    plain = OnnxRuntime.outputs
    monkeypatch.setattr(OnnxRuntime, "outputs", lambda *a: [-y for y in plain(*a)])
    (run,) = eq.verify(sim, path, x)
    assert (run.verdict, run.agrees) == ("runtime", False)


MOVED = {
    "gru": ((4, 6), lambda i: L.GRU(5, return_sequences=True)(L.Dense(8)(i))),
    "lstm": ((4, 6), lambda i: L.LSTM(5, return_sequences=True)(L.Dense(8)(i))),
    "as many steps as samples": (
        (16, 6),
        lambda i: L.LSTM(5, return_sequences=True)(L.Dense(8)(i)),
    ),
    "masked": ((4, 6), lambda i: L.LSTM(5, return_sequences=True)(L.Masking()(L.Dense(8)(i)))),
    "simple": ((4, 6), lambda i: L.SimpleRNN(5, return_sequences=True)(L.Dense(8)(i))),
    "both ways": (
        (4, 6),
        lambda i: L.Bidirectional(L.SimpleRNN(5, return_sequences=True))(L.Dense(8)(i)),
    ),
    "locally connected": ((8, 6), lambda i: L.LocallyConnected1D(5, 2)(L.Dense(8)(i))),
    "transposed": (
        (6, 5, 3),
        lambda i: L.Conv2DTranspose(4, 3, dilation_rate=2)(L.Conv2D(6, 3)(i)),
    ),
}


SLOW = {"gru", "lstm", "masked", "simple", "transposed", "as many steps as samples"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in MOVED]
)
def test_what_a_converter_moves_is_compared_where_it_belongs(tmp_path, name):
    shape, build = MOVED[name]

    def scored(i):
        return L.Dense(3)(build(i))

    sim, x, path = exported(tmp_path, shape, scored, "onnx", samples=16)
    (run,) = eq.verify(sim, path, x)
    assert (run.verdict, run.identical, run.not_compared) == ("same", 1.0, ())


def test_a_tensor_that_fits_in_no_order_of_axes_is_left_out(of_pool):
    sim, x, path = of_pool
    x = x[:16]
    runtime = OnnxRuntime(path.read_bytes(), sim)
    tensors = runtime.tensors([x])
    other = {**tensors, "conv": tensors["conv"][:, :, :2]}
    assert {s.tensor for s in walk(sim, [x], tensors)} - {
        s.tensor for s in walk(sim, [x], other)
    } == {"conv"}


def test_any_order_of_axes_is_found(of_pool):
    sim, x, path = of_pool
    x = x[:16]
    tensors = OnnxRuntime(path.read_bytes(), sim).tensors([x])
    usual = walk(sim, [x], tensors)
    for order in ((3, 1, 0, 2), (2, 3, 0, 1), (0, 1, 3, 2)):
        moved = {**tensors, "conv": np.transpose(tensors["conv"], order)}
        assert walk(sim, [x], moved) == usual


def step(identical=1.0, most=0, bits=8, cause=None):
    return Step("t", "Dense", identical, 1.0 - identical, most, 100, bits, False, cause)


@pytest.mark.parametrize(
    ("differing", "verdict"),
    [
        ([], "same"),
        ([step(0.95, 1)], "same"),
        ([step(0.95, 1, cause="runtime")], "same"),
        ([step(0.95, 1, cause="kernel")], "kernel"),
        ([step(0.5, 1, cause="kernel")], "kernel"),
        ([step(0.5, 33, cause="kernel")], "runtime"),
        ([step(0.5, 1)], "differs"),
        ([step(0.99, 2)], "differs"),
        ([step(0.99, 4, bits=16)], "same"),
        ([step(0.99, 5, bits=16)], "differs"),
        ([step(0.5, 1, cause="kernel"), step(0.9, 9, cause="file")], "file"),
        ([step(0.5, 1, cause="runtime"), step(0.5, 1)], "runtime"),
    ],
)
def test_the_worst_of_what_differs_decides(differing, verdict):
    found, first = _judged(differing, 0.9)
    assert found == verdict
    assert (first is None) == (not differing)
    assert found in VERDICTS


@pytest.mark.parametrize(
    ("mean", "most", "agreement", "apart"),
    [
        (0.3, 4.0, None, False),
        (0.3, 4.0, 90.0, False),
        (1.5, 8.0, 99.5, False),
        (1.5, 8.0, 98.0, True),
        (1.5, 8.0, None, True),
        (0.3, 33.0, 100.0, True),
        (float("nan"), float("nan"), 100.0, True),
    ],
)
def test_outputs_are_apart_in_the_mean_or_by_one_far_step(mean, most, agreement, apart):
    assert Drift(mean, most).is_apart(agreement) == apart


def test_steps_that_the_model_amplifies_are_no_fault_of_the_file(tmp_path):
    def build(i):
        x = L.AveragePooling2D(2, name="pool")(L.Conv2D(6, 3)(i))
        x = L.Flatten()(x)
        # Differences of neighbours that are almost alike, times 60.
        kernel = np.zeros((54, 1), np.float32)
        kernel[0], kernel[6] = 60.0, -60.0
        return L.Dense(1, kernel_initializer=tf_keras.initializers.Constant(kernel))(x)

    tf_keras.utils.set_random_seed(0)
    i = tf_keras.Input((8, 8, 3))
    model = tf_keras.Model(i, L.Activation("sigmoid")(build(i)))
    x = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype(np.float32)
    sim = eq.quantize(model, x, progress=False)
    report = eq.export(sim, tmp_path, ["onnx"], verify=x, progress=False)
    (run,) = report.runs
    assert (run.verdict, run.agrees) == ("amplified", False)
    assert run.drift.most > 16.0
    assert "steps of 8 bits apart in the mean" in str(run)
    assert run.first_difference.cause == "kernel"
