"""NaN and infinity that a selection or a comparison takes away, and those that it does not."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import CalibrationDataError, UnsupportedModelError
from tests.models import train_like
from tests.short import short

L = tf_keras.layers
X = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
X[3] = X[:, 2] = 0.0
KERNEL = np.random.default_rng(1).normal(size=(6, 5)).astype(np.float32)


def as_real(test):
    return tf.cast(test, tf.float32)


def sinc(h):
    return tf.where(tf.equal(h, 0.0), tf.ones_like(h), tf.sin(np.pi * h) / (np.pi * h))


def log_of_itself(h):
    y = tf.math.log(h)
    return tf.where(tf.math.is_finite(y), y, 0.0)


def finite_log(h):
    y = tf.math.log(h)
    y = tf.where(tf.math.is_nan(y), 0.0, y)
    return tf.where(tf.math.is_inf(y), -3.0, y)


def numpy_log(h):
    return np.where(h > 0.0, np.log(np.where(h > 0.0, h, 1.0)), 0.0)


# Of the pre-activations: function of TensorFlow, and its right values in NumPy.
TAKEN: dict = {
    "sinc": (sinc, np.sinc),
    "divided by what is not zero": (
        lambda h: tf.where(h > 0.0, h / (2.0 * tf.nn.relu(h)), 0.0),
        lambda h: np.where(h > 0.0, 0.5, 0.0),
    ),
    "divided in another branch": (
        lambda h: tf.where(h <= 0.0, 0.0, h / tf.nn.relu(h)),
        lambda h: np.where(h > 0.0, 1.0, 0.0),
    ),
    "log": (lambda h: tf.where(h > 0.0, tf.math.log(h), 0.0), numpy_log),
    "log of itself": (log_of_itself, numpy_log),
    "log in a chain": (
        lambda h: tf.where(h > 0.0, 0.5 * tf.math.log(3.0 * tf.nn.relu(h)) + 1.0, 0.0),
        lambda h: np.where(h > 0.0, 0.5 * numpy_log(3.0 * h) + 1.0, 0.0),
    ),
    "root": (
        lambda h: tf.where(h > 0.0, tf.sqrt(h), -1.0),
        lambda h: np.where(h > 0.0, np.sqrt(np.abs(h)), -1.0),
    ),
    "a half's power": (
        lambda h: tf.where(h > 0.0, h**0.5, -1.0),
        lambda h: np.where(h > 0.0, np.sqrt(np.abs(h)), -1.0),
    ),
    "selections of selections": (
        finite_log,
        lambda h: np.where(h == 0.0, -3.0, numpy_log(h)),
    ),
    "no NaN": (
        lambda h: tf.math.divide_no_nan(*2 * [tf.nn.relu(h)]),
        lambda h: np.where(h > 0.0, 1.0, 0.0),
    ),
    "no NaN of five axes": (
        lambda h: tf.reshape(
            tf.math.divide_no_nan(*2 * [tf.nn.relu(tf.reshape(h, [-1, 5, 1, 1, 1]))]), [-1, 5]
        ),
        lambda h: np.where(h > 0.0, 1.0, 0.0),
    ),
    "no NaN of a log": (
        lambda h: tf.math.multiply_no_nan(tf.math.log(h), as_real(h > 0.0)),
        numpy_log,
    ),
    "no NaN of five axes in a product": (
        lambda h: tf.reshape(
            tf.math.multiply_no_nan(
                tf.math.log(tf.reshape(h, [-1, 5, 1, 1, 1])),
                as_real(tf.reshape(h, [-1, 5, 1, 1, 1]) > 0.0),
            ),
            [-1, 5],
        ),
        numpy_log,
    ),
    "infinity that is found": (
        lambda h: h + as_real(tf.math.is_inf(tf.math.log(h))),
        lambda h: h + (h == 0.0),
    ),
    "infinity that is compared": (
        lambda h: h + as_real(tf.equal(tf.math.log(h), -np.inf)),
        lambda h: h + (h == 0.0),
    ),
    "growth": (
        lambda h: tf.where(h > 0.0, h, tf.exp(40.0 * h) - 1.0),
        lambda h: np.where(h > 0.0, h, np.exp(np.minimum(40.0 * h, 0.0)) - 1.0),
    ),
}  # fmt: skip


def model_of(function):
    """Return a model whose outputs are pre-activations, the function of them, and a layer's."""
    x = L.Input((6,))
    h = L.Dense(5, name="front")(x)
    y = function(h)
    model = train_like(tf_keras.Model(x, [h, y, L.Dense(3)(y)]))
    model.get_layer("front").set_weights([KERNEL, np.zeros(5, np.float32)])
    return model


@pytest.mark.parametrize("name", short(TAKEN, "sinc", "log", "selections of selections"))
def test_what_is_taken_away_computes_in_float_and_files_agree(name, tmp_path):
    function, numpy = TAKEN[name]
    model = model_of(function)
    sim = eq.quantize(model, X, progress=False)
    assert any("NaN" in why for why in sim.record.plan.floats.values())
    read, made, _ = sim.predict(X, verbose=0)
    with np.errstate(invalid="ignore"):
        wanted = numpy(np.float64(read))
    steps = np.abs(made - wanted) / (np.ptp(wanted) / 255.0)
    assert steps.max() < 1.01
    formats = ["tflite", "onnx"]
    report = eq.export(sim, tmp_path, formats, verify=X, progress=False)
    assert {run.verdict for run in report.runs} <= {"same", "kernel", "amplified"}
    assert not report.failed


def test_a_tensor_that_the_model_takes_away_otherwise_is_named_with_the_way_out():
    model = model_of(lambda h: tf.maximum(tf.math.log(tf.nn.relu(h), name="log"), -4.0))
    with pytest.raises(UnsupportedModelError, match="takes that away") as found:
        eq.quantize(model, X, progress=False)
    precision = eval(str(found.value).split("precision=")[1].rstrip("."))
    sim = eq.quantize(model, X, precision=precision, progress=False)
    assert all(np.isfinite(made).all() for made in sim.predict(X, verbose=0))
    assert sim.record.fidelity.outputs[1].sqnr_db > 25.0


def test_data_that_makes_the_outputs_nan_is_still_at_fault():
    model = model_of(tf.math.log)
    with pytest.raises(CalibrationDataError, match="NaN or infinite on the calibration data"):
        eq.quantize(model, X, progress=False)


def test_selections_that_guard_nothing_stay_integers():
    model = model_of(lambda h: tf.where(h > 0.0, h / 2.0, 0.3 * tf.tanh(h)))
    assert not eq.quantize(model, X, progress=False).record.plan.floats


def test_computation_behind_a_guarded_selection_is_in_integers():
    model = model_of(lambda h: tf.where(h > 1.0, 0.0, 0.5 * tf.nn.relu(sinc(h))))
    floats = eq.quantize(model, X, progress=False).record.plan.floats
    assert {name.split("_")[0] for name in floats} <= {
        "tf.where",
        "tf.math.multiply",
        "tf.math.sin",
        "tf.math.truediv",
    }
