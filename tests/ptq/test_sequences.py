"""Techniques on attention and on the cells of recurrent layers."""

import numpy as np
import pytest
import tf_keras

import keras_edgeq as eq
from keras_edgeq.numerics.metrics import sqnr_db
from tests.models import inputs_for
from tests.sequence_models import attention, recurrent

L = tf_keras.layers
MODELS = {
    "lstm": lambda: recurrent(L.LSTM(6, name="cell")),
    "gru": lambda: recurrent(L.GRU(6, name="cell")),
    "both ways": lambda: recurrent(L.Bidirectional(L.LSTM(6), name="cell")),
    "attention": attention,
}
SHORT = [pytest.param(name, marks=[] if name == "lstm" else pytest.mark.slow) for name in MODELS]


@pytest.mark.parametrize("name", SHORT)
def test_every_kernel_is_rounded_and_none_is_worse_for_it(name):
    model = MODELS[name]()
    x, new = inputs_for(model, samples=64), inputs_for(model, samples=64, seed=1)
    sim = eq.quantize(model, x, precision="W4A8", progress=False)
    wanted = model(new).numpy()
    plain = sqnr_db(wanted, sim(new).numpy())
    rounded = eq.gptq(sim, x, progress=False)
    assert set(rounded.record.rounded) == set(sim.quantized_layers())
    assert sqnr_db(wanted, rounded(new).numpy()) > plain + 1.0
    learned = eq.adaround(sim, x, iterations=50, progress=False)
    assert set(learned.record.rounded) == set(sim.quantized_layers())
    assert sqnr_db(wanted, learned(new).numpy()) > plain
    corrected = eq.correct_bias(sim, x, progress=False)
    assert sqnr_db(wanted, corrected(new).numpy()) > plain - 1.0


@pytest.mark.filterwarnings("ignore:.* changed nothing in:keras_edgeq.QuantizationWarning")
@pytest.mark.parametrize("name", SHORT)
def test_techniques_for_float_models_keep_the_function(name):
    model = MODELS[name]()
    x, new = inputs_for(model, samples=64), inputs_for(model, samples=64, seed=1)
    wanted = model(new).numpy()
    for technique in (eq.equalize, eq.smooth, eq.absorb_bias):
        made = technique(model, x, progress=False)
        np.testing.assert_allclose(made(new), wanted, atol=1e-4 * np.abs(wanted).max())
