"""`correct_bias` takes out the mean error of rounded weights, from data or from batch norms."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import CalibrationDataError
from keras_edgeq.numerics.metrics import sqnr_db
from keras_edgeq.sim.freeze import copy_sim
from tests.harness import assert_same_arrays, outputs
from tests.models import inputs_for, make, train_like

L = tf_keras.layers
QUIET = {"progress": False}
COARSE = {"profile": "litert_int8_per_tensor", "precision": {"*": "W4A8"}}


def rounded_weights(sim):
    """Return the float model with the sim's rounded weights and its biases."""
    model = eq.strip(sim)
    for name, layer in sim.quantized_layers().items():
        for param, value in layer.rounded_params().items():
            getattr(model.get_layer(name), param).assign(value)
    return model


def biases(sim):
    layers = sim.quantized_layers().values()
    return {x.name: x.layer.bias.numpy() for x in layers if x.layer.bias is not None}


def weights_and_record(sim):
    return [w.tobytes() for w in sim.get_weights()], sim.record, sim.stats, sim.reference


def sums():
    """Every layer's sums as outputs of their own."""
    x = tf_keras.Input((8, 8, 3))
    first = L.Conv2D(6, 3, strides=2, padding="same", name="first")(x)
    second = L.DepthwiseConv2D(3, depth_multiplier=2, name="second")(L.ReLU()(first))
    third = L.Conv1D(4, 2, name="third")(L.Reshape((4, 12))(L.ReLU()(second)))
    heads = L.EinsumDense("abc,cde->abde", output_shape=(None, 2, 3), bias_axes="de", name="heads")
    return train_like(tf_keras.Model(x, [first, second, third, heads(L.ReLU()(third))]))


def means(model, x):
    return [t.mean(axis=tuple(range(t.ndim - 1))) for t in outputs(model, x)]


@pytest.mark.slow
def test_with_data_the_sums_of_every_layer_are_right_on_average():
    model = sums()
    x = inputs_for(model, 40)
    sim = eq.quantize(model, x, **COARSE, **QUIET)
    before = weights_and_record(sim)
    better = eq.correct_bias(sim, x, batch_size=16, **QUIET)
    assert weights_and_record(sim) == before
    models = (model, rounded_weights(sim), rounded_weights(better))
    for wanted, off, corrected in zip(*(means(m, x) for m in models), strict=True):
        np.testing.assert_allclose(corrected, wanted, atol=2e-5)
        assert np.abs(off - wanted).max() > 1e-2

    for name, bias in biases(sim).items():
        np.testing.assert_array_equal(better.reference[f"{name}/bias"], bias)
    for name, layer in better.quantized_layers().items():
        kernel = sim.quantized_layers()[name].layer.get_weights()[0]
        np.testing.assert_array_equal(layer.layer.get_weights()[0], kernel)


def test_the_bias_of_a_shared_layer_makes_up_for_the_mean_of_its_calls():
    model = make("shared_layer")
    x = inputs_for(model, 24)
    x["b"] = 2.0 * x["b"] + 1.0
    sim = eq.quantize(model, x, **COARSE, **QUIET)
    layer = sim.quantized_layers()["conv"]
    error = layer.rounded_params()["kernel"] - layer.layer.kernel
    shifts = [tf.reduce_mean(tf.nn.conv2d(x[n], error, 1, "VALID"), [0, 1, 2]) for n in "ab"]
    better = eq.correct_bias(sim, x, **QUIET)
    wanted = layer.layer.bias - np.mean(shifts, axis=0)
    np.testing.assert_allclose(biases(better)["conv"], wanted, atol=1e-5)
    assert np.abs(shifts).max() > 1e-2


def test_after_gptq_the_float_bias_is_the_target_and_the_kernels_stay():
    model = make("forward_dense")
    x = inputs_for(model, 64)
    sim = eq.gptq(eq.quantize(model, x, **COARSE, **QUIET), x, **QUIET)
    better = eq.correct_bias(sim, x, **QUIET)
    twice = eq.correct_bias(better, x, **QUIET)
    kernels = [s.quantized_layers()["dense"].layer.kernel.numpy() for s in (sim, better)]
    np.testing.assert_array_equal(*kernels)
    assert better.record.rounded == sim.record.rounded
    assert_same_arrays(list(sim.reference.values()), list(better.reference.values()))
    wanted, got = (means(m, x)[0] for m in (model, rounded_weights(better)))
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    np.testing.assert_allclose(biases(twice)["dense"], biases(better)["dense"], atol=1e-6)


@pytest.fixture(scope="module")
def normed():
    """A model whose batch norms know the data, the data, and its sim of coarse weights."""
    norm = {"momentum": 0.0}
    x = tf_keras.Input((10, 10, 3))
    y = L.Conv2D(16, 3, use_bias=False, name="stem")(x)
    y = L.ReLU()(L.BatchNormalization(**norm)(y))
    y = L.DepthwiseConv2D(3, use_bias=False, name="deep")(y)
    y = L.ReLU()(L.BatchNormalization(**norm)(y))
    y = L.Conv2D(16, 1, use_bias=False, name="wide")(y)
    y = L.ReLU(6.0)(L.BatchNormalization(**norm)(y))
    model = train_like(tf_keras.Model(x, L.Dense(8, name="scores")(L.GlobalAveragePooling2D()(y))))
    data = inputs_for(model, 256)
    model(data, training=True)
    return model, data, eq.quantize(model, data, **COARSE, **QUIET)


@pytest.mark.slow
def test_batch_norms_alone_know_nearly_what_data_knows(normed):
    model, x, sim = normed
    before = weights_and_record(sim)
    blind, seen = eq.correct_bias(sim), eq.correct_bias(sim, x, **QUIET)
    assert weights_and_record(sim) == before
    start, guessed, measured = biases(sim), biases(blind), biases(seen)
    np.testing.assert_array_equal(guessed["stem"], start["stem"])  # nothing reads the input
    for name in ("deep", "wide", "scores"):
        shift, wanted = guessed[name] - start[name], measured[name] - start[name]
        assert np.corrcoef(shift, wanted)[0, 1] > 0.8
        assert np.abs(shift).max() > 1e-2
    wanted = outputs(model, x)[0]
    noise = [sqnr_db(wanted, outputs(rounded_weights(s), x)[0]) for s in (sim, blind, seen)]
    assert noise[1] > noise[0] + 2.0
    assert noise[2] > noise[0] + 2.0


def test_the_shift_that_batch_norms_know_by_hand(normed):
    _, _, sim = normed
    layer, known = sim.quantized_layers()["wide"], sim.stats.means
    (mean,) = [known[n] for n in known if n.startswith("re_lu") and len(known[n]) == 16][1:2]
    error = (layer.rounded_params()["kernel"] - layer.layer.kernel).numpy()[0, 0]
    got = biases(eq.correct_bias(sim))["wide"]
    np.testing.assert_allclose(got, layer.layer.bias - mean @ error, atol=1e-5)


def test_the_statistics_of_a_saved_sim_are_enough(normed, tmp_path):
    sim = normed[2]
    eq.save_sim(sim, tmp_path / "sim.keras")
    loaded = eq.correct_bias(eq.load_sim(tmp_path / "sim.keras"))
    assert_same_arrays(eq.correct_bias(sim).get_weights(), loaded.get_weights())


def test_a_sim_made_without_data_is_corrected_without_data(normed):
    model, x, _ = normed
    sim = eq.quantize(model, input_range=(-3.0, 3.0), **COARSE)
    better = eq.correct_bias(sim)
    wanted = outputs(model, x)[0]
    before, after = (sqnr_db(wanted, outputs(rounded_weights(s), x)[0]) for s in (sim, better))
    assert after > before + 2.0


def test_without_data_and_without_batch_norms_nothing_is_known(normed):
    forgetful = copy_sim(normed[2])
    forgetful.stats = None
    # A ReLU6 of who knows what: its bounds are no means.
    x = tf_keras.Input((4,))
    model = train_like(tf_keras.Model(x, L.Dense(2)(L.ReLU(6.0)(L.Dense(3)(x)))))
    unknown = eq.quantize(model, inputs_for(model), **QUIET)
    for sim in (forgetful, unknown):
        with pytest.raises(CalibrationDataError, match=r"correct_bias\(sim, data\)"):
            eq.correct_bias(sim)
