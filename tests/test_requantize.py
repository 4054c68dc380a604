import numpy as np
import pytest
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import CalibrationDataError, ProfileError
from tests.harness import assert_same_arrays, assert_same_state, outputs, saved_and_loaded, snapshot
from tests.models import Input, train_like

L = tf_keras.layers


def build():
    x = Input((8, 8, 3), name="image")
    y = L.Conv2D(6, 3, activation="relu", name="conv1")(x)
    y = L.Conv2D(6, 3, activation="relu", name="conv2")(L.AveragePooling2D(name="pool")(y))
    y = L.Flatten(name="flat")(y)
    return train_like(tf_keras.Model(x, L.Dense(3, activation="softmax", name="head")(y)))


X = np.random.default_rng(0).normal(size=(48, 8, 8, 3)).astype(np.float32)


def quantized(**options):
    return eq.quantize(build(), X, progress=False, **options)


@pytest.fixture(scope="module")
def sim():
    return quantized()


def grids(sim):
    """Scale, zero point and bounds of every grid of a sim, by name."""
    found = {name: q.get_weights() for name, q in sim.quantizers().items()}
    for name, layer in sim.quantized_layers().items():
        found.update({f"{name}/{p}": q.get_weights() for p, q in layer.quantizers.items()})
    return found


def assert_same_grids(a, b, only=None):
    a, b = grids(a), grids(b)
    assert only is not None or set(a) == set(b)
    for name in only or a:
        assert_same_arrays(a[name], b[name])


ASKED = {
    "wide head": {"head": "W8A16"},
    "wide middle": {"conv2": "W8A16"},
    "all wide": {"*": "W8A16"},
}
OTHER_WEIGHTS = {"half": {"conv2": "FP16"}, "float": {"conv1": "FP32", "head": "W8A16"}}


@pytest.mark.parametrize("case", ASKED)
def test_other_activations_are_those_of_quantizing_anew(sim, case):
    anew = quantized(precision=ASKED[case])
    got = eq.requantize(sim, precision=ASKED[case])
    assert_same_grids(got, anew)
    assert_same_arrays(outputs(got, X[:8]), outputs(anew, X[:8]))
    assert got.record.plan == anew.record.plan
    assert got.record.precision == ASKED[case]


@pytest.mark.parametrize("case", OTHER_WEIGHTS)
def test_behind_other_weights_activations_are_about_those_of_quantizing_anew(sim, case):
    anew = quantized(precision=OTHER_WEIGHTS[case])
    got = eq.requantize(sim, precision=OTHER_WEIGHTS[case])
    assert got.record.plan == anew.record.plan
    for name, wanted in grids(anew).items():
        np.testing.assert_allclose(grids(got)[name][0], wanted[0], rtol=0.02)


def test_other_weights_are_those_of_quantizing_anew(sim):
    anew = quantized(precision={"conv*": "W4A8"})
    got = eq.requantize(sim, precision={"conv*": "W4A8"})
    only = ["conv1/kernel", "conv2/kernel", "head/kernel"]
    assert_same_grids(got, anew, only)
    bits = {name: layer.quantizers["kernel"].encoding.spec.bits
            for name, layer in got.quantized_layers().items()}  # fmt: skip
    assert bits == {"conv1": 4, "conv2": 4, "head": 8}


def test_grids_whose_settings_stay_are_kept_to_the_bit(sim):
    changed = eq.requantize(sim)
    learned = changed.quantizers()["conv1/relu"]
    learned.start.assign(learned.scale * 1.25)
    kernel = changed.quantized_layers()["conv1"].quantizers["kernel"]
    kernel.start.assign(kernel.scale * 0.75)
    got = eq.requantize(changed, precision={"head": "W8A16"})
    same = ["image", "conv1/relu", "conv2/relu", "conv1/kernel", "conv2/kernel", "head/kernel"]
    assert_same_grids(got, changed, same)
    assert {"head<0", "head"} & set(got.quantizers())


def test_asking_for_nothing_undoes_what_was_asked_for(sim):
    mixed = eq.requantize(sim, precision={"conv2": "W8A16", "head": "FP16"})
    back = eq.requantize(mixed, precision={})
    assert_same_grids(back, sim)
    assert_same_arrays(outputs(back, X[:8]), outputs(sim, X[:8]))


def test_without_arguments_what_was_asked_for_stays():
    asked = {"precision": {"head": "W8A16"}, "rules": {"activations": "minmax"}}
    sim = quantized(**asked)
    again = eq.requantize(sim)
    assert_same_grids(again, sim)
    assert again.record.precision == asked["precision"]
    assert again.record.rules == asked["rules"]


def test_another_profile_takes_the_same_statistics(sim):
    got = eq.requantize(sim, "litert_int8_per_tensor")
    assert got.record.profile.name == "litert_int8_per_tensor"
    assert_same_grids(got, sim, ["image", "conv1/relu", "conv2/relu"])
    kernel = got.quantized_layers()["conv1"].quantizers["kernel"]
    assert kernel.encoding.scale.shape == ()
    anew = quantized(profile="litert_int8_per_tensor")
    assert_same_grids(got, anew, ["conv1/kernel", "conv2/kernel", "head/kernel"])


@pytest.mark.parametrize("profile", ["litert_int16x8", "onnxruntime_int8", "qnn_w8a16", "qnn_fp16"])
def test_another_profile_gives_about_what_quantizing_for_it_gives(sim, profile):
    got, anew = eq.requantize(sim, profile), quantized(profile=profile)
    assert got.record.plan == anew.record.plan
    for a, b in zip(outputs(got, X), outputs(anew, X), strict=True):
        # A pool's grid comes from what it averages, not from averages: somewhat wider.
        np.testing.assert_allclose(a, b, atol=0.05)


def test_rules_are_changed_by_kind_and_by_glob(sim):
    got = eq.requantize(sim, rules={"activations": "minmax", "conv2/relu": "mse"})
    assert_same_grids(got, quantized(rules={"activations": "minmax", "conv2/relu": "mse"}))
    specs = {name: q.spec.rule for name, q in got.quantizers().items()}
    assert (specs["conv1/relu"], specs["conv2/relu"]) == ("minmax", "mse")
    low, high = X.min(), X.max()
    image = got.quantizers()["image"].encoding
    np.testing.assert_allclose([image.min, image.max], [low, high], atol=float(image.scale))
    assert_same_grids(got, sim, ["conv2/relu"])


def test_the_given_sim_is_not_changed(sim):
    before, record, stats = snapshot(sim), sim.record.to_json(), sim.stats
    eq.requantize(sim, "litert_int16x8", precision={"head": "FP16"}, rules={"weights": "octav"})
    assert_same_state(before, snapshot(sim))
    assert sim.record.to_json() == record
    assert sim.stats is stats


def test_weights_trained_since_are_kept(sim):
    trained = eq.requantize(sim)
    head = trained.quantized_layers()["head"].layer
    head.bias.assign(head.bias + 1.0)
    got = eq.requantize(trained, precision={"conv1": "W8A16"})
    np.testing.assert_array_equal(got.quantized_layers()["head"].layer.bias, head.bias)


def test_a_loaded_sim_is_requantized_as_the_one_that_was_saved(sim, tmp_path):
    eq.save_sim(sim, tmp_path / "sim.keras")
    got = eq.requantize(eq.load_sim(tmp_path / "sim.keras"), precision={"conv2": "W8A16"})
    assert_same_grids(got, eq.requantize(sim, precision={"conv2": "W8A16"}))


def test_without_statistics_the_way_to_them_is_named(sim):
    with pytest.raises(CalibrationDataError, match=r"no calibration statistics.*load_sim"):
        eq.requantize(saved_and_loaded(sim))


def test_tensors_the_statistics_lack_are_named():
    half = quantized(profile="litert_fp16")
    with pytest.raises(CalibrationDataError, match=r"lack image, conv1/relu.*calibrate with data"):
        eq.requantize(half, "litert_int8")


@pytest.mark.parametrize(("options", "words"), [
    ({"precision": {"body": "FP16"}}, "No layer matches 'body'"),
    ({"precision": {"head": "W1A1"}}, "no precision 'W1A1'"),
    ({"rules": {"body": "mse"}}, "'body'.*no calibrated grid"),
    ({"rules": {"activations": "best"}}, "'best' is not one of"),
    ({"profile": "nowhere"}, "Unknown profile 'nowhere'"),
])  # fmt: skip
def test_names_that_mean_nothing_are_refused(sim, options, words):
    with pytest.raises(ProfileError, match=words):
        eq.requantize(sim, **options)
