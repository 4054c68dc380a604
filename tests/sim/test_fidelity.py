"""A sim beside its float model: the numbers, and what is said of them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import QuantizationWarning
from keras_edgeq.numerics.metrics import agreement, sqnr_db
from keras_edgeq.sim.measure_fidelity import float_tensors, measure_fidelity
from keras_edgeq.sim.weight_bytes import float_bytes, weight_bytes
from keras_edgeq.spec.fidelity import Fidelity
from tests.harness import outputs
from tests.models import inputs_for, make, train_like

L = tf_keras.layers


def small():
    x = tf_keras.Input((6,), name="x")
    y = L.Dense(8, activation="relu", name="first")(x)
    model = train_like(tf_keras.Model(x, L.Dense(3, name="second")(y)))
    return model, np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)


def test_outputs_and_tensors_have_the_errors_that_numpy_finds():
    model, data = small()
    sim = eq.quantize(model, data, progress=False)
    found = measure_fidelity(sim, float_tensors(sim, [data]))
    (out,) = found.outputs
    (wanted,), (got,) = outputs(model, data), outputs(sim, data)
    assert out.sqnr_db == pytest.approx(sqnr_db(wanted, got), abs=1e-3)
    assert out.agreement == pytest.approx(agreement(wanted, got))
    assert [one.tensor for one in found.tensors] == ["x", "first/relu", "second"]
    grid = {name: q.encoding for name, q in sim.quantizers().items()}

    def rounded(values, name):
        one = grid[name]
        low, high = one.bounds
        whole = np.clip(np.rint(values / one.scale) + one.zero_point, low, high)
        return (whole - one.zero_point) * one.scale

    def kernel(name):
        layer = sim.quantized_layers()[name]
        one, values = layer.quantizers["kernel"].encoding, layer.layer.kernel.numpy()
        return np.rint(values / one.scale) * one.scale, layer.layer.bias.numpy()

    weight, bias = kernel("first")
    hidden = np.maximum(data @ model.get_layer("first").kernel + model.get_layer("first").bias, 0)
    own = rounded(np.maximum(data @ weight + bias, 0), "first/relu")
    total = rounded(np.maximum(rounded(data, "x") @ weight + bias, 0), "first/relu")
    first = found.tensors[1]
    assert first.own_db == pytest.approx(sqnr_db(hidden, own), abs=0.3)
    assert first.total_db == pytest.approx(sqnr_db(hidden, total), abs=0.3)
    noise = 10 * math.log10(np.sum(hidden**2) / np.sum((total - own) ** 2))
    assert first.inherited_db == pytest.approx(noise, abs=0.2)
    assert found.tensors[0].inherited_db == math.inf
    assert found.worst(1)[0].own_db == min(one.own_db for one in found.tensors)


def test_what_a_technique_rounded_is_compared_with_the_float_weights():
    model, data = small()
    sim = eq.quantize(model, data, "litert_w4a8", progress=False)
    better = eq.gptq(sim, data, progress=False)
    (wanted,), (got,) = outputs(model, data), outputs(better, data)
    (out,) = measure_fidelity(better, float_tensors(better, [data])).outputs
    assert out.sqnr_db == pytest.approx(sqnr_db(wanted, got), abs=1e-2)
    assert better.record.fidelity != sim.record.fidelity


def test_a_record_keeps_what_was_measured_and_said(tmp_path):
    model, data = small()
    with pytest.warns(QuantizationWarning, match="Ranges rest on 8 samples"):
        sim = eq.quantize(model, data[:8], progress=False)
    eq.save_sim(sim, tmp_path / "sim.keras")
    loaded = eq.load_sim(tmp_path / "sim.keras")
    assert loaded.record.fidelity == sim.record.fidelity
    assert loaded.record.warnings == sim.record.warnings != ()
    text = json.dumps(sim.record.fidelity.to_json(), allow_nan=False)
    assert Fidelity.from_json(json.loads(text)) == sim.record.fidelity


def test_the_report_holds_float_sim_and_files_side_by_side(tmp_path):
    model, data = small()
    sim = eq.quantize(model, data[:32], progress=False)
    report = eq.export(sim, tmp_path, ["tflite", "onnx"], verify=data, progress=False)
    (wanted,), (got,) = outputs(model, data), outputs(sim, data)
    assert report.fidelity.samples == 64
    assert report.fidelity.outputs[0].sqnr_db == pytest.approx(sqnr_db(wanted, got), abs=1e-3)
    for run in report.runs:
        assert run.float_outputs[0].sqnr_db == pytest.approx(sqnr_db(wanted, got), abs=1.0)
    floats = 4 * (6 * 8 + 8 + 8 * 3 + 3)
    assert report.float_bytes == float_bytes(sim) == floats
    assert report.weight_bytes == weight_bytes(sim) == 6 * 8 + 8 * 3 + 4 * (8 + 3)
    text = str(report)
    for word in ("float model", "sim", "LiteRT xnnpack", "ONNX Runtime", "SQNR to float"):
        assert word in text
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["fidelity"]["outputs"][0]["output"] == "second"
    assert written["runs"][0]["float_outputs"][0]["sqnr_db"] > 20.0


def test_a_file_that_repeats_a_bad_sim_is_told_of(tmp_path):
    model, data = small()
    sim = eq.quantize(model, data, progress=False)
    with pytest.warns(QuantizationWarning):  # of the input, and of what it becomes
        report = eq.export(sim, tmp_path, ["tflite"], verify=20.0 * data, progress=False)
    assert all(run.agrees for run in report.runs)
    assert report.fidelity.outputs[0].sqnr_db < 10.0
    assert "WARNING: " in str(report)
    assert "lie beyond its grid" in report.warnings[0]


def test_a_declared_range_beyond_the_grid_is_told_of():
    x = tf_keras.Input((4, 4, 3), name="image")
    model = train_like(tf_keras.Model(x, L.Conv2D(2, 3)(L.Rescaling(1 / 255.0)(x))))
    dark = np.random.default_rng(0).uniform(0, 200, (32, 4, 4, 3)).astype(np.float32)
    with pytest.warns(QuantizationWarning, match=r"'image' is declared to lie in 0 to 255"):
        eq.quantize(model, dark, progress=False)
    dark[0] = 0.0
    dark[1] = 255.0
    sim = eq.quantize(model, dark, rules={"image": "minmax"}, progress=False)
    assert not any("declared" in message for message in sim.record.warnings)


def test_a_tensor_that_collapses_is_told_of_with_the_bits_there_are():
    model = make("residual")
    x = inputs_for(model, 32)
    x[0] *= 1e6
    with (
        pytest.warns(QuantizationWarning, match="far beyond the others in sample 0"),
        pytest.warns(QuantizationWarning, match=r"less than 10 dB of .*W8A16"),
    ):
        eq.quantize(model, x, rules={"activations": "minmax"}, progress=False)


def test_warnings_point_at_the_callers_line():
    model, data = small()
    with pytest.warns(QuantizationWarning) as told:
        eq.quantize(model, data[:4], progress=False)
    assert told[0].filename == __file__
    with pytest.warns(QuantizationWarning) as told:
        eq.requantize(eq.quantize(model, data[:4], check=False, progress=False))
    assert told[0].filename == __file__


def test_good_models_are_not_warned_of(recwarn):
    model, data = small()
    sim = eq.quantize(model, data, progress=False)
    eq.requantize(sim, precision={"second": "W8A16"})
    assert sim.record.warnings == ()
    assert not [w for w in recwarn if issubclass(w.category, QuantizationWarning)]
    assert tf.executing_eagerly()
