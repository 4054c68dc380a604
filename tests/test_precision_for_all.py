"""`precision="W4A8"`: one precision for all layers that have a kernel of it."""

import re

import numpy as np
import pytest
import tf_keras

import keras_edgeq as eq

L = tf_keras.layers


@pytest.fixture(scope="module")
def made():
    tf_keras.utils.set_random_seed(0)
    image = tf_keras.Input((8,), name="image")
    x = L.Dense(6, activation="relu", name="hidden")(image)
    model = tf_keras.Model(image, L.Dense(3, name="head")(x))
    return model, np.random.default_rng(0).normal(size=(32, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def with_prelu():
    """LiteRT has PReLU with 8-bit activations only."""
    tf_keras.utils.set_random_seed(0)
    image = tf_keras.Input((6, 6, 2), name="image")
    x = L.PReLU(name="bent")(L.Conv2D(4, 3, name="conv")(image))
    model = tf_keras.Model(image, L.Dense(3, name="head")(L.Flatten(name="flat")(x)))
    return model, np.random.default_rng(0).normal(size=(32, 6, 6, 2)).astype(np.float32)


def own_precision(profile="litert_int8", name="W4A8"):
    return eq.load_profile(profile).precision(name)


def precisions(sim):
    return {layer: kernel.precision for layer, kernel in sim.record.plan.kernels.items()}


@pytest.mark.parametrize("asked", ["W4A8", own_precision(), {"*": "W4A8"}, {"*": own_precision()}])
def test_all_layers_get_it(asked, made):
    model, x = made
    sim = eq.quantize(model, x, precision=asked, progress=False)
    assert set(precisions(sim).values()) == {"W4A8"}
    assert dict(sim.record.precision) == {"*": "W4A8"}
    again = eq.requantize(eq.quantize(model, x, progress=False), precision=asked)
    assert precisions(again) == precisions(sim)
    rows = {row.layer: row.why for row in eq.describe(model, precision=asked).rows}
    assert rows["head"].startswith("kernel int4")


def test_it_outlives_the_file(made, tmp_path):
    model, x = made
    eq.save_sim(eq.quantize(model, x, precision="W4A8", progress=False), tmp_path / "sim.keras")
    loaded = eq.load_sim(tmp_path / "sim.keras")
    assert set(precisions(eq.requantize(loaded)).values()) == {"W4A8"}
    assert set(precisions(eq.requantize(loaded, precision={})).values()) == {"W8A8"}


def test_layers_that_have_no_such_kernel_keep_their_own_and_are_named(with_prelu):
    model, x = with_prelu
    with pytest.warns(UserWarning, match=r"no W8A16 kernel for bent \(PRelu, W8A8\)"):
        sim = eq.quantize(model, x, precision="W8A16", progress=False)
    assert precisions(sim)["conv"] == precisions(sim)["head"] == "W8A16"
    assert precisions(sim)["bent"] == "W8A8"


def test_a_name_decides_for_a_layer_that_the_rest_leaves_out(with_prelu):
    model, x = with_prelu
    asked = {"bent": "FP16", "*": "W8A16"}
    sim = eq.quantize(model, x, precision=asked, progress=False)
    assert precisions(sim)["bent"] == "FP16"
    with pytest.raises(eq.EdgeqError, match=re.escape("'bent' was asked for W8A16")):
        eq.quantize(model, x, precision={"bent": "W8A16"}, progress=False)


@pytest.mark.parametrize("asked", [4, ["W4A8"], {"head": 4}, {4: "W4A8"}, ("W4A8", "W8A8")])
def test_what_is_no_precision_is_told_apart(asked, made):
    model, x = made
    for call in (eq.describe, eq.quantize):
        data = (x,) if call is eq.quantize else ()
        with pytest.raises(eq.EdgeqError, match=r"not a precision|be a name such as 'W4A8'"):
            call(model, *data, precision=asked)


def test_a_precision_of_another_profile_is_refused(made):
    model, x = made
    other = own_precision("qnn_w8a8")
    assert other != own_precision()
    with pytest.raises(eq.EdgeqError, match="another 'W4A8' than the one given"):
        eq.quantize(model, x, precision=other, progress=False)


def test_a_precision_that_no_layer_has_is_an_error(made):
    model, x = made
    with pytest.raises(eq.EdgeqError, match="tensorrt_int8"):
        eq.quantize(model, x, "tensorrt_int8", precision="W4A8", progress=False)
