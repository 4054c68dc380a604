"""Functions that only move what they read are on its grid, in files too."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from tests.models import train_like

L = tf_keras.layers
MOVES = {
    "stop_gradient": tf.stop_gradient,
    "tile": lambda x: tf.tile(x, [1, 2, 1, 3]),
    "a computed shape": lambda x: tf.reshape(x, tf.stack([tf.shape(x)[0], 8, 2, 4])),
    "gather of one": lambda x: tf.expand_dims(tf.gather(x, 1, axis=2), 2),
}


@pytest.mark.parametrize("name", MOVES)
def test_what_only_moves_is_in_integers(name, tmp_path):
    x = tf_keras.Input((6, 6, 3))
    y = MOVES[name](L.Conv2D(4, 3, activation="relu", name="conv")(x))
    model = train_like(tf_keras.Model(x, L.Dense(3)(L.Flatten()(L.Conv2D(5, (2, 1))(y)))))
    data = np.random.default_rng(0).normal(size=(64, 6, 6, 3)).astype(np.float32)
    sim = eq.quantize(model, data, progress=False)
    assert not sim.record.plan.floats
    report = eq.export(sim, tmp_path, ["tflite", "onnx"], verify=data, progress=False)
    assert {run.verdict for run in report.runs} <= {"same", "kernel"}
    assert min(run.identical for run in report.runs if run.runtime != "LiteRT builtin") > 0.999
