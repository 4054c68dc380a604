"""Activations that quantizers took over are layers again in the float model of a sim."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq

L = tf_keras.layers
X = np.random.default_rng(0).normal(size=(16, 7, 7, 2)).astype(np.float32)
FUSED = {
    "relu": (L.ReLU, lambda x: np.maximum(x, 0.0)),
    "relu6": (lambda: L.ReLU(6.0), lambda x: np.clip(x, 0.0, 6.0)),
    "a cap": (lambda: L.ReLU(0.5), lambda x: np.clip(x, 0.0, 0.5)),
    "a clip": (lambda: lambda x: tf.clip_by_value(x, -0.5, 0.25), lambda x: np.clip(x, -0.5, 0.25)),
}


def check(model, names):
    sim = eq.quantize(model, X, progress=False)
    plain = eq.strip(sim)
    assert [layer.name.rpartition("/")[2] for layer in plain.layers[1:]] == names
    np.testing.assert_allclose(plain(X), model(X), atol=1e-5)
    return sim


@pytest.mark.parametrize("name", FUSED)
def test_a_fused_activation_keeps_its_bounds(name):
    make, numpy = FUSED[name]
    x = L.Input((7, 7, 2))
    y = L.Conv2D(4, 3, name="conv")(x)
    z = make()(y)
    model = tf_keras.Model(x, L.Conv2D(2, 1, name="head")(z))
    act = model.layers[2].name
    plain = eq.strip(check(model, ["conv", act, "head"]))
    conv, got = tf_keras.Model(plain.input, [plain.get_layer(n).output for n in ("conv", act)])(X)
    np.testing.assert_allclose(got, numpy(np.asarray(conv)), atol=1e-6)


@pytest.mark.parametrize("cap", [6.0, 0.5])
def test_an_activation_that_is_fused_in_one_call_and_not_in_others_stays_one_layer(cap, tmp_path):
    x, relu = L.Input((7, 7, 2)), L.ReLU(cap, name="relu")
    y = relu(relu(relu(L.Multiply(name="square")([x, x]))))
    model = tf_keras.Model(x, L.BatchNormalization(center=False, scale=False, name="norm")(y))
    sim = check(model, ["square", "relu", "norm"])
    report = eq.export(sim, tmp_path, ["tflite", "onnx"], verify=X, progress=False)
    assert {run.verdict for run in report.runs} <= {"same", "kernel"}


def test_an_activation_of_a_model_that_is_called_twice_is_one_layer():
    x, inside = L.Input((7, 7, 2)), L.Input((7, 7, 2))
    y = tf.clip_by_value(L.Conv2D(2, 3, padding="same")(inside), -0.5, 0.25)
    inner = tf_keras.Model(inside, y, name="inner")
    plain = eq.strip(eq.quantize(tf_keras.Model(x, inner(inner(x))), X, progress=False))
    np.testing.assert_allclose(plain(X), inner(inner(X)), atol=1e-5)
