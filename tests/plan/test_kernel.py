import json

import pytest

from keras_edgeq.errors import ProfileError
from keras_edgeq.plan.kernel import (
    Kernel,
    kernels_from_json,
    kernels_to_json,
    matching,
    parents_first,
    precisions_of,
)

WEIGHTED = {"W8A8": (8, 8), "W4A8": (4, 8), "W8A16": (8, 16), "FP16": (None, None)}
WEIGHTLESS = {"W8A8": (None, 8), "W4A8": (None, 8), "W8A16": (None, 16), "FP16": (None, None)}
CONV = Kernel("Conv2D", "W8A8", WEIGHTED, parts=("conv/relu", "bounded"), ends=("input",))
ADD = Kernel("Add", "W4A8", WEIGHTLESS)
KERNELS = {
    "enc/conv": CONV,
    "sum": ADD,
    "head": Kernel("Dense", "W8A16", WEIGHTED, (), ("output",)),
}


@pytest.mark.parametrize(("pattern", "layers"), [
    ("enc/conv", ["enc/conv"]),
    ("enc", ["enc/conv"]),
    ("*", ["enc/conv", "sum", "head"]),
    ("bound*", ["enc/conv"]),
    ("Conv2D", ["enc/conv"]),
    ("Add", ["sum"]),
    ("input", ["enc/conv"]),
    ("output", ["head"]),
])  # fmt: skip
def test_a_pattern_is_a_name_a_nested_model_a_glob_an_operation_or_an_end(pattern, layers):
    assert matching(KERNELS, pattern, {}) == layers


def test_a_pattern_that_matches_nothing_is_answered_with_what_there_is():
    words = r"'conv2d'.*enc/conv, sum, head.*Conv2D, Add, Dense.*\"input\""
    with pytest.raises(ProfileError, match=words):
        matching(KERNELS, "conv2d", {})


def test_a_layer_that_stays_float_is_answered_with_the_reason():
    with pytest.raises(ProfileError, match="stay float: 'erf': no integer kernel"):
        matching(KERNELS, "er*", {"erf": "no integer kernel"})


@pytest.mark.parametrize(("kernel", "now", "bits", "precision"), [
    (CONV, "W8A8", (4, 8), "W4A8"),
    (CONV, "W8A8", (4, None), "W4A8"),
    (CONV, "W8A8", (None, 16), "W8A16"),
    (CONV, "W4A8", (8, None), "W8A8"),
    (CONV, "FP16", (8, 16), "W8A16"),
    (ADD, "W4A8", (4, 16), "W8A16"),
    (ADD, "W4A8", (None, 8), "W4A8"),
    (ADD, "W8A16", (None, 8), "W8A8"),
])  # fmt: skip
def test_bits_choose_a_precision_and_keep_what_is_not_given(kernel, now, bits, precision):
    assert kernel.of_bits("layer", now, *bits) == precision


@pytest.mark.parametrize(("now", "bits"), [
    ("W8A8", (3, 8)), ("W8A16", (4, None)), ("FP16", (4, None)), ("W8A8", (16, 16)),
    ("W8A8", ("float16", None)), ("FP16", (None, 16)),
])  # fmt: skip
def test_bits_without_a_kernel_are_answered_with_those_there_are(now, bits):
    words = r"Layer 'stem'.*Conv2D; it has W8A8 \(8, 8\), W4A8 \(4, 8\).*FP16 \(float\)"
    with pytest.raises(ProfileError, match=words):
        CONV.of_bits("stem", now, *bits)


def test_a_precision_without_a_kernel_is_answered_with_those_there_are():
    assert CONV.named("stem", "FP16") == "FP16"
    with pytest.raises(ProfileError, match=r"'stem' was asked for W2A8.*W8A16 \(8, 16\)"):
        CONV.named("stem", "W2A8")


def test_kernels_survive_json_with_the_order_of_what_is_allowed():
    got = kernels_from_json(json.loads(json.dumps(kernels_to_json(KERNELS))))
    assert got == KERNELS
    assert list(got) == list(KERNELS)
    assert list(got["sum"].allowed) == list(WEIGHTLESS)
    assert len(kernels_to_json(KERNELS)["allowed"]) == 2


def test_a_layer_comes_behind_what_it_is_a_part_of():
    names = parents_first({"two/deep/x": "a", "two/deep": "b", "two": "c", "one": "d"})
    assert list(names) == ["two", "one", "two/deep", "two/deep/x"]


def test_what_has_to_be_asked_for_is_what_the_profile_would_not_give():
    assert precisions_of(KERNELS) == {"sum": "W4A8", "head": "W8A16"}
    inner, outer = Kernel("Dense", "W8A8", WEIGHTED), Kernel("Dense", "W8A16", WEIGHTED)
    assert precisions_of({"two/deep": inner, "two": outer}) == {"two": "W8A16", "two/deep": "W8A8"}
    assert precisions_of({"two/deep": outer, "two": outer}) == {"two": "W8A16"}
