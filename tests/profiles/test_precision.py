import json

import pytest

from keras_edgeq.errors import ProfileError
from keras_edgeq.profiles import TargetProfile, load_profile
from keras_edgeq.profiles.precision import FLOAT_PRECISION, OpRule, Precision, own_name
from keras_edgeq.spec import QuantSpec
from keras_edgeq.spec.quant_spec import BIAS_SPEC, HALF, WIDE_BIAS_SPEC

W8A8 = Precision("W8A8", QuantSpec(), QuantSpec(symmetric=True), "int32", {"Softmax": (0.0, 1.0)})
CASES = {
    "integer": W8A8,
    "wide": Precision("W8A16", QuantSpec(16, symmetric=True), QuantSpec(), "int64"),
    "half": Precision("FP16", HALF, HALF, "half"),
    "float activations": Precision("FP16", None, HALF, "half"),
    "weights only": Precision("W8FP32", None, QuantSpec(symmetric=True), "float"),
}
RULES = {
    "nothing": OpRule(),
    "precisions": OpRule(precisions=("W8A8", "FP16")),
    "grids": OpRule(activation={"symmetric": True}, weight={"bits": 4, "signed": None}),
    "fixed": OpRule(fixed_range=(-1.0, 1.0)),
    "left float": OpRule(output=False, weights=False),
}


@pytest.mark.parametrize("case", CASES)
def test_a_precision_survives_json_whatever_the_profiles_own_is(case):
    wanted = CASES[case]
    data = json.loads(json.dumps(wanted.to_json()))
    assert Precision.from_json(wanted.name, data, W8A8) == wanted


def test_what_an_entry_leaves_out_is_that_of_the_profiles_own_precision():
    got = Precision.from_json("W4A8", {"weight": {"bits": 4, "symmetric": True}}, W8A8)
    assert got == Precision(
        "W4A8", QuantSpec(), QuantSpec(4, symmetric=True), "int32", {"Softmax": (0.0, 1.0)}
    )
    assert Precision.from_json("FP32", {"activation": None}, W8A8).activation is None


@pytest.mark.parametrize(("bias", "spec"), [
    ("int32", BIAS_SPEC), ("int64", WIDE_BIAS_SPEC), ("half", HALF), ("float", None),
])  # fmt: skip
def test_the_bias_has_the_grid_of_its_name(bias, spec):
    assert Precision("W8A8", QuantSpec(), QuantSpec(), bias).bias_spec == spec


def test_only_grids_of_integers_compute_in_integers():
    assert [CASES[case].is_integer for case in CASES] == [True, True, False, False, False]
    assert not FLOAT_PRECISION.is_integer


def test_ranges_of_a_precision_cannot_be_changed():
    with pytest.raises(TypeError):
        W8A8.fixed_ranges["Tanh"] = (-1.0, 1.0)


@pytest.mark.parametrize(("activation", "weight", "name"), [
    (QuantSpec(8), QuantSpec(4), "W4A8"),
    (QuantSpec(16), QuantSpec(8), "W8A16"),
    (HALF, HALF, "FP16"),
    (None, HALF, "FP16"),
])  # fmt: skip
def test_a_profiles_own_precision_is_named_by_its_widths(activation, weight, name):
    assert own_name(activation, weight) == name


@pytest.mark.parametrize(("activation", "weight"), [
    (HALF, QuantSpec()), (QuantSpec(), HALF), (None, QuantSpec()),
])  # fmt: skip
def test_a_profiles_own_precision_is_integer_or_half_on_both_sides(activation, weight):
    with pytest.raises(ProfileError, match="integer or half on both sides"):
        own_name(activation, weight)


@pytest.mark.parametrize("case", RULES)
def test_a_rule_survives_json(case):
    assert OpRule.from_json(json.loads(json.dumps(RULES[case].to_json()))) == RULES[case]


def test_a_rule_that_says_nothing_writes_nothing():
    assert OpRule().to_json() == {}


def with_rule(op, rule, **fields):
    return {**load_profile("litert_int8").to_json(), **fields, "ops": {op: rule}}


CONFLICTS = {
    "unknown precision": (
        "Conv2D",
        {"precisions": ["W2A2"]},
        "ops/Conv2D/precisions.*'W2A2'.*W8A8",
    ),
    "grid of a mover": ("Reshape", {"activation": {"symmetric": True}}, "ops/Reshape.*same_grid"),
    "range of a mover": ("MaxPool", {"fixed_range": [0, 1]}, "ops/MaxPool.*same_grid"),
    "range of a regrid": ("AveragePool", {"fixed_range": [0, 1]}, "ops/AveragePool.*regrid"),
    "range of no output": ("Add", {"output": False, "fixed_range": [0, 1]}, "ops/Add leaves"),
    "grid of no output": ("Add", {"output": False, "activation": {"bits": 16}}, "ops/Add leaves"),
}


@pytest.mark.parametrize("case", CONFLICTS)
def test_two_rules_that_contradict_each_other_are_both_named(case):
    op, rule, words = CONFLICTS[case]
    with pytest.raises(ProfileError, match=words) as caught:
        TargetProfile.from_json(with_rule(op, rule))
    assert "conflict" in str(caught.value)


def test_a_rule_orders_the_precisions_of_its_operation():
    profile = TargetProfile.from_json(with_rule("Softmax", {"precisions": ["FP16", "W8A8"]}))
    assert profile.allowed("Softmax") == ("FP16", "W8A8", "W8", "W4", "FP32")
    assert profile.allowed("Conv2D") == profile.precision_names
    assert profile.precision_names[0] == profile.own.name == "W8A8"


def test_an_unknown_precision_is_answered_with_the_known_ones():
    with pytest.raises(ProfileError, match=r"'litert_int8'.*'W3A3'.*W8A8, W4A8"):
        load_profile("litert_int8").precision("W3A3")


def test_float_is_a_precision_of_every_target():
    assert load_profile("tensorrt_int8").precision("FP32") == FLOAT_PRECISION
