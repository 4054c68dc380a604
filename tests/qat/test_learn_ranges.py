from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import EncodingsError
from keras_edgeq.layers.learned_range import GAIN
from keras_edgeq.sim.freeze import all_quantizers
from tests.models import train_like

L = tf_keras.layers
DATA = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype(np.float32)
LABELS = np.random.default_rng(1).normal(size=(32, 4)).astype(np.float32)


def make_sim(**options):
    x = inputs = L.Input((8, 8, 3))
    x = L.Conv2D(6, 3, activation="relu", name="conv")(x)
    x = L.DepthwiseConv2D(3, name="depthwise")(x)
    x = L.GlobalAveragePooling2D(name="mean")(x)
    x = L.Dense(4, activation="softmax", name="head")(x)
    model = train_like(tf_keras.Model(inputs, x))
    return eq.quantize(model, DATA, progress=False, **options)


@pytest.fixture(scope="module")
def sim():
    return make_sim()


def grids(sim):
    encodings = {name: q.encoding for name, q in all_quantizers(sim).items()}
    return {name: (e.scale, e.zero_point) for name, e in encodings.items()}


def changed(one, other):
    pairs = zip(grids(one).items(), grids(other).values(), strict=True)
    return {name for (name, a), b in pairs if not all(map(np.array_equal, a, b))}


def fit(sim, optimizer=None):
    sim.compile(optimizer or tf_keras.optimizers.SGD(0.1), "mse")
    sim.fit(DATA, LABELS, epochs=1, verbose=0)
    return sim


@pytest.mark.parametrize("method", ["lsq", "tqt", "pact"])
def test_a_learning_sim_computes_the_same_until_it_is_trained(sim, method):
    learning = eq.learn_ranges(sim, method=method)
    np.testing.assert_array_equal(learning(DATA), sim(DATA))
    assert not sim.range_variables()
    weights_before = len(sim.trainable_variables)
    assert len(learning.trainable_variables) == weights_before + len(learning.range_variables())
    moved = changed(fit(learning), sim)
    fixed = {"head/kernel", "conv/kernel", "depthwise/depthwise_kernel"} if method == "pact" else ()
    assert moved
    assert not moved & {"activation", *fixed}


@pytest.mark.slow
def test_what_was_learned_is_in_the_file_and_goes_on(sim, tmp_path):
    learning = fit(eq.learn_ranges(sim))
    eq.save_sim(learning, tmp_path / "sim.keras")
    loaded = eq.load_sim(tmp_path / "sim.keras")
    np.testing.assert_array_equal(loaded(DATA), learning(DATA))
    assert not changed(loaded, learning)
    assert len(loaded.range_variables()) == len(learning.range_variables())


def test_names_choose_what_is_learned_frozen_ones_too(sim):
    frozen = eq.freeze_encodings(sim, "conv*", "*/kernel")
    rest = eq.learn_ranges(frozen)
    named = eq.learn_ranges(rest, "conv/kernel", method="tqt")
    learning = {n: q.learn for n, q in all_quantizers(named).items() if q.is_learning}
    assert learning["conv/kernel"] == "tqt"
    assert "head/kernel" not in learning
    assert "conv" not in learning
    assert learning["depthwise/depthwise_kernel"] == learning["depthwise"] == "lsq"
    assert "conv/kernel" not in named.record.frozen
    assert "head/kernel" in named.record.frozen


@pytest.mark.slow
def test_learning_again_starts_from_what_was_learned(sim):
    once = fit(eq.learn_ranges(sim))
    again = eq.learn_ranges(once, method="tqt")
    assert not changed(again, once)
    assert not any(np.any(v.numpy()) for v in again.range_variables())
    kept = eq.learn_ranges(once, "head/kernel")
    assert not changed(kept, once)
    assert any(np.any(v.numpy()) for v in kept.range_variables())


@pytest.mark.parametrize(("patterns", "options", "message"), [
    (("nothing",), {}, "nothing"),
    (("activation",), {}, "activation"),
    (("conv/kernel",), {"method": "pact"}, "conv/kernel"),
    ((), {"method": "lsqq"}, "lsqq"),
])  # fmt: skip
def test_what_cannot_be_learned_is_an_error_that_names_it(sim, patterns, options, message):
    with pytest.raises(EncodingsError, match=message):
        eq.learn_ranges(sim, *patterns, **options)


@pytest.mark.slow
def test_a_learned_sim_is_exported_as_it_computes(sim, tmp_path):
    learning = fit(eq.learn_ranges(sim), tf_keras.optimizers.Adam(1e-2))
    report = eq.export(learning, tmp_path, formats=["tflite", "onnx"], verify=DATA[:8])
    assert all(run.agrees for run in report.runs)


@pytest.mark.slow
def test_rounding_after_training_starts_from_learned_ranges(sim):
    learning = fit(eq.learn_ranges(sim))
    rounded = eq.gptq(learning, DATA, progress=False)
    assert rounded.record.rounded["conv"] == "gptq"
    assert np.isfinite(rounded(DATA)).all()


def test_gradients_through_integer_sums_are_finite_differences_of_a_smooth_surrogate():
    inputs = L.Input((6,))
    model = train_like(tf_keras.Model(inputs, L.Dense(3, name="dense")(inputs)))
    x = np.random.default_rng(0).normal(size=(16, 6)).astype(np.float32)
    sim = eq.learn_ranges(eq.quantize(model, x * 0.7, progress=False), method="tqt")
    quantizers = all_quantizers(sim)
    grid = quantizers["dense/kernel"]  # off the kink: the largest weight lies at the grid's end
    grid.assign(replace(grid.encoding, scale=grid.encoding.scale * np.float32(1.01)))
    g = np.random.default_rng(2).normal(size=(16, 3))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(sim(x) * g)
    names = [name for name in quantizers if name.startswith("input")] + ["dense/kernel", "dense"]
    got = tape.gradient(loss, [quantizers[name].learned.change for name in names])

    s_in, s_w, s_out = (quantizers[name].encoding.scale.astype(np.float64) for name in names)
    bounds = [
        (e.bounds[0] - int(e.zero_point), e.bounds[1] - int(e.zero_point))
        for e in (quantizers[names[0]].encoding, quantizers[names[2]].encoding)
    ]
    kernel = np.float64(model.layers[-1].kernel)
    bias = np.float64(model.layers[-1].bias)

    def held(real, scale, low, high):
        steps = np.clip(real / scale, low, high)
        return np.rint(steps) - steps

    def compute(scales, residuals=None):
        a, w, o = scales
        first = residuals is None
        r = residuals or {}
        if first:
            r["x"] = held(x, a, *bounds[0])
        steps = np.clip(x / a + r["x"], *bounds[0])
        if first:
            r["w"] = held(kernel, w, -127, 127)
            r["b"] = np.rint(bias / (a * w)) - bias / (a * w)
        weights = np.clip(kernel / w + r["w"], -127, 127)
        sums = (steps @ weights + bias / (a * w) + r["b"]) * a * w
        if first:
            r["y"] = held(sums, o, *bounds[1])
        return np.sum(g * np.clip(sums / o + r["y"], *bounds[1]) * o), r

    base, residuals = compute([s_in, s_w, s_out])
    np.testing.assert_allclose(base, float(loss), rtol=1e-5)
    for index, gradient in enumerate(got):
        gradient = np.ravel(gradient)
        for channel in range(gradient.size):
            step = np.zeros(gradient.size)
            step[channel] = 1e-6
            ends = []
            for sign in (1, -1):
                scales = [s_in, s_w, s_out]
                shape = scales[index].shape
                scales[index] = scales[index] * 2.0 ** (sign * step.reshape(shape))
                ends.append(compute(scales, dict(residuals))[0])
            np.testing.assert_allclose(
                GAIN * gradient[channel], (ends[0] - ends[1]) / 2e-6, rtol=2e-3, atol=2e-3
            )
