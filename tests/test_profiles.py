"""Every built-in profile on one small model with each kind of layer that profiles treat apart."""

import numpy as np
import pytest
import tf_keras

import keras_edgeq as eq
from tests.models import Input, batch_norm, train_like

pytestmark = pytest.mark.slow

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


@pytest.fixture(scope="module", params=eq.profile_names())
def sim(request, model):
    return eq.quantize(model, X, request.param, progress=False)


def test_a_profile_simulates(model, sim):
    wanted, got = model.predict(X, verbose=0), sim.predict(X, verbose=0)
    difference = np.abs(wanted - got).max()
    assert 0 < difference < NEAR[sim.record.profile.own.name]


def test_the_precisions_of_a_profile_mix(model, sim):
    profile = sim.record.profile
    layers = ("scores", "deep", "point", "conv", "sum", "pool")
    asked = dict(zip(layers, reversed(profile.precision_names), strict=False))
    if profile.own.is_integer:
        mixed = eq.requantize(sim, precision=asked)
    else:  # half precision leaves no statistics of activations behind
        mixed = eq.quantize(model, X, profile, precision=asked, progress=False)
    assert mixed.record.precision == asked
    difference = np.abs(mixed.predict(X, verbose=0) - model.predict(X, verbose=0)).max()
    assert 0 < difference < NEAR["W4A8"]


def test_a_profile_exports_in_its_formats_and_its_runtimes_agree(sim, tmp_path):
    report = eq.export(sim, tmp_path, verify=X, progress=False)
    assert len(report.files) >= len(sim.record.profile.formats)
    assert report.runs
    for run in report.runs:
        # Of the nearly equal outputs of an untrained model, one step may exchange the first two:
        # kernels of ONNX Runtime round the ties of an average pool unlike those of LiteRT.
        assert run.agreement is not None
        assert run.agreement >= 95.0, str(run)
