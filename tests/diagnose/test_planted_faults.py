"""Faults planted in small networks are found first, with what helps against them."""

from dataclasses import replace

import numpy as np
import pytest
import tf_keras

import keras_edgeq as eq
from keras_edgeq.profiles import load_profile
from keras_edgeq.profiles.precision import OpRule
from tests.short import short

L = tf_keras.layers


def images(samples=48, seed=0):
    return np.random.default_rng(seed).normal(size=(samples, 8, 8, 3)).astype("float32")


def convnet(activation="relu"):
    """Three convolutions and a head, with weights drawn from one seed."""
    tf_keras.utils.set_random_seed(1)
    x = inputs = L.Input((8, 8, 3))
    for name in ("conv1", "conv2", "conv3"):
        x = L.Conv2D(8, 3, padding="same", name=name)(x)
        x = L.Activation(activation, name=f"{name}_act")(x)
    x = L.GlobalAveragePooling2D(name="pool")(x)
    return tf_keras.Model(inputs, L.Dense(4, name="head")(x))


def change(model, name, kernel=lambda k: k, bias=lambda b: b):
    """Change the weights of a layer."""
    layer = model.get_layer(name)
    old = layer.get_weights()
    layer.set_weights([kernel(old[0]), bias(old[1])])
    return model


def times(factor, where=...):
    def made(values):
        values = values.copy()
        values[where] *= factor
        return values

    return made


def found_first(model, profile="litert_int8", data=None, calibration=None, change=None, **options):
    """Return the first finding for a model, the sim, and the data."""
    data = images() if data is None else data
    calibration = data if calibration is None else calibration
    sim = eq.quantize(model, calibration, profile, progress=False, **options)
    if change is not None:
        change(sim)
    found = eq.diagnose(sim, data, remedies=1, verify=False, progress=False)
    assert found.findings, str(found)
    return found.findings[0], sim, data


def one_large_weight_per_tensor():
    model = change(convnet(), "conv2", times(1000.0, (0, 0, 0, 0)))
    return found_first(model, "litert_int8_per_tensor")


def one_large_channel():
    model = change(convnet(), "conv2", times(1000.0, (..., 2)))
    model = change(model, "conv3", times(1e-3, (slice(None), slice(None), 2)))
    return found_first(model, "litert_int8_per_tensor")


def outlier_channel():
    model = change(convnet(), "conv2", times(1000.0, (..., 2)), times(1000.0, 2))
    model = change(model, "conv3", times(1e-3, (slice(None), slice(None), 2)))
    return found_first(model)


def weights_changed_after_calibration():
    def larger(sim):
        layer = sim.get_layer("conv2")
        layer.layer.kernel.assign(layer.layer.kernel * 1000.0)

    return found_first(convnet(), change=larger)


def dead_relu():
    return found_first(change(convnet(), "conv2", bias=lambda b: b - 1000.0))


def softmax_at_four_bits():
    tf_keras.utils.set_random_seed(1)
    x = inputs = L.Input((8, 8, 3))
    x = L.Conv2D(8, 3, padding="same", activation="relu", name="conv")(x)
    x = L.GlobalAveragePooling2D(name="pool")(x)
    x = L.Softmax(name="softmax")(L.Dense(16, name="scores")(x))
    model = tf_keras.Model(inputs, L.Dense(4, name="head")(x))
    profile = replace(
        load_profile("litert_int8"),
        name="softmax4",
        ops={"Softmax": OpRule(activation={"bits": 4}, fixed_range=(0.0, 0.9375))},
    )
    return found_first(model, profile)


def tiny_variances():
    tf_keras.utils.set_random_seed(1)
    x = inputs = L.Input((8, 8, 3))
    x = L.Conv2D(16, 3, padding="same", name="stem")(x)
    x = L.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x)
    x = L.BatchNormalization(name="bn")(x)
    x = L.ReLU(6.0, name="relu")(x)
    x = L.Conv2D(8, 1, name="pointwise")(x)
    model = tf_keras.Model(inputs, L.GlobalAveragePooling2D()(x))
    # Channels that hardly move, which their batch norm makes as large as the others.
    model = change(model, "stem", times(1e-3, (..., slice(3))))
    norm, kernel = model.get_layer("bn"), model.get_layer("depthwise").get_weights()[0]
    power = np.square(model.get_layer("stem").get_weights()[0]).sum((0, 1, 2))
    variance = power * np.square(kernel[..., 0]).sum((0, 1))
    norm.epsilon = 1e-8
    norm.set_weights([*norm.get_weights()[:3], variance])
    return found_first(model, "litert_int8_per_tensor")


def concat_of_far_ranges():
    tf_keras.utils.set_random_seed(1)
    inputs = L.Input((8, 8, 3))
    small = L.Conv2D(8, 3, padding="same", name="small")(inputs)
    large = L.Conv2D(8, 3, padding="same", name="large")(inputs)
    x = L.Concatenate(name="concat")([small, large])
    # A scale per channel brings both to the same range.
    x = L.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = L.Conv2D(8, 3, padding="same", name="conv")(x)
    model = tf_keras.Model(inputs, L.GlobalAveragePooling2D()(x))
    model = change(model, "large", times(1000.0), times(1000.0))
    model = change(model, "depthwise", times(1e-3, (slice(None), slice(None), slice(8, 16))))
    return found_first(model)


def half_the_range():
    return found_first(convnet(), calibration=images(seed=1) / 2)


def float_in_the_middle():
    return found_first(convnet(), precision={"conv2": "FP32"})


def bias_that_does_not_fit():
    """A large bias behind small weights, taken away again by the next operation."""
    tf_keras.utils.set_random_seed(1)
    inputs = L.Input((8, 8, 3))
    x = L.Conv2D(8, 3, padding="same", name="conv1")(inputs)
    x = L.Conv2D(8, 3, padding="same", name="conv2")(x) - 50.0
    x = L.Conv2D(8, 3, padding="same", name="conv3")(x)
    model = tf_keras.Model(inputs, L.GlobalAveragePooling2D(name="pool")(x))
    model = change(model, "conv2", times(1e-2), lambda b: b + 50.0)
    return found_first(model, "qnn_w8a16")


# What was planted -> the layer, the cause and the remedy of the first finding, and the dB it gives
# at least. None is a remedy that no quantization has.
PLANTED = {
    one_large_channel: ("conv2", "weight rounding", "equalize", 20.0),
    one_large_weight_per_tensor: ("conv2", "weight rounding", "precision", 1.0),
    outlier_channel: ("conv2_act", "activation rounding", "equalize", 20.0),
    weights_changed_after_calibration: ("conv2", "weight clipping", "calibrate", 20.0),
    dead_relu: ("conv2_act", "dead channels", None, 0.0),
    softmax_at_four_bits: ("softmax", "activation rounding", "precision", 10.0),
    tiny_variances: ("depthwise", "weight rounding", "equalize", 15.0),
    concat_of_far_ranges: ("small", "shared grid", "equalize", 6.0),
    half_the_range: (None, "calibration range", "calibrate", 20.0),
    float_in_the_middle: ("conv2", "float", "precision", -3.0),
    bias_that_does_not_fit: ("conv2", "bias", "precision", 8.0),
}


@pytest.mark.filterwarnings("ignore::keras_edgeq.QuantizationWarning")
@pytest.mark.parametrize("plant", short(PLANTED, dead_relu, half_the_range))
def test_a_planted_fault_is_the_first_finding(plant):
    layer, cause, remedy, least = PLANTED[plant]
    finding, sim, data = plant()
    assert (finding.layer, finding.cause) == (layer or sim.input_names[0], cause), str(finding)
    assert finding.is_fault or plant is softmax_at_four_bits
    if remedy is None:
        with pytest.raises(eq.EdgeqError, match="No remedy is known"):
            finding.apply(sim, data)
        return
    assert finding.remedy.name == remedy, str(finding)
    before = [layer.get_weights() for layer in sim.layers]
    better = finding.apply(sim, data)
    assert sqnr_db(better, data) - sqnr_db(sim, data) >= least
    for old, layer in zip(before, sim.layers, strict=True):
        for one, other in zip(old, layer.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)


def sqnr_db(sim, data):
    """SQNR of a sim's outputs to those of its float model, by hand."""
    wanted, got = (np.asarray(m(data), np.float64) for m in (eq.strip(sim), sim))
    return 10 * np.log10(np.square(wanted).sum() / np.square(got - wanted).sum())


@pytest.mark.filterwarnings("ignore::keras_edgeq.QuantizationWarning")
def test_sums_beyond_the_accumulator_of_the_target_are_named():
    asked = {"verify": False, "progress": False}
    wide = eq.diagnose(
        eq.quantize(convnet(), images(), progress=False), images(), remedies=0, **asked
    )
    assert "accumulator overflow" not in [one.cause for one in wide.findings]
    most = max(one.accumulator for one in wide.weights)
    bits = int(np.log2(most)) + 1  # with a sign, half of what the largest sum takes
    profile = replace(load_profile("litert_int8"), name="narrow", accumulator_bits=bits)
    assert eq.TargetProfile.from_json(profile.to_json()) == profile
    narrow = eq.quantize(convnet(), images(), profile, progress=False)
    found = eq.diagnose(narrow, images(), remedies=1, **asked)
    limit = 2 ** (bits - 1) - 1
    too_far = [one.layer for one in wide.weights if one.accumulator > limit]
    named = [one for one in found.findings if one.cause == "accumulator overflow"]
    assert [one.layer for one in named] == too_far
    assert found.findings[0] is named[0]
    assert named[0].is_fault
    assert f"{bits} bits hold {limit:,}" in named[0].evidence
    better = eq.diagnose(named[0].apply(narrow, images()), images(), remedies=0, **asked)
    sums = {one.layer: one.accumulator for one in better.weights}
    assert sums.get(named[0].layer, 0.0) <= limit
