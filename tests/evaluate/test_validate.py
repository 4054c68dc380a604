"""What `validate` measures is what the runtime predicts, whatever form data and metric have."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import CalibrationDataError, EdgeqError, QuantizationWarning
from keras_edgeq.evaluate.metrics import Metric

L = tf_keras.layers
QUIET = {"progress": False, "batch_size": 5}


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A file, data with labels, and the accuracy that LiteRT has on them."""
    tf_keras.utils.set_random_seed(0)
    image = tf_keras.Input((4, 4, 2), name="image")
    model = tf_keras.Model(image, L.Softmax(name="share")(L.Dense(3)(L.Flatten()(image))))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(23, 4, 4, 2)).astype(np.float32)
    y = rng.integers(0, 3, 23)
    folder = tmp_path_factory.mktemp("validate")
    sim = eq.quantize(model, x, progress=False)
    report = eq.export(sim, folder, ["tflite"], verify=False, progress=False)
    np.savez(folder / "data.npz", x=x, y=y)
    made = sim.predict(x, verbose=0)
    return report.files["tflite"], x, y, 100.0 * np.mean(made.argmax(-1) == y), made, folder


def accuracy(y_true, y_pred):
    assert len(y_true) == 23
    return np.mean(y_pred.argmax(-1) == y_true)


METRICS = {
    "name": lambda: "accuracy",
    "whole name": lambda: "SparseCategoricalAccuracy",
    "function": lambda: accuracy,
    "function of Keras": lambda: tf_keras.metrics.sparse_categorical_accuracy,
    "object": tf_keras.metrics.SparseCategoricalAccuracy,
}
FORMS = {
    "arrays": lambda x, y, _: (x, y),
    "by name": lambda x, y, _: ({"image": x}, y),
    "list": lambda x, y, _: ([x], y),
    "labels by output": lambda x, y, _: (x, {"share": y}),
    "dataset": lambda x, y, _: tf.data.Dataset.from_tensor_slices((x, y)).batch(4),
    "generator": lambda x, y, _: ((x[i : i + 4], y[i : i + 4]) for i in range(0, 23, 4)),
    "file": lambda x, y, folder: folder / "data.npz",
}


@pytest.mark.parametrize("kind", METRICS)
def test_every_form_of_a_metric_is_the_same_number(case, kind):
    path, x, y, expected, *_ = case
    found = eq.validate(path, (x, y), METRICS[kind](), **QUIET)
    assert 100.0 * found.value == pytest.approx(expected, abs=1e-4)
    assert found.samples == 23


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_data_keeps_labels_beside_their_inputs(case, form):
    path, x, y, expected, _, folder = case
    found = eq.validate(path, FORMS[form](x, y, folder), accuracy, **QUIET)
    assert 100.0 * found.value == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_metric_of_keras_3_is_reset_and_filled(case):
    import keras

    path, x, y, expected, *_ = case
    metric = keras.metrics.SparseCategoricalAccuracy()
    metric.update_state([0], [[1.0, 0.0]])
    found = eq.validate(path, (x, y), metric, **QUIET)
    assert 100.0 * found.value == pytest.approx(expected, abs=1e-4)


def test_weights_of_samples_count_for_objects_and_functions_refuse_them(case):
    path, x, y, _, made, _ = case
    weights = np.arange(23.0)
    found = eq.validate(path, (x, y, weights), "accuracy", **QUIET)
    assert found.value == pytest.approx(np.average(made.argmax(-1) == y, weights=weights))
    with pytest.raises(EdgeqError, match="weights of samples"):
        eq.validate(path, (x, y, weights), accuracy, **QUIET)


def test_what_is_no_metric_or_has_no_labels_is_named(case):
    path, x, y, *_ = case
    for metric, words in {
        "acuracy": "Did you mean 'Accuracy'",
        tf_keras.metrics.AUC: r"AUC is no metric: give an object",
        3: "3 is no metric",
    }.items():
        with pytest.raises(EdgeqError, match=words):
            eq.validate(path, (x, y), metric, **QUIET)
    with pytest.raises(EdgeqError, match="not a number"):
        eq.validate(path, (x, y), lambda *_: "good", **QUIET)
    with pytest.raises(CalibrationDataError, match="no labels"):
        eq.validate(path, x, "accuracy", **QUIET)
    with pytest.raises(CalibrationDataError, match="different lengths"):
        eq.validate(path, (x, y[:20]), "accuracy", **QUIET)
    with pytest.raises(EdgeqError, match="Did you mean 'share'"):
        eq.validate(path, (x, y), "accuracy", output="shares", **QUIET)


def test_a_metric_that_is_nan_is_said(case):
    path, x, y, *_ = case
    with pytest.warns(QuantizationWarning, match="is nan, of finite predictions"):
        found = eq.validate(path, (x, y), lambda *_: float("nan"), **QUIET)
    assert np.isnan(found.value)


def test_a_function_keeps_no_more_than_it_may(case):
    y = case[2]
    measured = Metric(accuracy, most_bytes=100)
    with pytest.raises(EdgeqError, match="more than memory_bytes=100"):
        measured.add(y, np.zeros((23, 3)))


def test_a_saved_model_that_does_more_than_compute_is_not_run(tmp_path):
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec((None, 2), tf.float32)])
    def serve(x):
        tf.io.write_file(str(tmp_path / "written"), "x")
        return {"y": x}

    tf.saved_model.save(module, str(tmp_path / "model"), signatures=serve)
    with pytest.raises(EdgeqError, match="not known to only compute: WriteFile"):
        eq.validate(tmp_path / "model", (np.zeros((4, 2)), np.zeros(4)), "mse", **QUIET)
    assert not (tmp_path / "written").exists()
