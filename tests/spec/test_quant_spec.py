import json

import pytest

from keras_edgeq.errors import ProfileError
from keras_edgeq.spec import QuantSpec
from keras_edgeq.spec.quant_spec import BIAS_SPEC

SPECS = [
    QuantSpec(),
    QuantSpec(4, symmetric=True, narrow_range=True, axes=(3,)),
    QuantSpec(16, signed=None, symmetric=True, rule="mse"),
    QuantSpec(2, signed=False, rule="percentile", percentile=99.0),
    QuantSpec(fixed_range=(0.0, 0.99609375)),
    QuantSpec(axes=(2, 3)),
    BIAS_SPEC,
]
WRONG = {
    "bits too few": ({"bits": 1}, "bits is 1"),
    "bits too many": ({"bits": 17}, "bits is 17"),
    "32 bits without a bias": ({"bits": 32}, "bits is 32"),
    "a bias of 8 bits": ({"bits": 8, "rule": "derived"}, "bits is 8"),
    "unknown rule": ({"rule": "max"}, "'max'"),
    "percentile low": ({"percentile": 50.0}, "50"),
    "percentile high": ({"percentile": 100.1}, "100.1"),
    "percentile NaN": ({"percentile": float("nan")}, "nan"),
    "narrow unsigned": ({"narrow_range": True, "signed": False}, "narrow_range"),
    "narrow undecided": ({"narrow_range": True, "signed": None}, "narrow_range"),
    "range without zero": ({"fixed_range": (1.0, 2.0)}, "fixed_range"),
    "range empty": ({"fixed_range": (0.0, 0.0)}, "fixed_range"),
    "range reversed": ({"fixed_range": (1.0, -1.0)}, "fixed_range"),
    "range NaN": ({"fixed_range": (float("nan"), 1.0)}, "fixed_range"),
}


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_spec_survives_json(spec):
    assert QuantSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_json_leaves_defaults_out():
    assert QuantSpec().to_json() == {}
    assert QuantSpec(bits=4).to_json() == {"bits": 4}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_spec_is_refused_with_the_value(case):
    fields, message = WRONG[case]
    with pytest.raises(ProfileError, match=message):
        QuantSpec(**fields)


def test_an_unknown_field_is_refused_with_the_allowed_ones():
    with pytest.raises(ProfileError, match=r"'bit'.*bits"):
        QuantSpec.from_json({"bit": 8})


def test_a_spec_is_frozen_and_hashable():
    assert len({QuantSpec(), QuantSpec(), QuantSpec(4)}) == 2
    with pytest.raises(AttributeError):
        QuantSpec().bits = 4
