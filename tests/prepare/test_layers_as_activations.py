"""Activations that are layers or partial functions are split off, whatever holds them."""

import functools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import EdgeqError, UnsupportedModelError
from keras_edgeq.ops import op_type
from keras_edgeq.prepare import prepare
from tests.harness import assert_close, outputs
from tests.models import train_like

L = tf_keras.layers


class Scaled(L.Layer):
    """A layer of the user's, with a weight."""

    def __init__(self, slope=2.0, **kwargs):
        super().__init__(**kwargs)
        self.slope = slope

    def build(self, input_shape):
        self.gain = self.add_weight(name="gain", shape=(input_shape[-1],), initializer="ones")

    def call(self, inputs):
        return tf.nn.relu(inputs) * self.gain * self.slope

    def get_config(self):
        return {**super().get_config(), "slope": self.slope}


def relu(x):
    """Another function than the one of that name that Keras has."""
    return tf.maximum(x, -0.5)


ACTIVATIONS = {
    "LeakyReLU": (lambda: L.LeakyReLU(0.1), "LeakyRelu"),
    "ReLU6": (lambda: L.ReLU(6.0), "Relu6"),
    "PReLU": (L.PReLU, "PRelu"),
    "Softmax": (L.Softmax, "Softmax"),
    "ELU": (L.ELU, "Elu"),
    "ThresholdedReLU": (L.ThresholdedReLU, "ThresholdedRelu"),
    "Activation": (lambda: L.Activation("relu"), "Relu"),
    "own layer": (lambda: Scaled(3.0), "Scaled"),
    "batch norm": (L.BatchNormalization, None),
    "dense": (lambda: L.Dense(4), "Dense"),
    "partial": (lambda: functools.partial(tf.nn.leaky_relu, alpha=0.1), "LeakyRelu"),
    "partial of a Keras function": (
        lambda: functools.partial(tf_keras.activations.relu, max_value=6.0), "Relu6",
    ),
    "own function named relu": (lambda: relu, "own_relu"),
}  # fmt: skip
HOLDERS = {
    "convolution": lambda a: L.Conv2D(4, 3, activation=a),
    "depthwise": lambda a: L.DepthwiseConv2D(3, activation=a),
    "separable": lambda a: L.SeparableConv2D(4, 3, activation=a),
    "activation": L.Activation,
    "nested": lambda a: tf_keras.Sequential([L.Conv2D(4, 3, activation=a), L.Conv2D(4, 1)]),
}


def model_with(holder, size=6):
    x = tf_keras.Input((size, size, 4))
    y = holder(L.Conv2D(4, 3, padding="same")(x))
    return train_like(tf_keras.Model(x, L.Dense(3)(L.Flatten()(y))))


def samples(count=8, size=6):
    return np.random.default_rng(0).normal(size=(count, size, size, 4)).astype(np.float32)


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_layer_as_an_activation_is_split_off(name, holder):
    make, op = ACTIVATIONS[name]
    model = model_with(HOLDERS[holder](make()))
    prepared = prepare(model)
    assert_close(outputs(model, samples()), outputs(prepared, samples()))
    assert op is None or op in {op_type(layer) for layer in prepared.layers}


@pytest.mark.parametrize("name", ["PReLU", "own layer", "partial"])
def test_an_activation_that_several_layers_hold_is_split_off_each(name):
    activation = ACTIVATIONS[name][0]()
    shared = L.Conv2D(4, 3, padding="same", activation=activation)
    model = model_with(lambda x: L.Conv2D(4, 1, activation=activation)(shared(shared(x))))
    assert_close(outputs(model, samples()), outputs(prepare(model), samples()))


WRAPPED = {
    "TimeDistributed": lambda a: L.TimeDistributed(L.Dense(4, activation=a)),
    "SimpleRNN": lambda a: L.SimpleRNN(4, activation=a, return_sequences=True),
    "Bidirectional": lambda a: L.Bidirectional(L.SimpleRNN(4, activation=a, return_sequences=True)),
    "cell": lambda a: L.RNN(L.LSTMCell(4, activation=a), return_sequences=True),
}


@pytest.mark.parametrize("wrapper", WRAPPED)
@pytest.mark.parametrize("name", ["LeakyReLU", "ReLU6", "own function named relu"])
def test_an_activation_inside_of_another_layer_stays_there(name, wrapper):
    x = tf_keras.Input((6, 4))
    y = WRAPPED[wrapper](ACTIVATIONS[name][0]())(x)
    model = train_like(tf_keras.Model(x, L.Dense(3)(L.Flatten()(y))))
    data = np.random.default_rng(0).normal(size=(8, 6, 4)).astype(np.float32)
    assert_close(outputs(model, data), outputs(prepare(model), data))


def test_a_sim_with_a_partial_function_is_saved(tmp_path):
    model = model_with(L.Conv2D(4, 3, activation=ACTIVATIONS["partial"][0](), name="conv"))
    sim = eq.quantize(model, samples(), progress=False)
    assert "conv/leaky_relu" in [layer.name for layer in sim.layers]
    eq.save_sim(sim, tmp_path / "sim.keras")
    np.testing.assert_array_equal(eq.load_sim(tmp_path / "sim.keras")(samples()), sim(samples()))


class Callable:
    def __call__(self, x):
        return tf.nn.relu(x)


REFUSED = {
    "lambda": (lambda x: x * 2.0, "a lambda"),
    "partial of a lambda": (functools.partial(lambda x, by: x * by, by=2.0), "a lambda"),
    "method": (Callable().__call__, "a method object"),
    "object": (Callable(), "a Callable object"),
    "model": (tf_keras.Sequential([L.ReLU()]), "a model"),
}


@pytest.mark.parametrize("holder", ["convolution", "activation", "nested"])
@pytest.mark.parametrize("name", REFUSED)
def test_an_activation_that_cannot_be_copied_is_one_clear_error(name, holder):
    activation, words = REFUSED[name]
    with pytest.raises(UnsupportedModelError, match=f"has {words}.* for its activation"):
        prepare(model_with(HOLDERS[holder](activation)))


def test_a_partial_function_inside_of_another_layer_is_one_clear_error():
    x = tf_keras.Input((6, 4))
    y = L.TimeDistributed(L.Dense(4, activation=ACTIVATIONS["partial"][0](), name="inner"))(x)
    with pytest.raises(EdgeqError, match=r"'inner' \(in 'time_distributed.*a partial function"):
        prepare(tf_keras.Model(x, y))
