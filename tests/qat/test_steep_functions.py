"""Training through functions that are infinite or steep at zero, where a small number rounds to."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq

L = tf_keras.layers
X = np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32)
FUNCTIONS = {
    "logarithm": tf.math.log,
    "root": tf.sqrt,
    "inverse root": tf.math.rsqrt,
    "inverse": tf.math.reciprocal,
    "inverse root behind a move": lambda x: tf.math.rsqrt(L.Reshape((2, 4))(x)),
}


@pytest.mark.filterwarnings("ignore:Rounding leaves less")
@pytest.mark.parametrize("target", ["litert_int8", "onnxruntime_int8"])
def test_gradients_stay_finite_where_a_grid_has_zero(target):
    x = tf_keras.Input((6,))
    small = tf.nn.relu(L.Dense(8)(x)) + 1e-4
    made = [L.Flatten()(function(small)) for function in FUNCTIONS.values()]
    model = tf_keras.Model(x, L.Dense(2)(L.Concatenate()(made)))
    sim = eq.quantize(model, X, target, progress=False)
    sim.compile("sgd", "mse")
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(sim(X, training=True) ** 2)
    gradients = tape.gradient(loss, sim.trainable_variables)
    assert np.isfinite(loss)
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)
    assert any(np.any(np.abs(gradient) > 0.0) for gradient in gradients[:1])
    sim.fit(X, np.zeros((32, 2)), epochs=1, verbose=0)
    assert all(np.all(np.isfinite(weight)) for weight in sim.get_weights())
