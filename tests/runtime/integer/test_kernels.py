"""Every kernel of the executor computes the integers of LiteRT's kernels, bit for bit."""

import numpy as np
import pytest

from keras_edgeq.runtime.integer import IntegerModel
from keras_edgeq.runtime.litert import LiteRtModel
from tests.runtime.integer.cases import CASES, WIDE

SEEDS = range(4)
SAME_ARITHMETIC = [("builtin", "fixed_point"), ("xnnpack", "xnnpack_float")]


def assert_same(make, kernels, arithmetic):
    for seed in SEEDS:
        content, inputs = make(np.random.default_rng(seed))
        runtime = LiteRtModel(content, kernels)
        theirs = runtime.run(inputs, list(runtime.inputs))
        ours = IntegerModel(content, arithmetic).run(inputs, list(runtime.inputs))
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            assert ours[name].dtype == value.dtype
            np.testing.assert_array_equal(ours[name], value)


@pytest.mark.parametrize(("kernels", "arithmetic"), SAME_ARITHMETIC)
@pytest.mark.parametrize("case", CASES)
def test_an_int8_operation_is_bit_identical(case, kernels, arithmetic):
    assert_same(CASES[case], kernels, arithmetic)


@pytest.mark.parametrize(("kernels", "arithmetic"), SAME_ARITHMETIC)
@pytest.mark.parametrize("case", WIDE)
def test_an_int16_operation_is_bit_identical(case, kernels, arithmetic):
    assert_same(WIDE[case], kernels, arithmetic)


def test_the_two_arithmetics_differ_where_the_runtimes_do():
    content, inputs = CASES["conv 1x1, batch 4"](np.random.default_rng(0))
    made = [IntegerModel(content, a).run(inputs, ["in0"])["out0"] for _, a in SAME_ARITHMETIC]
    steps = np.abs(made[0].astype(int) - made[1])
    assert 0 < np.count_nonzero(steps) < steps.size // 100
    assert steps.max() == 1


@pytest.mark.parametrize("case", ["relu", "relu6", "leaky relu", "prelu"])
def test_with_a_single_rounding_each_integer_is_next_to_the_real_number(case):
    for seed in SEEDS:
        content, inputs = CASES[case](np.random.default_rng(seed))
        model = IntegerModel(content, "single_rounding")
        once = model.run(inputs, list(model.inputs))["out0"].astype(int)
        for arithmetic in ("fixed_point", "xnnpack_float"):
            twice = IntegerModel(content, arithmetic).run(inputs, list(model.inputs))["out0"]
            assert np.abs(once - twice).max() <= 1
    x, out = (next(iter(side.values())) for side in (model.inputs, model.outputs))
    if case in ("relu", "relu6"):
        (s, z), (t, w) = x["quantization"], out["quantization"]
        real = np.clip(
            (inputs[0].astype(int) - z) * np.float64(s), 0, 6 if case == "relu6" else None
        )
        exact = np.clip(real / t + w, -128, 127)
        assert np.abs(once - exact).max() <= 0.5 + 1e-4


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_the_mean_of_an_image_depends_on_the_threads(threads):
    content, inputs = CASES["mean 40 channels"](np.random.default_rng(1))
    theirs = LiteRtModel(content, "builtin", threads=threads).run(inputs, ["in0"])
    ours = IntegerModel(content, threads=threads).run(inputs, ["in0"])
    np.testing.assert_array_equal(ours["out0"], theirs["out0"])
