"""Pads of very low numbers in front of max pools: the same maxima, on a grid of its own size."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.prepare import prepare
from keras_edgeq.prepare.low_pads import with_low_pads_reflected
from keras_edgeq.runtime.run_report import AGREEING
from tests.short import short

L = tf_keras.layers
X = np.random.default_rng(0).normal(size=(16, 7, 6, 4)).astype(np.float32) - 1.0
ONE = [[0, 0], [1, 1], [1, 1], [0, 0]]
LOW = float(np.finfo(np.float32).min)


def pooled(paddings=ONE, value=-np.inf, pool=None):
    pool = pool or L.MaxPooling2D(3, 2)
    return lambda x: pool(tf.pad(x, paddings, constant_values=value))


SAME = {
    "infinite": pooled(),
    "least float": pooled(value=LOW),
    "a billion": pooled(value=-1e9),
    "at the ends only": pooled([[0, 0], [0, 1], [0, 1], [0, 0]], pool=L.MaxPooling2D(2, 2)),
    "one side": pooled([[0, 0], [2, 1], [0, 0], [0, 0]], pool=L.MaxPooling2D((5, 1), 1)),
    "function": pooled(pool=lambda x: tf.nn.max_pool2d(x, 3, 2, "VALID")),
    "function, whole window": pooled(
        pool=lambda x: tf.nn.max_pool(x, [1, 3, 3, 1], [1, 1, 1, 1], "VALID")
    ),
    "by keywords": lambda x: L.MaxPooling2D(3)(
        tf.pad(tensor=x, paddings=tf.constant(ONE), mode="CONSTANT", constant_values=-np.inf)
    ),
    "numbers of the pool": lambda x: tf.nn.max_pool2d(x, 3, 2, ONE),
    "read twice": lambda x: _twice(tf.pad(x, ONE, constant_values=-np.inf)),
}
OTHERS = {
    "window within the pad": pooled([[0, 0], [2, 2], [0, 0], [0, 0]], LOW, L.MaxPooling2D(3, 1)),
    "no pool": lambda x: tf.pad(x, ONE, constant_values=-1e9),
    "average": pooled(value=-1e9, pool=L.AveragePooling2D(3)),
    "also read elsewhere": lambda x: _also_read(tf.pad(x, ONE, constant_values=-1e9)),
    "not low": pooled(value=-3.0),
    "pool that pads": pooled(value=-1e9, pool=L.MaxPooling2D(3, padding="same")),
    "along channels": pooled([[0, 0], [1, 1], [1, 1], [1, 1]], LOW),
}


def _twice(x):
    return L.MaxPooling2D(3, 1)(x) + L.MaxPooling2D(3, 1, name="other")(x)


def _also_read(x):
    return L.MaxPooling2D(3, 1, padding="same")(x) + x


def model_of(function):
    x = tf_keras.Input((7, 6, 4))
    return tf_keras.Model(x, function(x))


@pytest.mark.parametrize("name", SAME)
def test_the_maxima_are_the_same_and_no_low_number_is_left(name):
    model = model_of(SAME[name])
    made = prepare(model)
    np.testing.assert_array_equal(made.predict(X, verbose=0), model.predict(X, verbose=0))
    inner = tf_keras.Model(made.inputs, [layer.output for layer in made.layers[1:]])
    assert min(np.min(value) for value in tf.nest.flatten(inner(X))) >= X.min()


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_pool_alone_keeps_its_numbers(name):
    model = model_of(OTHERS[name])
    assert with_low_pads_reflected(model) is model


@pytest.mark.parametrize(
    "target", short(["litert_int8", "litert_int16x8", "onnxruntime_int8"], "litert_int8")
)
def test_copies_at_the_edges_are_moves_of_every_target(target, tmp_path):
    x = tf_keras.Input((7, 6, 4), name="x")
    y = L.Conv2D(4, 1)(x)
    reflected = L.Conv2D(2, 3)(tf.pad(y, ONE, mode="REFLECT"))
    symmetric = L.Conv2D(2, 3)(tf.pad(y, ONE, mode="SYMMETRIC"))
    model = tf_keras.Model(x, [reflected, symmetric, pooled()(y), tf.nn.max_pool(y, 3, 2, ONE)])
    sim = eq.quantize(model, X, target, progress=False)
    assert sim.record.plan.floats == {}
    kind = "onnx" if target == "onnxruntime_int8" else "tflite"
    report = eq.export(sim, tmp_path, [kind], verify=X, progress=False)
    assert all(run.verdict in AGREEING for run in report.runs), str(report)
