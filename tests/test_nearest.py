"""Errors that name what there is also name what was probably meant."""

import numpy as np
import pytest
import tf_keras

import keras_edgeq as eq
from keras_edgeq.nearest import did_you_mean

L = tf_keras.layers


@pytest.mark.parametrize(
    ("given", "known", "hint"),
    [
        ("onx", ["tflite", "onnx", "encodings"], " Did you mean 'onnx'?"),
        ("w4a8", ["W4A8", "W8A8"], " Did you mean 'W4A8'?"),
        ("int8", ["litert_int8", "qnn_w8a8"], " Did you mean 'litert_int8'?"),
        ("conv_wp_*", ["conv_pw_1", "dense"], " Did you mean 'conv_pw_1'?"),
        ("blocks", ["block1", "block2", "head"], " Did you mean 'block2' or 'block1'?"),
        ("zzz", ["conv", "dense"], ""),
        ("", ["conv"], ""),
        ("*", ["conv"], ""),
        ("conv", [], ""),
        (3, ["conv"], ""),
        (None, ["conv"], ""),
    ],
)
def test_the_nearest_name_is_hinted_at(given, known, hint):
    assert did_you_mean(given, known) == hint


@pytest.fixture(scope="module")
def made():
    tf_keras.utils.set_random_seed(0)
    image = tf_keras.Input((8,), name="image")
    hidden = L.Dense(6, activation="relu", name="hidden")(image)
    model = tf_keras.Model(image, L.Dense(3, name="head")(hidden))
    x = np.random.default_rng(0).normal(size=(32, 8)).astype(np.float32)
    return model, x, eq.quantize(model, x, progress=False)


MEANT = {
    "profile": (lambda m, x, sim: eq.describe(m, "litert_int_8"), "litert_int8"),
    "precision": (lambda m, x, sim: eq.describe(m, precision={"head": "W4A9"}), "W4A8"),
    "precision for all": (lambda m, x, sim: eq.quantize(m, x, precision="w4a8"), "W4A8"),
    "layer": (lambda m, x, sim: eq.describe(m, precision={"hed": "W4A8"}), "head"),
    "glob": (lambda m, x, sim: eq.requantize(sim, precision={"hiden*": "W4A8"}), "hidden"),
    "rule": (lambda m, x, sim: eq.requantize(sim, rules={"weights": "entrpy"}), "entropy"),
    "kind of rule": (lambda m, x, sim: eq.requantize(sim, rules={"weight": "mse"}), "weights"),
    "tensor of a rule": (
        lambda m, x, sim: eq.requantize(sim, rules={"hed/kernel": "mse"}),
        "head/kernel",
    ),
    "with_bits": (lambda m, x, sim: sim.record.plan.with_bits("hed", weights=4), "head"),
    "operation": (lambda m, x, sim: sim.record.plan.with_bits("Densee", weights=4), "Dense"),
    "with_bits precision": (
        lambda m, x, sim: sim.record.plan.with_bits("head", precision="W8A61"),
        "W8A16",
    ),
    "format": (lambda m, x, sim: eq.export(sim, "unused", ["onx"]), "onnx"),
    "encodings": (
        lambda m, x, sim: eq.export(sim, "unused", ["encodings"], encodings_version="1.0"),
        "1.0.0",
    ),
    "frozen": (lambda m, x, sim: eq.freeze_encodings(sim, "head/kernal"), "head/kernel"),
    "learned": (lambda m, x, sim: eq.learn_ranges(sim, "hiden"), "hidden/relu"),
    "method": (lambda m, x, sim: eq.learn_ranges(sim, method="lqs"), "lsq"),
    "input": (lambda m, x, sim: eq.quantize(m, {"imagee": x}), "imagee"),
    "range of an input": (lambda m, x, sim: eq.quantize(m, input_range={"imag": (0, 1)}), "image"),
    "batch norm": (lambda m, x, sim: eq.quantize(m, x, batch_norm="trian"), "train"),
    "candidate": (
        lambda m, x, sim: eq.search_mixed_precision(sim, x, ["W4A", "W8A8"], size=1),
        "W4A8",
    ),
    "measure": (
        lambda m, x, sim: eq.analysis.sensitivity(sim, x, ["W4A8"], measure="sqnr_db"),
        "sqnr",
    ),
}


@pytest.mark.parametrize("what", MEANT)
def test_what_was_probably_meant_is_named(what, made):
    call, meant = MEANT[what]
    with pytest.raises(eq.EdgeqError, match=r"Did you mean ") as error:
        call(*made)
    hint = str(error.value).rpartition("Did you mean ")[2]
    assert repr(meant) in hint
