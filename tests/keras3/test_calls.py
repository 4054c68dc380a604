"""Calls whose types, sizes or functions are others in Keras 3 than in TensorFlow."""

import numpy as np
import pytest
import tensorflow as tf

import keras_edgeq as eq
from keras_edgeq.errors import UnsupportedModelError, first_words

keras = pytest.importorskip("keras", minversion="3.0")
K, ops = keras.layers, keras.ops
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Keras 3 with NumPy 2

ACTIVATIONS = {
    "a layer": lambda: K.ReLU(6.0),
    "a layer with a slope": lambda: K.LeakyReLU(negative_slope=0.1),
    "a layer with weights": lambda: K.PReLU(alpha_initializer=keras.initializers.Constant(0.3)),
    "of TensorFlow": lambda: tf.nn.relu,
    "of TensorFlow, by another name": lambda: tf.nn.silu,
    "an operation": lambda: ops.hard_silu,
    "of the user's": lambda: lambda x: ops.tanh(x) * 2.0,
    "of the user's, on TensorFlow": lambda: lambda x: tf.tanh(x) * 2.0,
}


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations_of_any_kind(kind):
    x = keras.Input((6, 3))
    y = K.Conv1D(4, 2, activation=ACTIVATIONS[kind](), name="conv")(x)
    model = keras.Model(x, K.Activation(ACTIVATIONS[kind](), name="alone")(y))
    data = np.random.default_rng(0).normal(size=(4, 6, 3)).astype("float32")
    plain = eq.from_keras3(model)
    np.testing.assert_allclose(plain(data), model(data), atol=1e-6)
    if kind.startswith("a layer"):
        for one, other in zip(eq.to_keras3(plain, model).weights, model.weights, strict=True):
            np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_a_model_that_keras_cannot_copy_is_said():
    x = keras.Input((3,))
    model = keras.Model(x, K.Dense(2, activation=lambda x: ops.tanh(x) * 2.0)(x), name="mine")
    with pytest.raises(UnsupportedModelError, match="Keras cannot copy 'mine'"):
        eq.to_keras3(eq.from_keras3(model), model)


# Of integers (i), bytes (u), truth values (b) and reals (f): Keras 3 goes to reals on its own.
CALLS = {
    "the mean of integers": lambda i, u, b, f: ops.mean(i, axis=1),
    "the mean of truth": lambda i, u, b, f: ops.mean(b, axis=1),
    "the sum of truth": lambda i, u, b, f: ops.sum(b, axis=1),
    "the sum of bytes": lambda i, u, b, f: ops.sum(u, axis=1),
    "the variance of integers": lambda i, u, b, f: ops.var(i, axis=1),
    "integers times a real": lambda i, u, b, f: i * 0.5,
    "integers by integers": lambda i, u, b, f: i / 2,
    "bytes by a number": lambda i, u, b, f: u / 255,
    "bytes around zero": lambda i, u, b, f: u - 128,
    "a root of integers": lambda i, u, b, f: ops.sqrt(i),
    "integers and reals": lambda i, u, b, f: ops.concatenate([i, f], axis=1) + i[:, :1],
    "reals and truth": lambda i, u, b, f: f * b + ops.where(b, f, 0.0),
    "the largest of two kinds": lambda i, u, b, f: ops.maximum(i, 0.5),
    "words by number": lambda i, u, b, f: ops.take(np.ones((10, 3)), i, axis=0),
    "a NumPy number": lambda i, u, b, f: f * np.float64(0.3) + np.ones(6),
    "double and single": lambda i, u, b, f: ops.cast(f, "float64") * f,
    "an index": lambda i, u, b, f: ops.argmax(f, axis=1),
    "an index that keeps its axis": lambda i, u, b, f: ops.argmin(f, axis=-1, keepdims=True),
    "a size": lambda i, u, b, f: f * ops.shape(f)[1],
    "all axes": lambda i, u, b, f: f - ops.mean(f),
    "a quantile": lambda i, u, b, f: ops.quantile(f, 0.3, axis=-1),
    "a square by rotation": lambda i, u, b, f: ops.rot90(f, k=3, axes=(1, 2)),
    "the largest along": lambda i, u, b, f: ops.take_along_axis(f, ops.argsort(f, axis=1), axis=1),
    "a second difference": lambda i, u, b, f: ops.diff(f, n=2, axis=1),
    "a diagonal beside": lambda i, u, b, f: ops.diagonal(f, offset=1, axis1=1, axis2=2),
    "channels first": lambda i, u, b, f: ops.max_pool(f, 2, data_format="channels_first"),
    "shapes in one": lambda i, u, b, f: ops.stack(ops.unstack(f, axis=2), axis=1),
}


@pytest.mark.parametrize("call", CALLS)
def test_types_and_sizes_are_those_of_keras_3(call):
    i, u, b = (keras.Input((4, 6), dtype=kind) for kind in ("int32", "uint8", "bool"))
    f = keras.Input((4, 6))
    made = CALLS[call](i, u, b, f)
    result = eq.from_keras3(keras.Model([i, u, b, f], [made, f + 0.0]))  # which compares both
    found = result.outputs[0]
    assert tuple(found.shape) == tuple(made.shape)
    assert found.dtype.name in (made.dtype, made.dtype.replace("float64", "float32"))


def test_masks_go_as_far_as_in_keras_3():
    x = keras.Input((6, 4))
    masked = K.Multiply()([K.Masking()(x), x])
    inner = keras.Model(x, masked, name="inner")
    y = keras.Input((6, 4))
    straight = K.LSTM(3, name="straight")(K.GaussianNoise(0.1)(K.Masking()(y)))
    lost = K.LSTM(3, name="lost")(K.GaussianNoise(0.1)(inner(inner(y))))
    model = keras.Model(y, [straight, lost])
    data = np.random.default_rng(0).normal(size=(4, 6, 4)).astype("float32")
    data[1:, 4:] = 0.0
    for one, other in zip(eq.from_keras3(model)(data), model(data, training=False), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_number_per_sample_is_added_to_each_sample():
    x, y = keras.Input((4,), name="x"), keras.Input((1,), name="y")
    result = eq.from_keras3(keras.Model([x, y], [ops.add(x, y), K.Add()([x, y])]))
    given = [np.arange(16.0).reshape(4, 4), 100.0 * np.arange(4.0).reshape(4, 1)]
    for made in result([part.astype("float32") for part in given]):
        np.testing.assert_allclose(made, given[0] + given[1])


def test_what_keras_itself_cannot_compute_is_said():
    x = keras.Input((4, 6))
    model = keras.Model(x, ops.reshape(x, (ops.shape(x)[0], 24)))
    with pytest.raises(UnsupportedModelError, match="Keras itself cannot compute 'reshape"):
        eq.from_keras3(model)


def test_numbers_and_other_floats_in_a_model_stay_float():
    x = keras.Input((4, 6))
    y = K.Dense(3, name="dense")(x)
    scale = ops.cast(ops.shape(y)[1], "float32") * 2.0
    double = ops.cast(ops.cast(y, "float64") * 2.0, "float32")
    model = keras.Model(x, [y * scale, double, ops.mean(y) * 3.0 + y])
    data = np.random.default_rng(0).normal(size=(16, 4, 6)).astype("float32")
    sim = eq.quantize(model, data, progress=False)
    fidelity = sim.record.fidelity
    assert fidelity is not None
    assert min(one.sqnr_db for one in fidelity.outputs) > 30.0
    assert {"computes in float64"} <= set(sim.record.plan.floats.values())


def test_a_tensor_of_unknown_size_has_one_range_for_all():
    x = keras.Input((4, 3))
    y = K.Dense(3, activation="relu6")(K.UpSampling1D(2)(K.BatchNormalization()(x)))
    flat = ops.ravel(K.Dense(2, activation="gelu", use_bias=False)(y))
    model = keras.Model(x, [flat, K.Dense(2)(ops.reshape(flat, (-1, 16)))])
    data = np.random.default_rng(0).normal(size=(16, 4, 3)).astype("float32")
    sim = eq.quantize(model, data, progress=False)
    assert [tuple(part.shape) for part in sim(data)] == [(16 * 8 * 2,), (16, 2)]


def test_errors_of_others_are_one_plain_line():
    assert first_words(ValueError("\x1b[1mone\x1b[0m\n  two")) == "one two"
    assert first_words(KeyError()) == "KeyError"
