"""Normalization in files: the sim beside the float model, and the file beside the sim."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.numerics.metrics import sqnr_db
from tests.models import train_like
from tests.short import short

L = tf_keras.layers
SHAPE, SAMPLES = (5, 8), 48
GAMMA = np.linspace(0.5, 2.0, 8, dtype=np.float32)


def rms(x):
    return x * tf.math.rsqrt(tf.reduce_mean(x * x, -1, keepdims=True) + 1e-6) * GAMMA


KINDS = {
    "layer": L.LayerNormalization(epsilon=1e-6),
    "layer, two axes": L.LayerNormalization(axis=[1, 2]),
    "groups": L.GroupNormalization(2),
    "unit": L.UnitNormalization(),
    "rms": rms,
    "l2": lambda x: tf.nn.l2_normalize(x, -1),
}


def model_of(kind):
    x = tf_keras.Input(SHAPE, name="x")
    y = KINDS[kind](L.Dense(8, name="front")(x))
    return train_like(tf_keras.Model(x, L.Dense(4, name="back")(y)))


def vectors(spread=0.3):
    rng = np.random.default_rng(0)
    sizes = np.exp(spread * rng.normal(size=(SAMPLES, SHAPE[0], 1)))
    return np.float32(sizes * rng.normal(size=(SAMPLES, *SHAPE)))


CASES = {
    f"{kind}, {where}": (kind, profile, asked)
    for kind in KINDS
    for where, profile, asked in (
        ("LiteRT", "litert_int8", None),
        ("LiteRT in 16 bits", "litert_int8", "w8a8_norm16"),
        ("ONNX Runtime", "onnxruntime_int8", None),
    )
}


@pytest.mark.parametrize("name", short(CASES, *(f"layer, {w}" for w in (
    "LiteRT", "LiteRT in 16 bits", "ONNX Runtime"))))  # fmt: skip
def test_a_file_normalizes_as_the_sim(name, tmp_path):
    kind, profile, asked = CASES[name]
    model, data = model_of(kind), vectors()
    sim = eq.quantize(model, data, profile, precision=asked, progress=False)
    assert sqnr_db(model(data).numpy(), sim(data).numpy()) > 20.0
    formats = ["onnx" if "ONNX" in name else "tflite"]
    report = eq.export(sim, tmp_path, formats, verify=data[:16], progress=False)
    assert report.runs[0].identical >= 0.97
    for run in report.runs:
        assert run.first_difference is None or run.first_difference.cause == "kernel"


@pytest.mark.parametrize("kind", short(KINDS, "layer", "rms"))
def test_only_inverses_of_vectors_are_float_in_16_bits(kind):
    plan = eq.quantize(
        model_of(kind), vectors(), precision="w8a8_norm16", check=False, progress=False
    ).record.plan
    assert {name.rpartition("/")[2] for name in plan.floats} == {"factor", "inverse_root"}
    wide = {name for name, kernel in plan.kernels.items() if kernel.precision == "W8A16"}
    assert set(plan.kernels) - wide == {"front", "back"}


def test_vectors_of_very_different_sizes_are_right_in_16_bits():
    x = tf_keras.Input(SHAPE)
    model = tf_keras.Model(x, L.LayerNormalization(center=False, scale=False)(x))
    data = vectors(spread=2.0)
    sim = eq.quantize(model, data, "litert_int16x8", progress=False)
    step = np.abs(data).max() / 32767
    wanted, got, best = (f(x).numpy() for f, x in (
        (model, data), (sim, data), (model, step * np.rint(data / step))
    ))  # fmt: skip
    assert np.ptp(np.log10(np.abs(data).max(-1))) > 3
    assert np.median(db_of_each(wanted, got)) > np.median(db_of_each(wanted, best)) - 6.0


def db_of_each(wanted, got):
    noise = np.sum((wanted - got) ** 2, -1)
    return 10 * np.log10(np.sum(wanted**2, -1) / np.maximum(noise, 1e-12))


@pytest.mark.parametrize("learned", short([False, True], False))
def test_training_passes_vectors_of_zeros(learned):
    model, data = model_of("layer"), vectors()
    data[::4] = 0.0
    sim = eq.quantize(model, data, precision="w8a8_norm16", check=False, progress=False)
    sim = eq.learn_ranges(sim) if learned else sim
    before = {w.name: w.numpy() for w in sim.trainable_weights}
    sim.compile("sgd", "mse")
    losses = sim.fit(data, np.tanh(data[..., :4]), epochs=2, batch_size=16, verbose=0)
    assert np.isfinite(losses.history["loss"]).all()
    moved = {w.name for w in sim.trainable_weights if not np.array_equal(w.numpy(), before[w.name])}
    assert all(np.isfinite(w.numpy()).all() for w in sim.weights)
    assert any("front" in name for name in moved)
    assert any("layer_normalization" in name for name in moved)
