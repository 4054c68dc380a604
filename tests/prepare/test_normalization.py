"""Normalization: what is written by hand becomes a layer, and layers operations where asked."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from keras_edgeq.ops import op_type
from keras_edgeq.prepare import prepare
from keras_edgeq.profiles import load_profile
from keras_edgeq.sim.resolve import resolve
from tests.harness import assert_close, outputs, saved_and_loaded, snapshot
from tests.models import train_like
from tests.short import short

L = tf_keras.layers
Input = tf_keras.Input
IMAGE, TOKENS, ROW = (4, 3, 6), (5, 6), (6,)
GAMMA = np.linspace(0.5, 2.0, 6, dtype=np.float32)
LITERT, WIDE = load_profile("litert_int8"), {"*": "w8a8_norm16"}
FLOATS = {"Inverse", "InverseRoot"}


def mean(x, axis=-1):
    return tf.reduce_mean(x, axis, keepdims=True)


def batch_normalization(x, offset=None, scale=None):
    average, variance = tf.nn.moments(x, [-1], keepdims=True)
    return tf.nn.batch_normalization(x, average, variance, offset, scale, 1e-3)


def by_moments(x):
    average, variance = tf.nn.moments(x, [1, 2], keepdims=True)
    return (x - average) * tf.math.rsqrt(variance + 1e-6)


# How it is written -> the layer that it becomes, and whether a gain or an offset is left.
RMS, LAYER = "RmsNormalization", "LayerNormalization"
WRITTEN = {
    "rsqrt": (lambda x: x * tf.math.rsqrt(mean(x * x) + 1e-5), RMS, False),
    "rsqrt first": (lambda x: tf.math.rsqrt(1e-5 + mean(tf.square(x))) * x, RMS, False),
    "gain": (lambda x: x * tf.math.rsqrt(mean(x * x) + 1e-5) * GAMMA, RMS, True),
    "gain of the root": (lambda x: x * (tf.math.rsqrt(mean(x * x) + 1e-5) * GAMMA), RMS, True),
    "over sqrt": (lambda x: x / tf.sqrt(mean(x**2) + 1e-5), RMS, False),
    "inverse of sqrt": (lambda x: x * (1.0 / tf.sqrt(mean(x**2) + 1e-5)), RMS, False),
    "reciprocal": (lambda x: x * tf.math.reciprocal(tf.sqrt(mean(x * x) + 1e-5)), RMS, False),
    "power": (lambda x: x * (mean(x * x) + 1e-5) ** -0.5, RMS, False),
    "root by power": (lambda x: x / (mean(x * x) + 1e-5) ** 0.5, RMS, False),
    "layers": (lambda x: L.Multiply()([x, tf.math.rsqrt(mean(x * x) + 0.1)]), RMS, False),
    "several axes": (lambda x: x / tf.sqrt(mean(x * x, [1, -1]) + 1e-5), RMS, False),
    "sum": (lambda x: x / tf.sqrt(tf.reduce_sum(x * x, -1, True) + 1e-5), RMS, True),
    "sum over number": (
        lambda x: x / tf.sqrt(tf.reduce_sum(x * x, -1, True) / 6.0 + 1e-5), RMS, False,
    ),
    "norm": (lambda x: x / tf.norm(x, axis=-1, keepdims=True), RMS, True),
    "l2_normalize": (lambda x: tf.nn.l2_normalize(x, -1), RMS, True),
    "l2_normalize, least": (lambda x: tf.math.l2_normalize(x, [1, 2], epsilon=0.5), RMS, True),
    "bounded": (
        lambda x: x * tf.math.rsqrt(tf.maximum(tf.reduce_sum(x * x, -1, True), 1e-12)), RMS, True,
    ),
    "moments": (by_moments, LAYER, False),
    "batch_normalization": (batch_normalization, LAYER, False),
    "batch_normalization, scale": (lambda x: batch_normalization(x, None, GAMMA), LAYER, True),
    "batch_normalization, offset": (lambda x: batch_normalization(x, GAMMA), LAYER, True),
    "batch_normalization, both": (lambda x: batch_normalization(x, -GAMMA, GAMMA), LAYER, True),
    "variance": (
        lambda x: (x - mean(x)) / tf.sqrt(tf.math.reduce_variance(x, -1, True) + 1e-5) * GAMMA,
        LAYER, True,
    ),
    "deviation": (
        lambda x: (x - mean(x)) / tf.math.reduce_std(x, -1, keepdims=True), LAYER, False,
    ),
    "squared difference": (
        lambda x: (x - mean(x)) * tf.math.rsqrt(mean(tf.math.squared_difference(x, mean(x))) + 0.1),
        LAYER, False,
    ),
}  # fmt: skip
KEPT = (
    *("gain of the root", "over sqrt", "norm", "l2_normalize", "moments", "deviation"),
    "batch_normalization, both",
)
# What is much like one and is none.
OTHERS = {
    "root of a deviation": lambda x: (x - mean(x)) * tf.math.rsqrt(tf.math.reduce_std(x, -1, True)),
    "root of a norm": lambda x: x * tf.math.rsqrt(tf.norm(x, axis=-1, keepdims=True) + 0.1),
    "deviation and epsilon": lambda x: (x - mean(x)) / (tf.math.reduce_std(x, -1, True) + 0.1),
    "over the variance": lambda x: x / (mean(x * x) + 0.1),
    "root over x": lambda x: tf.sqrt(mean(x * x) + 0.1) / (x * x + 1.0),
    "another tensor": lambda x: tf.abs(x) * tf.math.rsqrt(mean(x * x) + 0.1),
    "product of two": lambda x: x * tf.math.rsqrt(mean(x * tf.sigmoid(x)) + 2.0),
    "not centered alike": lambda x: x / tf.sqrt(tf.math.reduce_variance(x, -1, True) + 0.1),
    "means of two axes": lambda x: (x - mean(x, 1)) / tf.sqrt(mean((x - mean(x)) ** 2) + 0.1),
    "another norm": lambda x: x / tf.norm(x, ord=1, axis=-1, keepdims=True),
    "bounded above": lambda x: x * tf.math.rsqrt(tf.clip_by_value(mean(x * x), 0.1, 0.5)),
    "subtracted": lambda x: x * tf.math.rsqrt(mean(x * x) + 9.0 - 8.5),
    "samples": lambda x: x * tf.math.rsqrt(tf.reduce_mean(x * x, 0, keepdims=True) + 0.1),
}
LAYERS = {
    "last axis": (L.LayerNormalization(), TOKENS),
    "of a row": (L.LayerNormalization(epsilon=1e-6), ROW),
    "first axis": (L.LayerNormalization(axis=1, scale=False), TOKENS),
    "all axes": (L.LayerNormalization(axis=[1, 2, 3], center=False), IMAGE),
    "axes apart": (L.LayerNormalization(axis=[1, 3]), IMAGE),
    "neither gamma nor beta": (L.LayerNormalization(center=False, scale=False), IMAGE),
    "groups": (L.GroupNormalization(2), IMAGE),
    "one group": (L.GroupNormalization(1, scale=False), TOKENS),
    "groups of another axis": (L.GroupNormalization(2, axis=1), IMAGE),
    "plain groups": (L.GroupNormalization(-1, center=False, scale=False), TOKENS),
    "unit": (L.UnitNormalization(), TOKENS),
    "unit over axes": (L.UnitNormalization(axis=[1, 2]), TOKENS),
}


def model_of(function, shape):
    x = Input(shape)
    y = function(L.Dense(shape[-1], name="front")(x))
    return train_like(tf_keras.Model(x, L.Dense(3, name="back")(y)))


def samples(model, zeros=1):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, *(n or 5 for n in model.input_shape[1:])))
    x *= 10.0 ** np.arange(-3, 3).reshape(-1, *[1] * (x.ndim - 1))
    x[:zeros] = 0.0
    return np.float32(x)


def written(model):
    return [op_type(layer) for layer in model.layers if op_type(layer) not in ("Input", "Dense")]


@pytest.mark.parametrize("name", short(WRITTEN, *KEPT))
def test_what_is_written_by_hand_becomes_a_layer(name):
    function, kind, has_gain = WRITTEN[name]
    model = model_of(function, IMAGE if "axes" in name or name == "moments" else TOKENS)
    data, before = samples(model, zeros=0), snapshot(model)
    made = prepare(model)
    assert_close(outputs(model, data), outputs(made, data))
    assert written(made).count(kind) == 1
    assert set(written(made)) - {kind, "Reshape"} <= (
        {"DepthwiseConv2D", "Mul"} if has_gain else set()
    )
    assert_close(outputs(made, data), outputs(saved_and_loaded(made), data))
    assert len({layer.name for layer in made.layers}) == len(made.layers)
    np.testing.assert_equal(before[0], snapshot(model)[0])


@pytest.mark.parametrize("name", short(OTHERS, *list(OTHERS)[:5]))
def test_what_is_like_one_is_not_taken_for_it(name):
    model = model_of(OTHERS[name], TOKENS)
    data = np.abs(samples(model, zeros=0)) + 0.1
    made = prepare(model, LITERT, WIDE)
    assert not {RMS, LAYER, *FLOATS} & set(written(made))
    assert_close(outputs(model, data), outputs(made, data))


def test_what_drops_values_while_a_model_trains_is_not_passed_over():
    def dropped(x):
        y = L.Dropout(0.5)(x)
        return x * tf.math.rsqrt(mean(y * y) + 0.1)

    assert RMS not in written(prepare(model_of(dropped, TOKENS)))


@pytest.mark.parametrize(
    "name", short(LAYERS, "last axis", "axes apart", "groups of another axis", "unit")
)
def test_a_layer_is_written_out_where_its_inside_has_16_bits(name):
    layer, shape = LAYERS[name]
    model = model_of(layer, shape)
    data = samples(model)
    assert type(layer).__name__ in written(prepare(model, LITERT))
    made = prepare(model, LITERT, WIDE)
    assert_close(outputs(model, data), outputs(made, data))
    assert {op for op in written(made) if not LITERT.computes(op)} == FLOATS
    assert all(part.name.split("/")[0] == layer.name for part in made.layers[2:-1])
    assert made.layers[-2].name.removesuffix("/out").split("/")[0] == layer.name
    assert_close(outputs(made, data), outputs(saved_and_loaded(made), data))
    assert written(prepare(made, LITERT, WIDE)) == written(made)


@pytest.mark.parametrize("epsilon", [1e-12, 1e-6, 1e-3, 1.0])
def test_small_and_large_vectors_keep_their_epsilon(epsilon):
    model = model_of(L.LayerNormalization(epsilon=epsilon), ROW)
    data = samples(model)
    assert_close(outputs(model, data), outputs(prepare(model, LITERT, WIDE), data))


ASKED = {
    "own precision": (LITERT, {}, False),
    "8 bits": (LITERT, {"*": "W8A8"}, False),
    "its name": (LITERT, {"norm": "W8A16"}, True),
    "another's name": (LITERT, {"front": "W8A16"}, False),
    "all but it": (LITERT, {"*": "W8A16", "norm": "FP32"}, False),
    "wide": (load_profile("litert_int16x8"), {}, True),
    "an operation of the target's": (load_profile("qnn_w8a16"), {}, False),
    "of the runtime's": (load_profile("onnxruntime_int8"), WIDE, False),
}


@pytest.mark.parametrize("name", ASKED)
def test_the_precision_decides_what_is_written_out(name):
    profile, asked, is_out = ASKED[name]
    model = model_of(L.LayerNormalization(name="norm"), TOKENS)
    found = written(prepare(model, profile, asked))
    assert ("InverseRoot" in found, LAYER in found) == (is_out, not is_out)


@pytest.mark.parametrize(("layer", "shape", "is_out"), [
    (L.GroupNormalization(2), (None, None, 4), False),
    (L.LayerNormalization(axis=[1, -1]), (3, None, 4), False),
    (L.LayerNormalization(), (None, None, 4), True),
    (L.LayerNormalization(), (None, 4), True),
    (L.LayerNormalization(scale=False, center=False), (None, None, None, 4), True),
    (L.UnitNormalization(), (None, 4), True),
    (L.UnitNormalization(axis=1), (None, 4), False),
])  # fmt: skip
def test_sizes_that_are_not_needed_may_be_unknown(layer, shape, is_out):
    x = Input(shape)
    model = tf_keras.Model(x, layer(x))
    made = prepare(model, LITERT, WIDE)
    assert ("InverseRoot" in written(made)) == is_out
    data = samples(model)
    assert_close(outputs(model, data), outputs(made, data))
    reason = resolve(prepare(model), LITERT, {"*": "FP32"}).floats[layer.name]
    assert ("w8a8_norm16" in reason) == is_out


def test_calls_of_one_layer_share_its_gain():
    a, b = Input(TOKENS), Input(TOKENS)
    norm = L.LayerNormalization(name="norm")
    model = train_like(tf_keras.Model([a, b], L.Dense(2)(norm(norm(a)) - norm(b))))
    made = prepare(model, LITERT, WIDE)
    data = [np.random.default_rng(n).normal(size=(4, *TOKENS)).astype("float32") for n in (0, 1)]
    assert written(made).count("DepthwiseConv2D") == 1
    assert written(made).count("InverseRoot") == 3
    assert len({layer.name for layer in made.layers}) == len(made.layers)
    assert_close(outputs(model, data), outputs(saved_and_loaded(made), data))
