"""Inputs that once gave a sim of wrong numbers, each with the right value, kind by kind."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import QuantizationWarning, UnsupportedModelError
from keras_edgeq.numerics.metrics import sqnr_db
from tests.models import train_like
from tests.short import short

L, Input, Model = tf_keras.layers, tf_keras.Input, tf_keras.Model
SAMPLES = 64


def normal(model, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(SAMPLES, *s.shape[1:])).astype(np.float32) for s in model.inputs]


def sim_of(model, data=None, profile="litert_int8", train=True, **options):
    """Return a model's sim, and the least signal-to-noise ratio among its outputs."""
    model = train_like(model) if train else model
    data = normal(model) if data is None else data
    sim = eq.quantize(model, data, profile, progress=False, **options)
    pairs = zip(
        tf.nest.flatten(model(data if len(data) > 1 else data[0])),
        tf.nest.flatten(sim(data if len(data) > 1 else data[0])),
        strict=True,
    )
    return sim, min(sqnr_db(a, b) for a, b in pairs)


def between_dense(function):
    x = Input((6,))
    return Model(x, L.Dense(4)(function(L.Dense(8)(x))))


ONE_OPERAND = {
    "max(x, 0)": lambda x: tf.maximum(x, 0.0),
    "max(0, x)": lambda x: tf.maximum(0.0, x),
    "max(x, y=0.5)": lambda x: tf.maximum(x, y=0.5),
    "min(x=x, y=1)": lambda x: tf.minimum(x=x, y=1.0),
    "max per channel": lambda x: tf.maximum(x, np.linspace(-1.0, 1.0, 8, dtype=np.float32)),
    "clip": lambda x: tf.clip_by_value(x, -0.5, 0.5),
    "add(x=0.5, y=x)": lambda x: tf.add(x=0.5, y=x),
    "1.5 - x": lambda x: tf.subtract(1.5, x),
    "x * y=0.5": lambda x: tf.multiply(x, y=0.5),
    "x / 3": lambda x: tf.divide(x, 3.0),
}


@pytest.mark.parametrize("name", ONE_OPERAND)
def test_constants_are_read_in_real_units_however_they_are_given(name):
    assert sim_of(between_dense(ONE_OPERAND[name]))[1] > 30.0


TWO_OPERANDS = {
    "min(a, b)": tf.minimum,
    "max(x=a, y=b)": lambda a, b: tf.maximum(x=a, y=b),
    "add(a, y=b)": lambda a, b: tf.add(a, y=b),
    "concat(values=)": lambda a, b: tf.concat(values=[a, b], axis=-1),
    "stack": lambda a, b: tf.stack([a, b], axis=1),
}


@pytest.mark.parametrize("name", TWO_OPERANDS)
def test_two_tensors_are_read_in_one_unit_however_they_are_given(name):
    x = Input((6, 6, 2))
    joined = TWO_OPERANDS[name](L.Conv2D(4, 3)(x), L.Conv2D(4, 3)(x))
    assert sim_of(Model(x, L.Dense(3)(L.Flatten()(joined))))[1] > 30.0


PADS = {
    "reflect": {"mode": "REFLECT"},
    "symmetric": {"mode": "SYMMETRIC"},
    "zeros": {},
    "ones": {"constant_values": 1.0},
}


@pytest.mark.parametrize("positional", [False, True])
@pytest.mark.parametrize("name", PADS)
def test_paddings_that_are_not_zero_read_real_numbers(name, positional):
    x = Input((6, 6, 2))
    options = PADS[name]
    args = [options["mode"]] if positional and "mode" in options else []
    options = {k: v for k, v in options.items() if k != "mode"} if args else options
    y = tf.pad(L.Conv2D(4, 3)(x), [[0, 0], [1, 1], [1, 1], [0, 0]], *args, **options)
    assert sim_of(Model(x, L.Conv2D(3, 3)(y)))[1] > 30.0


@pytest.mark.parametrize("profile", ["litert_int8", "litert_int16x8", "onnxruntime_int8"])
def test_a_bias_over_tiny_weights_fits_whatever_its_width(profile):
    x = Input((8,))
    model = train_like(Model(x, L.Dense(4)(L.Dense(8, activation="relu", name="first")(x))))
    kernel, bias = model.get_layer("first").get_weights()
    kernel[:, 0] *= 1e-6
    bias[0] = 3.0
    model.get_layer("first").set_weights([kernel, bias])
    sim, db = sim_of(model, profile=profile, train=False)
    assert db > (45.0 if profile == "litert_int16x8" else 30.0)
    assert sim.record.floored == {"first": 1}


def embedded(to_ids, dtype="float32", width=10):
    ids = Input((width,), dtype=dtype)
    return Model(ids, L.Dense(4)(L.Flatten()(L.Embedding(178, 16)(to_ids(ids)))))


IDS = {
    "as they are": (lambda i: i, "float32"),
    "int32": (lambda i: i, "int32"),
    "reshaped": (lambda i: L.Reshape((5, 2))(i), "float32"),
    "joined": (lambda i: L.Concatenate()([i, i]), "float32"),
    "sliced": (lambda i: i[:, 2:7], "float32"),
    "cast": (lambda i: tf.cast(i, tf.float32), "int32"),
    "cast back": (lambda i: tf.cast(i, tf.int32), "float32"),
    "shifted": (lambda i: tf.maximum(i - 1.0, 0.0), "float32"),
}


@pytest.mark.parametrize("name", IDS)
def test_ids_are_never_rounded(name):
    ids = np.random.default_rng(0).integers(0, 178, (SAMPLES, 10))
    function, dtype = IDS[name]
    sim, db = sim_of(embedded(function, dtype), [ids.astype(dtype)])
    assert db > 30.0
    assert sim.input_names[0] not in sim.quantizers()


def test_ids_and_features_of_one_input_go_their_own_ways():
    x = Input((11,))
    words = L.Flatten()(L.Embedding(178, 4, name="words")(x[:, :10]))
    number = L.Dense(3, name="number")(x[:, 10:])
    model = Model(x, [L.Dense(2)(words), number])
    rng = np.random.default_rng(0)
    data = np.concatenate([rng.integers(0, 178, (SAMPLES, 10)), rng.normal(size=(SAMPLES, 1))], 1)
    sim, db = sim_of(model, [data.astype(np.float32)])
    assert db > 30.0
    assert sim.input_names[0] not in sim.quantizers()
    # The feature is quantized where it has left the ids.
    assert sim.quantized_layers()["number"].layer.kernel is not None
    assert any("getitem" in name for name in sim.quantizers())


def sequence(seed=0):
    data = np.random.default_rng(seed).normal(size=(SAMPLES, 7, 5)).astype(np.float32)
    data[: SAMPLES // 2, 4:] = 0.0
    return data


def masked_ids():
    ids = np.random.default_rng(0).integers(1, 178, (SAMPLES, 10))
    ids[:, 6:] = 0
    return ids.astype(np.int32)


def tokens(reader):
    ids = Input((10,), dtype="int32")
    return Model(ids, L.Dense(4)(reader(L.Embedding(178, 8, mask_zero=True)(ids)))), masked_ids()


def frames(reader):
    x = Input((7, 5))
    y = L.Dense(8, activation="relu", name="between")(L.Masking()(x))
    return Model(x, L.Dense(4)(reader(y))), sequence()


def self_attention(x):
    return L.GlobalAveragePooling1D()(L.MultiHeadAttention(2, 4)(x, x))


def two_masks(x):
    return L.LSTM(4)(L.Concatenate()([x, L.Dense(3)(x)]))


MASKED = {
    "mean of tokens": (tokens, L.GlobalAveragePooling1D()),
    "lstm of tokens": (tokens, L.LSTM(6)),
    "attention over tokens": (tokens, self_attention),
    "two branches": (tokens, two_masks),
    "lstm of frames": (frames, L.LSTM(6)),
    "both ways": (frames, L.Bidirectional(L.GRU(4))),
    "mean of frames": (frames, L.GlobalAveragePooling1D()),
    "attention over frames": (frames, self_attention),
    "two layers": (frames, lambda y: L.LSTM(4)(L.LSTM(5, return_sequences=True)(y))),
}


# Recurrent layers take seconds to trace, each; one of them stands for all in the short run.
LONG = ("lstm of tokens", "lstm of frames", "two branches", "both ways", "two layers")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in MASKED]
)
def test_masks_reach_their_readers(name):
    build, reader = MASKED[name]
    reader = reader if not isinstance(reader, L.Layer) else reader.from_config(reader.get_config())
    model, data = build(reader)
    assert sim_of(model, [data])[1] > 25.0


class Places(L.Layer):
    """Keras asks a layer for a mask by what its constructor sets, not by this."""

    supports_masking = True

    def call(self, x):
        return 2.0 * x


def test_a_mask_ends_where_keras_loses_it():
    ids = Input((5,), dtype="int32")
    y = L.GlobalAveragePooling1D()(Places()(L.Embedding(9, 4, mask_zero=True)(ids)))
    assert getattr(y, "_keras_mask", None) is None
    data = np.random.default_rng(0).integers(0, 9, (32, 5)).astype(np.int32)
    assert sim_of(tf_keras.Model(ids, L.Dense(3)(y)), [data])[1] > 25.0


def test_masks_have_the_same_names_in_every_sim():
    model, data = tokens(L.GlobalAveragePooling1D())
    plans = [sim_of(model, [data])[0].record.plan for _ in range(2)]
    assert plans[0] == plans[1]


POOLS = {
    "3 of 3, same": (L.AveragePooling2D(3, 1, padding="same"), 9),
    "3 of 3, valid": (L.AveragePooling2D(3, 1), 1),
    "3 of 3, stride 3, same": (L.AveragePooling2D(3, 3, padding="same"), 1),
    "5 of 3, stride 5, same": (L.AveragePooling2D(5, 5, padding="same"), 1),
    "5 of 3, same": (L.AveragePooling2D(5, 1, padding="same"), 9),
}


@pytest.mark.parametrize("reader", ["flat", "max"])
@pytest.mark.parametrize("name", POOLS)
def test_a_pool_is_a_mean_only_where_it_makes_one_pixel_of_all(name, reader):
    pool, pixels = POOLS[name]
    x = Input((3, 3, 2))
    y = pool.from_config(pool.get_config())(L.Conv2D(4, 1)(x))
    assert np.prod(y.shape[1:3]) == pixels
    y = L.Flatten()(y) if reader == "flat" else L.GlobalMaxPooling2D()(y)
    sim, db = sim_of(Model(x, L.Dense(4)(y)))
    assert db > 26.0
    assert any(type(la) is L.GlobalAveragePooling2D for la in sim.layers) == (pixels == 1)


def joined_in(layer):
    x = Input((6, 6, 2))
    y = L.Concatenate(name="joined")([L.Conv2D(2, 1, name="a")(x), L.Conv2D(2, 1, name="b")(x)])
    if layer == "pool":
        y = L.AveragePooling2D(name="pool")(y)
    if layer == "flat":
        y = L.Flatten(name="flat")(y)
    return Model(x, L.Dense(3, name="head")(y))


@pytest.mark.parametrize("precision", ["FP32", "W8A16"])
@pytest.mark.parametrize("layer", short(["joined", "pool", "flat"], "joined"))
def test_what_is_asked_of_a_layer_that_moves_integers_is_done(layer, precision):
    sim, db = sim_of(joined_in(layer), precision={layer: precision})
    assert sim.record.plan.kernels[layer].precision == precision
    assert (layer in sim.record.plan.floats) == (precision == "FP32")
    assert db > 30.0
    # It stays what it is when something else is asked for later.
    plan = sim.record.plan.with_bits("head", weights=4)
    later = eq.requantize(sim, plan=plan)
    assert later.record.plan.kernels[layer].precision == precision
    back = eq.requantize(later, plan=later.record.plan.with_bits(layer, precision="W8A8"))
    assert back.record.plan.kernels[layer].precision == "W8A8"
    assert layer not in back.record.plan.floats


CONSTANTS = {
    "operators": lambda x: x / 127.5 - 1.0,
    "rescaling": lambda x: L.Rescaling(1 / 127.5, -1.0)(x),
    "per channel": lambda x: x * tf.constant([0.01, 0.02, 0.005]),
    "normalization": lambda x: L.Normalization(mean=[100.0, 120.0, 90.0], variance=[60.0] * 3)(x),
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_of_the_model_are_not_trained(name):
    x = Input((4, 4, 3))
    model = Model(x, L.Conv2D(2, 3, name="conv")(CONSTANTS[name](x)))
    data = np.random.default_rng(0).uniform(0, 255, (SAMPLES, 4, 4, 3)).astype(np.float32)
    sim, db = sim_of(model, [data])
    assert db > 30.0
    sim.trainable = True  # as one does after a frozen backbone was trained
    held = {w.name: w.numpy() for w in sim.weights if not w.name.startswith("conv/")}
    sim.compile(tf_keras.optimizers.SGD(1e-3), "mse")
    before = sim.quantized_layers()["conv"].layer.kernel.numpy()
    sim.fit(data, np.zeros((SAMPLES, 2, 2, 2), np.float32), verbose=0)
    assert not np.array_equal(before, sim.quantized_layers()["conv"].layer.kernel.numpy())
    for weight in sim.weights:
        if weight.name in held:
            np.testing.assert_array_equal(held[weight.name], weight.numpy())
    assert {w.name for w in sim.trainable_weights} == {"conv/kernel:0", "conv/bias:0"}


def test_a_frozen_batch_norm_that_stands_alone_stays_frozen():
    x = Input((6, 6, 2))
    norm = L.BatchNormalization(name="norm")
    y = L.Conv2D(3, 3, padding="same", name="conv")(L.ReLU()(norm(x)))
    norm.trainable = False
    sim, _ = sim_of(Model(x, y))
    assert {w.name for w in sim.trainable_weights} == {"conv/kernel:0", "conv/bias:0"}


def test_boxes_and_scores_of_one_output_get_grids_of_their_own():
    x = Input((6,))
    boxes, scores = L.Dense(4, name="boxes")(x), L.Dense(3, activation="sigmoid", name="scores")(x)
    model = train_like(Model(x, L.Concatenate(name="detections")([boxes, scores])))
    model.get_layer("boxes").kernel.assign(300.0 * model.get_layer("boxes").kernel)
    (data,) = normal(model)
    with pytest.warns(QuantizationWarning, match="detections computes in FP32"):
        sim = eq.quantize(model, data, progress=False)
    wanted, got = model(data).numpy(), sim(data).numpy()
    assert sqnr_db(wanted[:, 4:], got[:, 4:]) > 30.0
    with pytest.warns(QuantizationWarning, match=r"3 channels of 'detections<1'.*FP32"):
        kept = eq.quantize(model, data, precision={"detections": "W8A8"}, progress=False)
    assert sqnr_db(wanted[:, 4:], kept(data).numpy()[:, 4:]) < 10.0


@pytest.mark.parametrize("how", ["normalization", "operators"])
def test_features_far_apart_are_read_as_they_are_by_the_constants_that_scale_them(how):
    rng = np.random.default_rng(0)
    data = np.stack([rng.uniform(0, 1, SAMPLES), rng.uniform(0, 1e5, SAMPLES)], 1)
    data = data.astype(np.float32)
    x = Input((2,), name="features")
    if how == "normalization":
        scaled = L.Normalization(name="scaled")
        scaled.adapt(data)
        y = scaled(x)
    else:
        y = (x - tf.constant([0.5, 5e4])) * tf.constant([3.5, 3.5e-5])
    model = Model(x, L.Dense(3)(L.Dense(8, activation="relu")(y)))
    with pytest.warns(QuantizationWarning, match="in FP32"):
        sim = eq.quantize(model, data, progress=False)
    assert sqnr_db(model(data), sim(data)) > 30.0
    assert "features" not in sim.quantizers()


def test_an_output_whose_channels_one_layer_makes_is_told_of():
    x = Input((6,))
    model = train_like(Model(x, L.Dense(5, name="head")(x)))
    kernel, bias = model.get_layer("head").get_weights()
    kernel[:, 0] *= 2e4
    model.get_layer("head").set_weights([kernel, bias])
    with pytest.warns(QuantizationWarning, match=r"4 channels of 'head' .*W8A16"):
        eq.quantize(model, normal(model)[0], progress=False)


ACTIVATIONS = {
    "LeakyReLU": lambda: L.LeakyReLU(0.1),
    "ReLU(6)": lambda: L.ReLU(6.0),
    "PReLU": lambda: L.PReLU(shared_axes=[1, 2]),
    "Softmax": lambda: L.Softmax(),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_layer_for_an_activation_is_split_off(name):
    x = Input((6, 6, 2))
    y = L.Conv2D(4, 3, activation=ACTIVATIONS[name](), name="conv")(x)
    sim, db = sim_of(Model(x, L.Dense(3)(L.Flatten()(y))))
    assert db > 28.0
    assert any(layer.name.startswith("conv/") for layer in sim.layers)


def test_a_lambda_for_an_activation_is_refused_by_name():
    x = Input((6,))
    model = Model(x, L.Dense(3, activation=lambda t: 2.0 * t, name="own")(x))
    with pytest.raises(UnsupportedModelError, match=r"'own' has a lambda.*def my"):
        eq.quantize(model, normal(model)[0], progress=False)


@pytest.mark.parametrize("constant", [[2.0, 30.0], (2.0, 30.0), np.float32([2.0, 30.0])])
@pytest.mark.parametrize("op", [tf.divide, tf.multiply, tf.add, lambda x, c: tf.subtract(c, x)])
def test_lists_of_numbers_are_constants_per_channel(op, constant):
    x = Input((2,))
    assert sim_of(Model(x, L.Dense(3)(op(x, constant))))[1] > 25.0


@pytest.mark.parametrize("beta", [1.0, 1.7])
def test_swish_keeps_its_beta(beta):
    assert sim_of(between_dense(lambda x: tf.nn.silu(x, beta=beta)))[1] > 28.0


def test_a_pool_reads_no_mask_where_it_becomes_a_mean():
    x = Input((4, 3))
    y = L.AveragePooling1D(4)(L.Masking()(L.ReLU()(x)))
    data = np.random.default_rng(0).normal(size=(SAMPLES, 4, 3)).astype(np.float32)
    data[:, 2:] = 0.0
    sim, db = sim_of(Model(x, L.Dense(2)(y)), [data])
    assert db > 28.0
    assert any(type(layer) is L.GlobalAveragePooling1D for layer in sim.layers)


@pytest.mark.parametrize("batch_norm", ["fold", "train"])
def test_a_batch_norm_over_another_axis_stays_behind_its_convolution(batch_norm):
    x = Input((5, 4, 3))
    y = L.BatchNormalization(axis=1, name="norm")(L.Conv2D(2, 1, name="conv")(x))
    sim, db = sim_of(Model(x, L.Conv2D(2, 3)(y)), batch_norm=batch_norm)
    assert db > 28.0
    assert "norm" in [layer.name for layer in sim.layers]


def test_parameters_per_channel_behind_an_input_of_a_known_range():
    x = Input((6, 6, 3))
    y = L.PReLU(shared_axes=[1, 2])(L.Rescaling(1 / 255.0)(x))
    data = np.random.default_rng(0).uniform(0, 255, (SAMPLES, 6, 6, 3)).astype(np.float32)
    assert sim_of(Model(x, L.Conv2D(2, 3)(y)), [data])[1] > 28.0
    assert sim_of(Model(x, L.Conv2D(2, 3)(L.PReLU(shared_axes=[1, 2])(L.ReLU()(x)))))[1] > 28.0


FIXED = {
    "tanh, tanh": ("tanh", "tanh"),
    "tanh, sigmoid": ("tanh", "sigmoid"),
    "sigmoid, sigmoid": ("sigmoid", "sigmoid"),
    "softmax, sigmoid, tanh": ("softmax", "sigmoid", "tanh"),
}


@pytest.mark.parametrize("last", short([False, True], False))
@pytest.mark.parametrize("name", short(FIXED, "tanh, tanh", "softmax, sigmoid, tanh"))
def test_tensors_on_fixed_grids_only_are_joined_on_one_of_their_own(name, last, tmp_path):
    x = Input((2, 2, 3))
    y = L.Concatenate()([L.Conv2D(3, 1, activation=one)(x) for one in FIXED[name]])
    sim, db = sim_of(Model(x, y if last else L.Dense(3)(y)))
    assert db > 30.0
    report = eq.export(sim, tmp_path, "tflite", progress=False)
    assert report.runs[0].agrees
    assert report.runs[0].identical > 0.99


@pytest.mark.parametrize("how", ["layer", "fused"])
def test_a_softmax_that_is_an_activation_takes_no_mask(how):
    if how == "layer":
        model, data = tokens(L.Activation("softmax"))
    else:
        model, data = tokens(L.Dense(5, activation="softmax"))
    assert sim_of(model, [data])[1] > 30.0
