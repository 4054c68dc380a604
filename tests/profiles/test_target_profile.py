import json

import pytest

from keras_edgeq.errors import ProfileError
from keras_edgeq.ops.table import OPS
from keras_edgeq.profiles import TargetProfile, load_profile, profile_names


def changed(**fields):
    return {**load_profile("litert_int8").to_json(), **fields}


def without(field):
    data = changed()
    del data[field]
    return data


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "mine.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
        return path

    return write


def test_the_built_in_profiles_are_listed():
    assert profile_names() == [
        "aimet_default", "aimet_per_channel", "litert_fp16", "litert_int16x8", "litert_int8",
        "litert_int8_per_tensor", "litert_w4a8", "onnxruntime_int8", "qnn_fp16", "qnn_w4a8",
        "qnn_w8a16", "qnn_w8a8", "snpe_w8a8", "tensorrt_int8", "tflite_micro_int8",
    ]  # fmt: skip


@pytest.mark.parametrize("name", profile_names())
def test_a_built_in_profile_is_valid_and_survives_json(name):
    profile = load_profile(name)
    assert profile.name == name
    assert TargetProfile.from_json(json.loads(json.dumps(profile.to_json()))) == profile


@pytest.mark.parametrize("name", profile_names())
def test_a_built_in_profile_names_only_operations_that_exist(name):
    profile = load_profile(name)
    in_chains = {op for chain in profile.fused for op in chain}
    assert profile.quantized - {"*"} <= set(OPS)
    named = profile.per_channel | profile.same_grid | set(profile.regrid) | in_chains
    assert all(profile.computes(op) for op in named | set(profile.fixed_ranges))
    assert named <= set(OPS) | {"CappedRelu"}


@pytest.mark.parametrize("name", profile_names())
def test_every_precision_of_a_built_in_profile_can_be_had(name):
    profile = load_profile(name)
    for precision in profile.precision_names:
        assert profile.precision(precision).name == precision
    for op in profile.ops:
        assert set(profile.allowed(op)) <= set(profile.precision_names)


def test_a_profiles_activations_may_be_float_beside_half_weights():
    profile = load_profile("litert_fp16")
    assert profile.activation is None
    assert profile.own.name == "FP16"
    assert profile.weight.is_half


def test_a_profile_is_taken_as_given():
    profile = load_profile("qnn_w8a8")
    assert load_profile(profile) is profile


@pytest.mark.parametrize("as_text", [True, False])
def test_a_users_file_is_read_by_path(write, as_text):
    path = write(changed(name="mine", activation={"bits": 16, "symmetric": True}))
    profile = load_profile(str(path) if as_text else path)
    assert profile.name == "mine"
    assert profile.activation.bits == 16


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ProfileError, match=r"'litert_int9'.*litert_int8"):
        load_profile("litert_int9")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ProfileError, match=r"gone\.json"):
        load_profile(tmp_path / "gone.json")


@pytest.mark.parametrize("content", ["", "{", "\x00", "[" * 100_000])
def test_a_broken_file_is_named(write, content):
    with pytest.raises(ProfileError, match=r"mine\.json is not JSON"):
        load_profile(write(content))


def test_a_file_that_is_not_text_is_named(tmp_path):
    path = tmp_path / "mine.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProfileError, match=r"mine\.json is not JSON"):
        load_profile(path)


def test_a_huge_file_is_not_read(write):
    with pytest.raises(ProfileError, match="larger than"):
        load_profile(write(" " * 1_000_001))


WRONG = {
    "no object": ([], "top level"),
    "newer schema": (changed(schema=2), "schema"),
    "missing field": (without("weight"), "weight"),
    "unknown field": (changed(speed=1), "speed"),
    "unknown bias": (changed(bias="int16"), "bias"),
    "unknown spec field": (changed(weight={"bit": 8}), "weight"),
    "too many bits": (changed(weight={"bits": 32}), "weight/bits"),
    "text for a number": (changed(weight={"bits": "8"}), "weight/bits"),
    "narrow unsigned": (changed(weight={"narrow_range": True, "signed": False}), "narrow_range"),
    "range of three": (changed(fixed_ranges={"Softmax": [0, 1, 2]}), "fixed_ranges/Softmax"),
    "unknown rounding": (changed(regrid={"Mean": "up"}), "regrid/Mean"),
    "chain of one": (changed(fused=[["Conv2D"]]), "fused/0"),
    "unknown format": (changed(formats=["exe"]), "formats/0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_profile_is_refused_with_the_place(write, case):
    data, place = WRONG[case]
    with pytest.raises(ProfileError, match=place):
        load_profile(write(data))


def test_names_of_earlier_versions_are_read_and_said():
    data = changed()
    data["quantized"] = [*data["quantized"], "tf.nn.elu"]
    data["ops"] = {**data["ops"], "ThresholdedReLU": {"output": False}}
    with pytest.warns(DeprecationWarning, match="'tf.nn.elu' is 'Elu' now"):
        profile = TargetProfile.from_json(data)
    assert profile.computes("Elu")
    assert "ThresholdedRelu" in profile.ops
