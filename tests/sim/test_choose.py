from dataclasses import replace

import pytest
import tf_keras

from keras_edgeq.errors import ProfileError
from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.prepare import prepare
from keras_edgeq.profiles import load_profile
from keras_edgeq.profiles.precision import OpRule
from keras_edgeq.sim.choose import choose_precisions
from tests.models import Input, make

L = tf_keras.layers
LITERT = load_profile("litert_int8")


def names(model, asked, profile=LITERT, chains=()):
    """Precision of each layer by name; chains are names of fused layers, the first one's first."""
    graph = LayerGraph.of(prepare(make(model) if isinstance(model, str) else model))
    nodes = {node.layer.name: node for node in graph.nodes}
    behind = {id(nodes[head]): [nodes[name] for name in parts] for head, *parts in chains}
    chosen = choose_precisions(graph, profile, asked, behind)
    return {node.layer.name: chosen[id(node)].name for node in graph.nodes}


def line():
    """A convolution, layers that move or average, and two dense layers."""
    x = Input((8, 8, 2), name="image")
    y = L.Conv2D(4, 3, name="conv")(x)
    y = L.MaxPooling2D(name="max")(y)
    y = L.AveragePooling2D(name="average")(y)
    y = L.Flatten(name="flat")(L.Dropout(0.1, name="drop")(y))
    y = L.Dense(4, name="hidden")(y)
    return tf_keras.Model(x, L.Dense(2, name="head")(y))


def test_unasked_every_layer_computes_in_the_profiles_own():
    assert set(names(line(), {}).values()) == {"W8A8"}


def test_a_glob_chooses_the_layers_it_matches():
    got = names(line(), {"h*": "W4A8"})
    assert {name for name, precision in got.items() if precision == "W4A8"} == {"hidden", "head"}


def test_the_last_glob_that_matches_counts():
    got = names(line(), {"*": "W8A16", "head": "FP16", "hid*": "W4A16"})
    assert (got["conv"], got["hidden"], got["head"]) == ("W8A16", "W4A16", "FP16")
    assert names(line(), {"head": "FP16", "*": "W8A16"})["head"] == "W8A16"


def test_the_name_of_a_nested_model_stands_for_the_layers_inside():
    got = names("nested_same_names", {"left": "W8A16"})
    assert (got["left/dense"], got["right/dense"], got["dense"]) == ("W8A16", "W8A8", "W8A8")
    got = names("nested_same_names", {"*/dense": "W4A8"})
    assert (got["left/dense"], got["right/dense"], got["dense"]) == ("W4A8", "W4A8", "W8A8")


def test_the_name_of_a_layer_stands_for_its_activation():
    got = names("sequential", {"conv": "W8A16"})
    assert (got["conv"], got["conv/relu"], got["head"]) == ("W8A16", "W8A16", "W8A8")


def test_a_fused_chain_follows_its_head():
    chain = [("conv", "conv/relu")]
    got = names("sequential", {"conv/relu": "FP16"}, chains=chain)
    assert (got["conv"], got["conv/relu"]) == ("W8A8", "W8A8")
    got = names("sequential", {"conv": "FP16", "conv/relu": "W8A8"}, chains=chain)
    assert (got["conv"], got["conv/relu"]) == ("FP16", "FP16")


@pytest.mark.parametrize("precision", ["W8A16", "FP16"])
def test_what_only_moves_integers_follows_what_it_reads(precision):
    got = names(line(), {"conv": precision})
    assert {got[name] for name in ("conv", "max", "average", "drop", "flat")} == {precision}
    assert got["hidden"] == got["head"] == "W8A8"


def test_a_mover_whose_inputs_differ_keeps_what_it_has():
    x = Input((6,))
    y = L.Concatenate(name="both")([L.Dense(2, name="a")(x), L.Dense(2, name="b")(x)])
    model = tf_keras.Model(x, L.Dense(2, name="head")(y))
    assert names(model, {"a": "W8A16"})["both"] == "W8A8"
    assert names(model, {"a": "W8A16", "both": "W8A16"})["both"] == "W8A16"
    assert names(model, {"a": "W8A16", "b": "W8A16"})["both"] == "W8A16"


def test_a_mover_without_such_a_kernel_stays_with_the_first_it_has():
    profile = replace(LITERT, ops={**LITERT.ops, "MaxPool": OpRule(precisions=("W8A8", "W4A8"))})
    got = names(line(), {"conv": "W8A16"}, profile)
    assert (got["conv"], got["max"], got["average"]) == ("W8A16", "W8A8", "W8A8")


def branches():
    x = Input((6,), name="x")
    outs = [L.Dense(2, name=name)(x) for name in ("a", "b")]
    return tf_keras.Model(x, outs)


@pytest.mark.parametrize(("asked", "wanted"), [
    ({}, "W8A8"),
    ({"a": "W8A16"}, "W8A16"),
    ({"a": "W8A16", "b": "W8A16"}, "W8A16"),
    ({"a": "FP16"}, "W8A8"),
])  # fmt: skip
def test_an_input_takes_the_widest_grid_of_its_readers(asked, wanted):
    assert names(branches(), asked)["x"] == wanted


def test_what_moves_a_model_input_follows_its_readers():
    x = Input((6, 6, 2), name="image")
    y = L.ZeroPadding2D(1, name="pad")(x)
    model = tf_keras.Model(x, L.Conv2D(2, 3, name="conv")(y))
    got = names(model, {"conv": "W8A16"})
    assert got == {"image": "W8A16", "pad": "W8A16", "conv": "W8A16"}


def test_an_operation_gets_the_first_precision_its_profile_lists():
    profile = replace(LITERT, ops={"Dense": OpRule(precisions=("W8A16", "FP16"))})
    assert names(line(), {}, profile)["head"] == "W8A16"
    assert names(line(), {"head": "FP16"}, profile)["head"] == "FP16"


def test_any_operation_can_stay_float():
    assert names("prelu", {"prelu": "FP32"})["prelu"] == "FP32"


def test_a_precision_the_profile_lacks_is_answered_with_those_it_has():
    with pytest.raises(ProfileError, match=r"no precision 'W2A8'.*W8A8.*W4A8.*FP16.*FP32"):
        names(line(), {"head": "W2A8"})


def test_a_precision_the_operation_lacks_is_answered_with_those_it_has():
    with pytest.raises(ProfileError, match=r"'prelu'.*W8A16.*kernel for PRelu.*W8A8, W4A8, FP16"):
        names("prelu", {"prelu": "W8A16"})


def test_globs_that_match_nothing_are_all_named():
    with pytest.raises(ProfileError, match=r"No layer matches 'body', 'tail'; .*inspect"):
        names(line(), {"tail": "FP16", "head": "FP16", "body": "FP16"})


def test_a_glob_that_matches_only_what_does_not_compute_matches_nothing():
    with pytest.raises(ProfileError, match="No layer matches 'image'"):
        names(line(), {"image": "W8A16"})
