import pytest

from keras_edgeq.spec.tensor_ref import TensorRef, part_name

PRINTED = {
    "conv1": TensorRef("conv1"),
    "conv1@1": TensorRef("conv1", call=1),
    "split:1": TensorRef("split", index=1),
    "split@2:1": TensorRef("split", call=2, index=1),
    "concat<1": TensorRef("concat", "input", index=1),
    "concat<0": TensorRef("concat", "input"),
    "concat@3<10": TensorRef("concat", "input", call=3, index=10),
    "encoder/dense/kernel": TensorRef("encoder/dense", "param", param="kernel"),
    "tf.__operators__.add_12": TensorRef("tf.__operators__.add_12"),
    "conv2d_1@11": TensorRef("conv2d_1", call=11),
}


@pytest.mark.parametrize("text", PRINTED)
def test_a_reference_prints_and_reads_back(text):
    ref = PRINTED[text]
    assert str(ref) == text
    assert TensorRef.parse(text, ref.kind) == ref


def test_references_are_keys_and_sort():
    refs = [TensorRef("b"), TensorRef("a", call=1), TensorRef("a")]
    assert sorted(refs) == [TensorRef("a"), TensorRef("a", call=1), TensorRef("b")]
    assert {TensorRef("a"): 1}[TensorRef.parse("a", "output")] == 1


@pytest.mark.parametrize("fields", [
    {"kind": "weight"}, {"kind": "param"}, {"kind": "output", "param": "kernel"},
])  # fmt: skip
def test_an_impossible_reference_is_refused(fields):
    with pytest.raises(ValueError, match="TensorRef"):
        TensorRef("conv", **fields)


@pytest.mark.parametrize(("layer", "part", "name"), [
    ("conv", "relu", "conv/relu"),
    ("relu", "relu", "relu/relu_part"),
    ("relu/conv", "relu", "relu/conv/relu_part"),
    ("block/relu", "relu", "block/relu/relu"),
])  # fmt: skip
def test_parts_are_named_by_their_layer_and_never_as_its_weight_group(layer, part, name):
    assert part_name(layer, part) == name
