"""A profile may say only what differs from another one."""

import json

import pytest

import keras_edgeq as eq
from keras_edgeq.errors import ProfileError, QuantizationWarning
from keras_edgeq.ops.table import OPS
from keras_edgeq.profiles.extends import packaged, whole

OWN = {"schema": 1, "name": "mine", "description": "Mine.", "extends": "litert_int8"}


def written(folder, name="mine", **changes):
    path = folder / f"{name}.json"
    path.write_text(json.dumps({**OWN, "name": name, **changes}), encoding="utf-8")
    return path


def test_a_profile_is_the_other_one_but_for_what_it_says(tmp_path):
    base = eq.load_profile("litert_int8")
    weight = {"bits": 4, "symmetric": True}
    rules = {"PRelu": None, "Softmax": {"precisions": ["FP16"]}}
    mine = eq.load_profile(written(tmp_path, weight=weight, ops=rules, formats=["tflite"]))
    assert (mine.name, mine.weight.bits, mine.formats) == ("mine", 4, ("tflite",))
    assert mine.activation == base.activation
    assert set(mine.ops) == {*base.ops, "Softmax"} - {"PRelu"}
    assert mine.quantized == base.quantized


def test_a_profile_extends_a_file_beside_it(tmp_path):
    written(tmp_path, "first", fixed_ranges={"Tanh": [-2.0, 2.0]})
    second = eq.load_profile(written(tmp_path, "second", extends="first.json", bias="float"))
    assert second.fixed_ranges["Tanh"] == (-2.0, 2.0)
    assert second.fixed_ranges["Softmax"] == eq.load_profile("litert_int8").fixed_ranges["Softmax"]
    assert second.bias == "float"


def test_what_cannot_be_extended_is_said(tmp_path):
    with pytest.raises(ProfileError, match=r"extends 'litert_in8'.*Did you mean 'litert_int8'"):
        eq.load_profile(written(tmp_path, extends="litert_in8"))
    with pytest.raises(ProfileError, match="nor a built-in profile"):
        eq.TargetProfile.from_json({**OWN, "extends": "first.json"})
    with pytest.raises(ProfileError, match="nor a built-in profile"):
        eq.TargetProfile.from_json({**OWN, "extends": 3})
    written(tmp_path, "one", extends="two.json")
    written(tmp_path, "two", extends="one.json")
    with pytest.raises(ProfileError, match="extends a profile that extends it"):
        eq.load_profile(tmp_path / "one.json")
    with pytest.raises(ProfileError, match="is not a valid profile: at bias"):
        eq.load_profile(written(tmp_path, bias="int33"))


@pytest.mark.parametrize("name", eq.profile_names())
def test_built_in_profiles_pass_the_check_of_users_files(name, recwarn):
    data = whole(packaged(f"{name}.json"), name)
    assert eq.TargetProfile.from_json(data) == eq.load_profile(name)
    assert not recwarn.list


def test_the_schema_lists_the_operations_of_the_table():
    assert packaged("profile.schema.json")["$defs"]["operation"]["examples"] == sorted(OPS)


def test_a_name_that_is_nearly_an_operation_is_warned_of(tmp_path):
    with pytest.warns(QuantizationWarning, match="'Conv2d' is not an operation.*'Conv2D'"):
        eq.load_profile(written(tmp_path, per_channel=["Conv2d"]))
    eq.load_profile(written(tmp_path, quantized=["MyOwnLayer", "Conv2D"]))  # a class of the user's
