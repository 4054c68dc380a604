"""Slices with an ellipsis are written out, because Keras cannot save one."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.prepare import prepare
from tests.harness import assert_close, outputs, saved_and_loaded
from tests.models import train_like

L = tf_keras.layers

SLICES = {
    "[..., :3]": lambda x: x[..., :3],
    "[..., newaxis]": lambda x: x[..., tf.newaxis],
    "[..., 1]": lambda x: x[..., 1],
    "[...]": lambda x: x[...],
    "[..., ::-1]": lambda x: x[..., ::-1],
    "[:, ..., 1:3]": lambda x: x[:, ..., 1:3],
    "[:, newaxis, ..., 1:]": lambda x: x[:, tf.newaxis, ..., 1:],
    "[:, 1, ..., newaxis]": lambda x: x[:, 1, ..., tf.newaxis],
    "[..., 1:, newaxis, :2]": lambda x: x[..., 1:, tf.newaxis, :2],
    "[:, ::-1]": lambda x: x[:, ::-1],
    "[:, newaxis]": lambda x: x[:, tf.newaxis],
    "tensors": lambda x: x[:, tf.constant(1) : tf.shape(x)[1] - 1, ...],
    "twice": lambda x: x[..., 1:][..., :2],
}


def sliced(name):
    x = tf_keras.Input((6, 6, 4))
    y = SLICES[name](L.Conv2D(4, 3, padding="same")(x))
    return train_like(tf_keras.Model(x, y if name == "tensors" else L.Dense(3)(L.Flatten()(y))))


def samples(count=8):
    return np.random.default_rng(0).normal(size=(count, 6, 6, 4)).astype(np.float32)


@pytest.mark.parametrize("name", SLICES)
def test_a_prepared_model_with_slices_saves(name):
    model = sliced(name)
    prepared = prepare(model)
    assert_close(outputs(model, samples()), outputs(prepared, samples()))
    assert_close(outputs(prepared, samples()), outputs(saved_and_loaded(prepared), samples()))


@pytest.mark.parametrize("name", ["[..., :3]", "[..., newaxis]"])
def test_a_sim_with_an_ellipsis_saves_and_strips(name, tmp_path):
    sim = eq.quantize(sliced(name), samples(), progress=False)
    eq.save_sim(sim, tmp_path / "sim.keras")
    np.testing.assert_array_equal(eq.load_sim(tmp_path / "sim.keras")(samples()), sim(samples()))
    saved_and_loaded(eq.strip(sim))


def test_an_ellipsis_on_an_input_and_in_a_nested_model_is_written_out():
    x = tf_keras.Input((6, 6, 4))
    inner = tf_keras.Model(x, L.ReLU()(x[..., 1:]))
    y = tf_keras.Input((6, 6, 5))
    model = train_like(tf_keras.Model(y, L.Conv2D(2, 3)(inner(y[..., :4]))))
    data = np.random.default_rng(0).normal(size=(8, 6, 6, 5)).astype(np.float32)
    prepared = prepare(model)
    assert_close(outputs(model, data), outputs(saved_and_loaded(prepared), data))
