"""Techniques that find nothing to work on say so by name."""

import numpy as np
import pytest
import tf_keras

import keras_edgeq as eq

L = tf_keras.layers
SAID = eq.QuantizationWarning


@pytest.fixture(scope="module")
def data():
    return np.random.default_rng(0).normal(size=(8, 6)).astype("float32")


@pytest.fixture(scope="module")
def alone():
    """One kernel without a bias, alone."""
    tf_keras.utils.set_random_seed(0)
    x = tf_keras.Input((6,))
    return tf_keras.Model(x, L.Dense(3, use_bias=False, name="only")(x), name="alone")


SIMS = {
    "gptq": lambda sim, data: eq.gptq(sim, data, progress=False),
    "seq_mse": lambda sim, data: eq.seq_mse(sim, data, progress=False),
    "adaround": lambda sim, data: eq.adaround(sim, data, iterations=2, progress=False),
}


@pytest.mark.parametrize("technique", SIMS)
def test_techniques_for_integer_weights_name_the_layers_that_have_none(alone, data, technique):
    halves = eq.quantize(alone, data, precision="FP16", progress=False)
    with pytest.warns(SAID, match=rf"{technique} changed .*'alone'.*only: in half precision"):
        made = SIMS[technique](halves, data)
    np.testing.assert_array_equal(made(data), halves(data))
    floats = eq.quantize(alone, data, precision="FP32", progress=False)
    with pytest.warns(SAID, match="all compute in float"):
        SIMS[technique](floats, data)


def test_a_sim_without_biases_is_named(alone, data):
    sim = eq.quantize(alone, data, progress=False)
    with pytest.warns(SAID, match="correct_bias changed nothing in 'alone'.*a bias"):
        eq.correct_bias(sim, data, progress=False)


def test_ranges_that_no_method_learns_are_said(alone, data):
    sim = eq.quantize(alone, data, precision="W8", progress=False)
    with pytest.warns(SAID, match="learn_ranges found no range in 'alone'.*'pact'"):
        eq.learn_ranges(sim, method="pact")


MODELS = {
    "equalize": (lambda model, data: eq.equalize(model), "no channel lies between two kernels"),
    "smooth": (lambda model, data: eq.smooth(model, data, progress=False), "no normalization"),
    "absorb_bias": (
        lambda model, data: eq.absorb_bias(model, data, progress=False),
        "no layer with a bias is read",
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_techniques_for_float_models_say_what_they_looked_for(alone, data, name):
    technique, why = MODELS[name]
    with pytest.warns(SAID, match=f"{name} changed nothing in 'alone': {why}"):
        made = technique(alone, data)
    np.testing.assert_allclose(made(data), alone(data), rtol=1e-6)


@pytest.mark.parametrize("precision", ["W8", "FP16"])
@pytest.mark.parametrize("name", MODELS)
def test_a_sim_with_weights_alone_on_grids_is_no_float_model(alone, data, name, precision):
    sim = eq.quantize(alone, data, precision=precision, progress=False)
    with pytest.raises(eq.errors.UnsupportedModelError, match="is a sim already"):
        MODELS[name][0](sim, data)
