"""Constants that differ between places of a sample: positions, class tokens, in integers."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import QuantizationWarning
from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.ops import op_type
from keras_edgeq.prepare import prepare
from tests.short import short

L = tf_keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 6, 8)).astype(np.float32)
PLACES = RNG.normal(size=(6, 8)).astype(np.float32)
GAINS = RNG.uniform(0.5, 2, size=(1, 6, 1)).astype(np.float32)
TOKEN = RNG.normal(size=(1, 1, 8)).astype(np.float32)


def batch(x):
    return tf.shape(x)[0]


# What is written -> how, and the operations that it becomes.
WRITTEN = {
    "x + c": (lambda x: x + PLACES, ["AddConstant"]),
    "c + x": (lambda x: tf.add(tf.constant(PLACES), x), ["AddConstant"]),
    "x - c": (lambda x: x - PLACES[None], ["AddConstant"]),
    "x * c": (lambda x: x * GAINS, ["MulConstant"]),
    "x / c": (lambda x: x / tf.constant(GAINS), ["MulConstant"]),
    "repeated": (lambda x: x + tf.broadcast_to(PLACES, tf.shape(x)), ["AddConstant"]),
    "token by broadcast_to": (
        lambda x: tf.concat([tf.broadcast_to(TOKEN, [batch(x), 1, 8]), x], 1),
        ["Pad", "AddConstant"],
    ),
    "token by tile": (
        lambda x: L.Concatenate(1)([x, tf.tile(tf.constant(TOKEN), [batch(x), 1, 1])]),
        ["Pad", "AddConstant"],
    ),
    "token by repeat": (
        lambda x: tf.concat([tf.repeat(tf.constant(TOKEN), batch(x), 0), x], 1),
        ["Pad", "AddConstant"],
    ),
    "token by zeros": (
        lambda x: tf.concat([tf.zeros_like(x[:, :1]) + TOKEN, x, tf.ones_like(x[:, :2])], 1),
        ["Pad", "AddConstant"],
    ),
}


class Tokens(L.Layer):
    """A class token and positions as layers of transformers have them."""

    def build(self, shape):
        self.token = self.add_weight("token", (1, 1, shape[-1]), initializer="normal")
        self.places = self.add_weight("places", (1, shape[1] + 1, shape[-1]), initializer="normal")

    def call(self, x):
        token = tf.broadcast_to(self.token, [tf.shape(x)[0], 1, x.shape[-1]])
        return tf.concat([token, x], 1) + self.places


def between(function):
    x = L.Input((6, 8))
    return tf_keras.Model(x, L.Dense(3)(function(L.Dense(8, name="front")(x))))


@pytest.mark.parametrize("name", WRITTEN)
def test_a_constant_of_places_becomes_a_layer_that_computes_the_same(name):
    function, ops = WRITTEN[name]
    model = between(function)
    prepared = prepare(model)
    made = [op_type(node.layer) for node in LayerGraph.of(prepared).nodes]
    assert sorted(made) == sorted(["Input", "Dense", *ops, "Dense"])
    np.testing.assert_allclose(prepared(X), model(X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("profile", short(["litert_int8", "litert_int16x8", "litert_w4a8"]))
@pytest.mark.parametrize("name", ["x + c", "x * c", "token by tile"])
def test_files_of_constants_of_places_compute_what_the_sim_does(name, profile, tmp_path):
    model = between(WRITTEN[name][0])
    sim = eq.quantize(model, X, profile, progress=False)
    assert not sim.record.plan.floats
    formats = ["tflite", "encodings", *(["onnx"] if profile == "litert_int8" else [])]
    report = eq.export(sim, tmp_path, formats, verify=X, progress=False)
    assert {run.verdict for run in report.runs} <= {"same", "kernel"}


def test_positions_that_train_are_a_layer_that_trains():
    x = L.Input((6, 8))
    model = tf_keras.Model(x, L.Dense(3)(Tokens(name="tokens")(x)))
    with pytest.warns(QuantizationWarning, match="tokens"):
        sim = eq.quantize(model, X, progress=False)
    assert not sim.record.plan.floats
    wanted, got = model.predict(X, verbose=0), sim.predict(X, verbose=0)
    assert 10 * np.log10((wanted**2).sum() / ((wanted - got) ** 2).sum()) > 33
    places = sim.get_layer("tokens/add").layer.value
    before = places.numpy()
    sim.compile("sgd", "mse")
    sim.fit(X, np.zeros((32, 7, 3)), verbose=0)
    assert not np.array_equal(before, places.numpy())


def test_constants_of_places_keep_8_bits():
    sim = eq.quantize(between(WRITTEN["x + c"][0]), X, "litert_w4a8", progress=False)
    kernels = {kernel.op: kernel.precision for kernel in sim.record.plan.kernels.values()}
    assert kernels["AddConstant"] == "W8A8"
    assert kernels["Dense"] == "W4A8"
