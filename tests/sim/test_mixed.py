"""Sims of several precisions: each layer computes in its own, and all of it survives the disk."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from tests.harness import assert_same_arrays, assert_same_sim, check_training_step, outputs
from tests.models import Input, train_like

L = tf_keras.layers
MIXED = {"conv1": "W4A8", "conv2": "W8A16", "deep": "FP16", "head": "W4A16"}
X = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype(np.float32)


def build():
    x = Input((8, 8, 3), name="image")
    y = L.Conv2D(6, 3, activation="relu", name="conv1")(x)
    y = L.Conv2D(6, 3, activation="relu6", name="conv2")(y)
    y = L.DepthwiseConv2D(3, name="deep")(y)
    y = L.GlobalAveragePooling2D(name="pool")(y)
    return train_like(tf_keras.Model(x, L.Dense(3, activation="softmax", name="head")(y)))


@pytest.fixture(scope="module", params=["litert_int8", "onnxruntime_int8"])
def sim(request):
    return eq.quantize(build(), X, request.param, precision=MIXED, progress=False)


def test_each_layer_has_the_grids_of_its_precision(sim):
    kernels = {
        name: next(iter(layer.quantizers.values())).spec
        for name, layer in sim.quantized_layers().items()
    }
    assert {name: spec.bits for name, spec in kernels.items() if not spec.is_half} == {
        "conv1": 4, "conv2": 8, "head": 4,
    }  # fmt: skip
    assert kernels["deep"].is_half
    specs = {name: q.spec for name, q in sim.quantizers().items()}
    assert specs["conv1/relu"].bits == 8
    assert specs["conv2<0"].bits == specs["conv2/relu6"].bits == specs["head/softmax"].bits == 16
    makes_halves = sim.record.profile.precision("FP16").activation is not None
    assert specs["deep"].is_half == makes_halves


def test_it_stays_near_the_float_model(sim):
    wanted, got = outputs(build(), X)[0], outputs(sim, X)[0]
    assert 0 < np.abs(wanted - got).max() < 0.1


def test_a_half_layer_computes_with_the_halves_of_its_weights(sim):
    """The reference is the float layer that holds NumPy's halves."""
    layer = sim.quantized_layers()["deep"]
    x = tf.constant(np.random.default_rng(1).normal(size=(2, 5, 5, 6)), tf.float32)
    plain = L.DepthwiseConv2D(3)
    plain.build(x.shape)
    plain.set_weights([w.astype(np.float16) for w in layer.layer.get_weights()])
    np.testing.assert_array_equal(layer(x)[0], plain(x))
    assert not layer.sums_integers


@pytest.mark.parametrize("name", ["sim.keras", "sim.h5", "sim"])
def test_it_comes_back_from_disk_whole(sim, tmp_path, name):
    eq.save_sim(sim, tmp_path / name)
    loaded = eq.load_sim(tmp_path / name)
    assert_same_sim(sim, loaded)
    assert loaded.record.precision == MIXED
    assert_same_arrays(outputs(sim, X), outputs(loaded, X))
    wide = {"conv1": "W8A16"}
    assert_same_arrays(
        eq.requantize(sim, precision=wide).get_weights(),
        eq.requantize(loaded, precision=wide).get_weights(),
    )


def test_it_trains(sim):
    check_training_step(eq.requantize(sim), X[:8])


def test_a_shared_layer_with_a_fused_activation_can_be_requantized():
    x = Input((6,))
    shared = L.Dense(6, activation="relu", name="shared")
    model = train_like(tf_keras.Model(x, L.Dense(2, name="head")(shared(shared(x)))))
    data = np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32)
    sim = eq.quantize(model, data, progress=False)
    wide = eq.requantize(sim, precision={"shared": "W8A16"})
    assert wide.quantizers().keys() >= {"shared/relu", "shared/relu@1"}
    assert_same_arrays(outputs(eq.requantize(wide, precision={}), data), outputs(sim, data))
