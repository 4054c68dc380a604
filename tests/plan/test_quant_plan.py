import json
from dataclasses import replace

import pytest

from keras_edgeq.errors import ProfileError
from keras_edgeq.plan import QuantPlan
from keras_edgeq.plan.kernel import Kernel
from keras_edgeq.spec import QuantSpec, TensorRef
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

BITS = {"W8A8": (8, 8), "W4A8": (4, 8), "W8A16": (8, 16), "W4A16": (4, 16), "FP16": (None, None)}
ADD_BITS = {name: (None, activations) for name, (_, activations) in BITS.items()}
CHOOSABLE = replace(
    PLAN, kernels={"conv": Kernel("Conv2D", "W8A8", BITS), "add": Kernel("Add", "W8A8", ADD_BITS)}
)


def test_a_plan_survives_json():
    for plan in (PLAN, CHOOSABLE, CHOOSABLE.with_bits("conv", weights=4)):
        assert QuantPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_a_plan_from_before_kernels_were_kept_is_read_and_has_none_to_choose():
    data = {k: v for k, v in PLAN.to_json().items() if k not in ("kernels", "asked")}
    old = QuantPlan.from_json(data)
    assert old == PLAN
    with pytest.raises(ProfileError, match="earlier version"):
        old.with_bits("conv", weights=4)


def test_bits_are_asked_for_and_the_grids_wait():
    asking = CHOOSABLE.with_bits("*", weights=4, activations=16)
    assert asking.asked == {"conv": "W4A16", "add": "W8A16"}
    assert asking.specs == CHOOSABLE.specs
    assert CHOOSABLE.asked == {}


def test_layers_without_weights_keep_their_precision_where_only_weights_change():
    assert CHOOSABLE.with_bits("*", weights=4).asked == {"conv": "W4A8"}


def test_later_bits_start_from_those_asked_for_before():
    asking = CHOOSABLE.with_bits("conv", weights=4).with_bits("Conv2D", activations=16)
    assert asking.asked == {"conv": "W4A16"}
    assert asking.with_bits("conv", precision="FP16").asked == {"conv": "FP16"}


@pytest.mark.parametrize(("patterns", "options", "words"), [
    ((), {"weights": 4}, "takes patterns"),
    (("conv",), {}, "takes patterns"),
    (("conv",), {"weights": 4, "precision": "W4A8"}, "takes patterns"),
    (("conv", "pool"), {"weights": 4}, "No layer matches 'pool'.*conv, add"),
    (("softmax",), {"weights": 4}, "'softmax': no integer kernel"),
    (("add",), {"weights": 4}, "add name no layer with weights"),
    (("conv",), {"weights": 3}, "'conv' was asked for weights=3.*W8A8 now"),
    (("add",), {"activations": 4}, "'add' was asked for activations=4.*activations 16"),
    (("conv",), {"precision": "W2A8"}, "'conv' was asked for W2A8"),
])  # fmt: skip
def test_bits_that_cannot_be_are_refused_with_what_can(patterns, options, words):
    with pytest.raises(ProfileError, match=words):
        CHOOSABLE.with_bits(*patterns, **options)


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
