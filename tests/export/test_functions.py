"""Functions of single elements: integers in a sim, and in files that the runtimes compute alike."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.ops import op_type
from keras_edgeq.runtime.run_report import AGREEING

L = tf_keras.layers
X = np.random.default_rng(0).normal(size=(64, 24)).astype(np.float32)


def positive(x, least=0.5):
    return tf.nn.relu(x) + least


FUNCTIONS = {
    "Rsqrt": lambda x: tf.math.rsqrt(positive(x)),
}
TARGETS = {
    "litert_int8": "tflite",
    "litert_int16x8": "tflite",
    "onnxruntime_int8": "onnx",
}
# What a target leaves float.
FLOATS = {
    "litert_int8": set(),
    "litert_int16x8": {"Rsqrt"},
    "onnxruntime_int8": set(),
}
# A step where a rounding goes the other way; LiteRT's int16 functions interpolate.
MOST_STEPS = {"litert_int8": 1, "litert_int16x8": 4, "onnxruntime_int8": 1}


def model_of(functions):
    """Return a model of all functions of one input; an output is named after each."""
    x = tf_keras.Input((24,), name="x")
    return tf_keras.Model(
        x, {n: L.Reshape((6, 4), name=f"out_{n}")(f(x)) for n, f in functions.items()}
    )


@pytest.fixture(scope="module", params=TARGETS)
def target(request, tmp_path_factory):
    """Return a target, a sim of all functions on it, and the report of its file."""
    tf_keras.utils.set_random_seed(0)
    sim = eq.quantize(model_of(FUNCTIONS), X, request.param, progress=False)
    folder = tmp_path_factory.mktemp(request.param)
    report = eq.export(sim, folder, [TARGETS[request.param]], verify=X, progress=False)
    return request.param, sim, report


def test_what_a_target_computes_is_in_integers(target):
    name, sim, _ = target
    floats = {op_type(sim.get_layer(layer)) for layer in sim.record.plan.floats}
    assert floats == FLOATS[name]


def test_a_runtime_makes_the_integers_of_the_sim(target):
    name, _, report = target
    assert all(run.verdict in AGREEING for run in report.runs), str(report)
    assert report.runs[0].max_steps <= MOST_STEPS[name], str(report)
