"""Every built-in profile on one small model with each kind of layer that profiles treat apart."""

import numpy as np
import pytest
import tf_keras

import keras_edgeq as eq
from tests.models import Input, batch_norm, train_like

L = tf_keras.layers
X = np.random.default_rng(0).normal(size=(64, 10, 10, 3)).astype(np.float32)
# Largest difference to the float model's probabilities, several times what was measured.
NEAR = {"W4A8": 0.3, "W8A8": 0.06, "W8A16": 0.03, "FP16": 0.002}


def build():
    x = Input((10, 10, 3), name="image")
    y = L.Conv2D(8, 3, padding="same", use_bias=False, name="conv")(x)
    y = L.ReLU(6.0, name="relu6")(batch_norm(y))
    z = L.DepthwiseConv2D(3, padding="same", activation="relu", name="deep")(y)
    y = L.Add(name="sum")([y, z])
    parts = [L.MaxPooling2D(name="max")(y), L.AveragePooling2D(name="average")(y)]
    y = L.Conv2D(8, 1, activation="relu", name="point")(L.Concatenate(name="both")(parts))
    y = L.Dense(10, activation="softmax", name="scores")(L.GlobalAveragePooling2D(name="pool")(y))
    return train_like(tf_keras.Model(x, y))


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.mark.parametrize("name", eq.profile_names())
def test_a_profile_simulates(model, name):
    sim = eq.quantize(model, X, name, progress=False)
    wanted, got = model.predict(X, verbose=0), sim.predict(X, verbose=0)
    difference = np.abs(wanted - got).max()
    assert 0 < difference < NEAR[sim.record.profile.own.name]


@pytest.mark.parametrize("name", eq.profile_names())
def test_each_layer_can_have_any_precision_of_its_profile(model, name):
    profile = eq.load_profile(name)
    sim = eq.quantize(model, X, name, progress=False)
    for precision in profile.precision_names:
        mixed = sim
        if profile.own.is_integer:  # half precision leaves no statistics of activations behind
            mixed = eq.requantize(sim, precision={"deep": precision})
        got = mixed.predict(X[:8], verbose=0)
        assert np.isfinite(got).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", eq.profile_names())
def test_a_profile_exports_in_its_formats_and_its_runtimes_agree(model, tmp_path, name):
    sim = eq.quantize(model, X, name, progress=False)
    report = eq.export(sim, tmp_path, verify=X, progress=False)
    formats = eq.load_profile(name).formats
    assert len(report.files) >= len(formats)
    assert report.runs
    for run in report.runs:
        # One sample of 64 may fall the other way on a tie.
        assert run.agreement >= 98.0, str(run)
