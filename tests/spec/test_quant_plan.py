import json

import pytest

from keras_edgeq.errors import ProfileError
from keras_edgeq.spec import QuantPlan, QuantSpec, TensorRef
from keras_edgeq.spec.quant_spec import BIAS_SPEC

CONV, POOL, CAT = TensorRef("conv"), TensorRef("pool"), TensorRef("cat", "input", index=1)
KERNEL, BIAS = (TensorRef("conv", "param", param=name) for name in ("kernel", "bias"))
PLAN = QuantPlan(
    {CONV: QuantSpec(), KERNEL: QuantSpec(4, symmetric=True, axes=(3,)), BIAS: BIAS_SPEC},
    {CAT: CONV},
    {POOL: CONV, TensorRef("split", call=1, index=2): CONV},
    {POOL: "half_away", CAT: "twice_away"},
    {"softmax": "no integer kernel"},
)


def test_a_plan_survives_json():
    assert QuantPlan.from_json(json.loads(json.dumps(PLAN.to_json()))) == PLAN


def test_a_plan_of_another_schema_is_refused():
    with pytest.raises(ProfileError, match="schema 2"):
        QuantPlan.from_json({**PLAN.to_json(), "schema": 2})


def test_the_owner_is_the_tensor_whose_grid_a_tensor_lies_on():
    assert PLAN.owner(CONV) == CONV
    assert PLAN.owner(CAT) == CONV
    assert PLAN.owner(POOL) == CONV
    assert PLAN.owner(TensorRef("unknown")) is None


def test_replacing_a_grid_leaves_the_plan_as_it_was():
    changed = PLAN.replace({CONV: QuantSpec(16)})
    assert changed.specs[CONV].bits == 16
    assert PLAN.specs[CONV].bits == 8
    assert changed.specs[KERNEL] == PLAN.specs[KERNEL]
    assert changed.shared == PLAN.shared


def test_replacing_the_grid_of_a_tensor_without_one_is_refused_by_name():
    with pytest.raises(ProfileError, match="pool"):
        PLAN.replace({POOL: QuantSpec(16)})


def test_sharing_a_grid_nobody_owns_is_refused_by_name():
    with pytest.raises(ProfileError, match="conv"):
        QuantPlan({}, {POOL: CONV})


def test_a_plan_cannot_be_changed_in_place():
    with pytest.raises(TypeError):
        PLAN.specs[CONV] = QuantSpec(4)
