from dataclasses import replace

from keras_edgeq.plan import QuantPlan
from keras_edgeq.plan.kernel import Kernel
from keras_edgeq.plan.plan_diff import Change
from keras_edgeq.spec import QuantSpec, TensorRef
from keras_edgeq.spec.quant_spec import HALF

CONV, POOL, EDGE = TensorRef("conv"), TensorRef("pool"), TensorRef("head", "input")
ALLOWED = {"W8A8": (8, 8), "W8A16": (8, 16)}
PLAN = QuantPlan(
    {CONV: QuantSpec()}, carriers={POOL: CONV}, kernels={"conv": Kernel("Conv2D", "W8A8", ALLOWED)}
)
WIDE = replace(
    PLAN,
    specs={CONV: QuantSpec(16, symmetric=True), EDGE: QuantSpec()},
    kernels={"conv": Kernel("Conv2D", "W8A16", ALLOWED)},
)


def test_a_plan_does_not_differ_from_itself():
    assert not PLAN.diff(PLAN)
    assert str(PLAN.diff(PLAN)) == "no difference"


def test_tensors_tell_their_grids_and_why_they_changed():
    diff = PLAN.diff(WIDE)
    assert diff.layers == (Change("conv", "W8A8", "W8A16"),)
    assert diff.tensors == (
        Change("conv", "int8", "int16"),
        Change("head<0", "as made", "int8", "quantized again for head"),
        Change("pool", "int8", "int16", "on the grid of conv"),
    )


def test_the_way_back_is_the_same_in_reverse():
    forth, back = PLAN.diff(WIDE), WIDE.diff(PLAN)
    assert back
    pairs = {(c.name, c.after, c.before) for c in back.tensors}
    assert pairs == {(c.name, c.before, c.after) for c in forth.tensors}
    assert back.tensors[-1].why == "head reads it as made"


def test_what_is_asked_for_is_told_before_it_is_resolved():
    diff = PLAN.diff(PLAN.with_bits("conv", activations=16))
    assert diff.layers == (Change("conv", "W8A8", "W8A16", "asked for"),)
    assert diff.tensors == ()


def test_grids_of_the_same_bits_are_told_apart_by_what_differs():
    diff = PLAN.diff(PLAN.with_rules({"conv": "entropy"}))
    assert diff.tensors[0] == Change("conv", "int8 rule=minmax", "int8 rule=entropy")


def test_half_and_float_are_called_so():
    diff = PLAN.diff(replace(PLAN, specs={CONV: HALF}))
    assert diff.tensors[0] == Change("conv", "int8", "float16")
    gone = replace(PLAN, specs={}, carriers={})
    assert [c.after for c in PLAN.diff(gone).tensors] == ["float", "float"]


def test_it_prints_as_tables():
    assert str(PLAN.diff(WIDE)).splitlines() == [
        "layer  before  after",
        "conv   W8A8    W8A16",
        "",
        "tensor  before   after",
        "conv    int8     int16",
        "head<0  as made  int8   quantized again for head",
        "pool    int8     int16  on the grid of conv",
    ]
