"""Functions of single elements: integers in a sim, and in files that the runtimes compute alike."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.ops import op_type
from keras_edgeq.runtime.run_report import AGREEING
from tests.short import short

L = tf_keras.layers
X = np.random.default_rng(0).normal(size=(64, 24)).astype(np.float32)


def positive(x, least=0.5):
    return tf.nn.relu(x) + least


FUNCTIONS = {
    "Elu": tf.nn.elu,
    "ScaledElu": L.ELU(0.3),
    "Selu": L.Activation("selu"),
    "Gelu": L.Activation("gelu"),
    "Gelu_by_tanh": lambda x: tf.nn.gelu(x, approximate=True),
    "Mish": L.Activation("mish"),
    "Softplus": tf.nn.softplus,
    "Softsign": tf.nn.softsign,
    "HardSigmoid": L.Activation("hard_sigmoid"),
    "Exp": L.Activation("exponential"),
    "Expm1": tf.math.expm1,
    "Log": lambda x: tf.math.log(positive(x)),
    "Log1p": lambda x: tf.math.log1p(positive(x)),
    "Sqrt": lambda x: tf.sqrt(positive(x)),
    "Rsqrt": lambda x: tf.math.rsqrt(positive(x)),
    "Reciprocal": lambda x: tf.math.reciprocal(positive(x)),
    "Erf": tf.math.erf,
    "Sin": tf.sin,
    "Cos": tf.cos,
    "Sign": tf.sign,
    "Abs": tf.abs,
    "ThresholdedRelu": L.ThresholdedReLU(0.5),
    "Relu_with_threshold": L.ReLU(threshold=0.5),
    "Leaky_with_cap": L.ReLU(1.0, negative_slope=0.2),
    "Threshold_of_zero": L.ThresholdedReLU(0.0),
    "Div": lambda x: x / positive(x),
}
TARGETS = {
    "litert_int8": "tflite",
    "litert_int16x8": "tflite",
    "onnxruntime_int8": "onnx",
}
WITHOUT_KERNEL = {
    *("ScaledElu", "Selu", "Mish", "Softplus", "Softsign", "Expm1", "Log1p", "Sqrt", "Reciprocal"),
    *("Erf", "Sin", "Cos", "Sign", "ThresholdedRelu", "HardSigmoid", "Div"),
}
# What a target leaves float.
FLOATS = {
    "litert_int8": WITHOUT_KERNEL,
    "litert_int16x8": WITHOUT_KERNEL | {"Elu", "Gelu", "Exp", "Log", "Rsqrt"},
    "onnxruntime_int8": set(),
}


def model_of(functions):
    """Return a model of all functions of one input, an output after each.

    Converters compute once what several functions have in common: an exponential, an absolute.
    """
    x = tf_keras.Input((24,), name="x")
    return tf_keras.Model(
        x, {n: L.Reshape((6, 4), name=f"out_{n}")(f(x)) for n, f in functions.items()}
    )


@pytest.fixture(scope="module", params=short(TARGETS, "litert_int8"))
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
    _, _, report = target
    for run in report.runs:
        assert run.verdict in AGREEING, str(run)
        assert run.identical > 0.99, str(run)


# Pairs that begin alike: 0.5 * x, a sigmoid, relu6(x + 3).
ALIKE = {
    "gelu": [L.Activation("gelu"), lambda x: tf.nn.gelu(x, approximate=True)],
    "swish": [tf.nn.silu, tf.sigmoid, L.Activation("swish")],
    "hard": [lambda x: x * tf.nn.relu6(x + 3.0) / 6.0, L.Activation("hard_sigmoid")],
}


@pytest.mark.parametrize("precision", ["FP32", pytest.param("W8", marks=pytest.mark.slow)])
def test_functions_of_one_tensor_that_begin_alike_are_found(precision, tmp_path):
    x = tf_keras.Input((24,))
    y = L.Dense(8)(x)
    made = [function(y) for pair in ALIKE.values() for function in (*pair, *pair)]
    model = tf_keras.Model(x, L.Dense(3)(L.Concatenate()(made)))
    sim = eq.quantize(model, X, precision=precision, progress=False)
    report = eq.export(sim, tmp_path, ["tflite"], verify=X, progress=False)
    assert all(run.max_abs_difference < 1e-4 for run in report.runs)


def test_two_calls_of_a_layer_on_one_tensor_keep_their_grids(tmp_path):
    x, pool = tf_keras.Input((3, 8)), L.AveragePooling1D(3)
    y = L.Maximum()([L.ReLU()(pool(x)), pool(x)])
    model = tf_keras.Model(x, [y, L.Subtract()([pool(x), x])])
    sim = eq.quantize(model, X.reshape(64, 3, 8), progress=False)
    report = eq.export(sim, tmp_path, ["tflite"], verify=X.reshape(64, 3, 8), progress=False)
    assert all(run.verdict in AGREEING for run in report.runs)
