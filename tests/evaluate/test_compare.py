"""What `compare` says of a float model, its sim and files beside each other."""

import csv
import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import (
    CalibrationDataError,
    EdgeqError,
    QuantizationWarning,
    RuntimeFailedError,
)
from keras_edgeq.evaluate.comparison_page import comparison_bars
from keras_edgeq.evaluate.float_files import is_float_file
from keras_edgeq.numerics.metrics import agreement, sqnr_db
from keras_edgeq.runtime.artifact_file import read_artifact
from keras_edgeq.runtime.child.loaded import Loaded
from keras_edgeq.runtime.child.process import Limits
from tests.evaluate.test_benchmark import tflite

L = tf_keras.layers
QUICK = {"runs": 3, "progress": False, "batch_size": 8}


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A model of two inputs and outputs, whose names are in another order; its sim and files."""
    tf_keras.utils.set_random_seed(0)
    a, b = tf_keras.Input((4, 4, 2), name="b_image"), tf_keras.Input((3,), name="a_more")
    x = L.Concatenate()([L.Flatten()(L.Conv2D(3, 3, name="conv")(a)), b])
    model = tf_keras.Model([a, b], [L.Dense(4, name="kind")(x), L.Dense(1, name="age")(x)])
    rng = np.random.default_rng(0)
    data = [rng.normal(size=(20, *t.shape[1:])).astype(np.float32) for t in model.inputs]
    sim = eq.quantize(model, data, progress=False)
    folder = tmp_path_factory.mktemp("compare")
    eq.export(sim, folder, ["tflite", "onnx", "saved_model"], verify=False, progress=False)
    (folder / "float.tflite").write_bytes(tflite(model))
    return model, sim, folder, data


def labelled(data, y):
    return {"b_image": data[0], "a_more": data[1]}, {"kind": y, "age": y}


def test_each_candidate_is_measured_against_the_float_model(case):
    model, sim, folder, data = case
    files = [folder / n for n in ("model.tflite", "float.tflite", "model.onnx", "saved_model")]
    y = np.arange(20) % 4
    asked = {"metric": "accuracy", "output": "kind", **QUICK}
    found = eq.compare(model, sim, *files, data=labelled(data, y), **asked)
    names = ["float model", "sim", *map(str, files)]
    assert [one.name for one in found.candidates] == names
    rows = dict(zip(names, found.candidates, strict=True))
    exact, ours = model.predict(data, verbose=0), sim.predict(data, verbose=0)
    assert rows["sim"].agreement == pytest.approx(agreement(exact[0], ours[0]))
    ratios = [sqnr_db(e, o) for e, o in zip(exact, ours, strict=True)]
    assert rows["sim"].sqnr_db == pytest.approx(np.mean(ratios), abs=1e-3)
    assert rows["sim"].metric == pytest.approx(np.mean(ours[0].argmax(-1) == y))
    assert rows["float model"].sqnr_db == np.inf
    quantized, plain, onnx, saved_model = (rows[str(path)] for path in files)
    for one in (quantized, onnx, saved_model):
        assert one.sqnr_db == pytest.approx(rows["sim"].sqnr_db, abs=3.0)
    assert plain.sqnr_db > 100.0
    assert plain.latency_ratio == 1.0
    assert quantized.latency_ratio > 0.0
    assert onnx.latency_ratio is None
    assert quantized.size_bytes == files[0].stat().st_size
    assert found.samples == 20


def test_the_result_is_shown_and_saved(case, tmp_path):
    model, sim, folder, data = case
    found = eq.compare(model, sim, folder / "model.tflite", data=data, **QUICK)
    assert "3 runs of one sample in turn" in str(found)
    assert not {"metric", "agreement", "to float"} & {*found.table()[0]}
    assert repr(found) == "<Comparison: 20 samples, float model, sim, model.tflite>"
    assert "<table>" in found._repr_html_()
    found.save(tmp_path / "found.json")
    found.save(tmp_path / "found.csv")
    values = json.loads((tmp_path / "found.json").read_text())
    assert values["candidates"][0]["sqnr_db"] is None
    with (tmp_path / "found.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[2]["latency_p50_ms"]) == found.candidates[2].latency.p50


def test_what_does_not_fit_is_named(case):
    model, sim, folder, data = case
    asked = {"metric": "accuracy", **QUICK}
    with pytest.raises(CalibrationDataError, match="no labels"):
        eq.compare(model, sim, data=data, output="kind", **asked)
    with pytest.raises(EdgeqError, match="output="):
        eq.compare(model, sim, data=data, **asked)
    with pytest.raises(EdgeqError, match="No such artifact"):
        eq.compare(model, sim, folder / "no.onnx", data=data, **QUICK)
    x = tf_keras.Input((4, 4, 2), name="image")
    other = tf_keras.Model(x, L.Dense(2)(L.Flatten()(x)))
    images = np.zeros((4, 4, 4, 2), np.float32)
    with pytest.raises(EdgeqError, match="cannot be told apart"):
        eq.compare(other, other, folder / "model.tflite", data=images, **QUICK)


def test_an_object_without_variables_cannot_be_filled_for_each(case):
    model, sim, _, data = case

    class Counts(tf_keras.metrics.Metric):
        def reset_state(self):
            self.seen = []

        def update_state(self, y_true, y_pred, sample_weight=None):
            self.seen.append(len(y_true))

        def result(self):
            return tf.constant(float(sum(self.seen)))

    asked = {"metric": Counts(), "output": "kind", **QUICK}
    with pytest.raises(EdgeqError, match="elsewhere than in variables"):
        eq.compare(model, sim, data=labelled(data, np.zeros(20)), **asked)


def test_only_a_file_of_float32_is_one_to_be_timed_beside(case):
    names = ("float.tflite", "model.tflite", "model.onnx", "saved_model")
    files = [read_artifact(case[2] / name, Limits(10.0, 10**9)) for name in names]
    assert [is_float_file(file) for file in files] == [True, False, False, False]


def test_a_page_and_a_picture_show_each_candidate(case, tmp_path):
    model, sim, folder, data = case
    asked = {"metric": "accuracy", "output": "kind", **QUICK}
    files = [folder / "model.tflite", folder / "model.onnx"]
    found = eq.compare(model, sim, *files, data=labelled(data, np.arange(20) % 4), **asked)
    found.save(tmp_path / "found.png")
    found.save(tmp_path / "found.html")
    assert (tmp_path / "found.png").read_bytes()[:4] == b"\x89PNG"
    page = (tmp_path / "found.html").read_text()
    for text in ("model.tflite, LiteRT xnnpack", "model.onnx, ONNX Runtime", "20 samples"):
        assert text in page
    panels = comparison_bars(found).axes
    assert [axis.get_title(loc="left") for axis in panels] == [
        "accuracy", "agreement, %", "SQNR, dB", "size, kB", "latency, ms",
    ]  # fmt: skip
    drawn = [bars.patches[0].get_width() for bars in panels[1].containers]
    assert [one.agreement for one in found.candidates] == pytest.approx(drawn)


@pytest.mark.parametrize("at", ["compute", "time"])
def test_a_runtime_that_ends_leaves_the_other_candidates_measured(case, monkeypatch, at):
    model, sim, folder, data = case
    real = getattr(Loaded, at)

    def ends(self, *args):
        if self._runtime == "ONNX Runtime":
            raise RuntimeFailedError("ONNX Runtime ended by signal 11.")
        return real(self, *args)

    monkeypatch.setattr(Loaded, at, ends)
    files = [folder / "model.onnx", folder / "model.tflite"]
    with pytest.warns(QuantizationWarning, match=r"model\.onnx is left out.*signal 11"):
        found = eq.compare(model, sim, *files, data=data, **QUICK)
    onnx, litert = found.candidates[2:]
    assert onnx.failed == "ONNX Runtime ended by signal 11."
    assert onnx.agreement is None
    assert onnx.latency is None
    assert litert.failed == ""
    assert litert.sqnr_db == pytest.approx(found.candidates[1].sqnr_db, abs=3.0)
    assert litert.latency.p50 > 0.0
    assert "signal 11" in str(found)
