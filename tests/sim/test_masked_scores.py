"""`tf.where` in integers, and scores that a mask takes out of a softmax."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.ops import op_type
from tests.short import short

L = tf_keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 5, 6)).astype(np.float32)
KEPT = RNG.random((48, 5)) < 0.6
KEPT[0] = False  # nothing is kept of one sample


def flat(model, data):
    return np.concatenate([np.ravel(o) for o in tf.nest.flatten(model.predict(data, verbose=0))])


def sqnr(model, sim, data):
    wanted, got = flat(model, data), flat(sim, data)
    return 10 * np.log10((wanted**2).sum() / ((wanted - got) ** 2).sum())


def selects():
    x, kept = L.Input((5, 6)), L.Input((5,), dtype="bool")
    y, z, c = L.Dense(6)(x), L.Dense(6)(x), kept[:, :, None]
    made = [
        tf.where(c, y, z),
        tf.where(c, y, 0.0),
        tf.where(c, tf.ones_like(z) * 3.5, z),
        tf.where(condition=np.arange(6) < 3, x=y, y=tf.zeros_like(z)),
    ]
    return tf_keras.Model([x, kept], [L.Dense(3)(one) for one in made])


def masked(number):
    x, kept = L.Input((5, 6)), L.Input((5,), dtype="bool")
    scores = tf.matmul(L.Dense(6)(x), L.Dense(6)(x), transpose_b=True)
    scores = tf.where(kept[:, None, :], scores, number)
    return tf_keras.Model([x, kept], L.Dense(3)(tf.matmul(tf.nn.softmax(scores), x)))


@pytest.mark.parametrize("profile", short(["litert_int8", "litert_int16x8"], "litert_int8"))
def test_where_selects_integers(profile, tmp_path):
    model = selects()
    sim = eq.quantize(model, [X, KEPT], profile, progress=False)
    assert not sim.record.plan.floats
    assert sqnr(model, sim, [X, KEPT]) > 33
    formats = ["tflite", "onnx"] if profile == "litert_int8" else ["tflite"]
    report = eq.export(sim, tmp_path, formats, verify=[X, KEPT], progress=False)
    assert {run.verdict for run in report.runs} <= {"same", "kernel"}


@pytest.mark.parametrize("number", short([-1e9, float(np.finfo(np.float32).min), -1e4], -1e9))
def test_masked_scores_leave_the_others_their_steps(number, tmp_path):
    model = masked(number)
    sim = eq.quantize(model, [X, KEPT], progress=False)
    assert not sim.record.plan.floats
    assert sqnr(model, sim, [X, KEPT]) > 28
    report = eq.export(sim, tmp_path, ["tflite", "onnx"], verify=[X, KEPT], progress=False)
    assert {run.verdict for run in report.runs} <= {"same", "kernel"}
    selected = next(n for n in sim.quantizers() if "matmul" in n)
    assert sim.quantizers()[selected].encoding.min > -60


def test_what_is_masked_is_nothing_to_the_others():
    model = masked(-1e9)
    sim = eq.quantize(model, [X, KEPT], progress=False)
    other = np.where(KEPT[..., None], X, RNG.normal(size=X.shape).astype(np.float32))
    softmax = next(layer for layer in sim.layers if op_type(layer) == "Softmax")
    probe = tf_keras.Model(sim.inputs, softmax.output)
    shares = probe.predict([other, KEPT], verbose=0)[1:]
    hidden = np.broadcast_to(~KEPT[1:, None, :], shares.shape)
    assert shares[hidden & KEPT[1:].any(-1)[:, None, None]].max() < 1 / 512


def test_a_far_number_that_no_softmax_reads_stays_float():
    x, kept = L.Input((5, 6)), L.Input((5,), dtype="bool")
    y = tf.where(kept[:, :, None], L.Dense(6)(x), -1e9)
    model = tf_keras.Model([x, kept], L.Dense(3)(tf.maximum(y, -8.0)))
    sim = eq.quantize(model, [X, KEPT], progress=False)
    assert any("beyond 1000" in why for why in sim.record.plan.floats.values())
    assert sqnr(model, sim, [X, KEPT]) > 30


def test_masked_scores_in_half_precision_have_no_steps():
    x = tf_keras.Input((5, 4))
    y = L.MultiHeadAttention(2, 3)(x, x, use_causal_mask=True)
    data = np.random.default_rng(0).normal(size=(16, 5, 4)).astype("float32")
    sim = eq.quantize(tf_keras.Model(x, L.Dense(2)(y)), data, "qnn_fp16", progress=False)
    assert sim.record.fidelity.outputs[0].sqnr_db > 40.0
