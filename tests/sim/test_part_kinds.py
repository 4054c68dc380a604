import pytest
import tensorflow as tf
import tf_keras

from keras_edgeq.errors import ProfileError
from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.plan.kernel import precisions_of
from keras_edgeq.prepare import prepare
from keras_edgeq.profiles import TargetProfile, load_profile
from keras_edgeq.sim.choose import choose_precisions
from keras_edgeq.sim.part_kinds import NORMALIZATION, part_kinds
from keras_edgeq.sim.resolve import resolve
from tests.models import Input

L = tf_keras.layers
LITERT, MIXED = load_profile("litert_int8"), {"*": "w8a8_norm16"}


def cell():
    """A Dense layer, a state beside it, and one behind both."""
    x = Input((4,), name="x")
    y = L.Dense(4, name="cell/in")(x)
    add = L.Add(name="cell/state")
    add.is_state = True
    state = add([x, y])
    return tf_keras.Model(x, L.Dense(2, name="head")(state))


def chosen(asked, profile=LITERT):
    graph = LayerGraph.of(cell())
    found = choose_precisions(graph, profile, asked, {})
    return {node.layer.name: found[id(node)].name for node in graph.nodes}


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({}, ("W8A8", "W8A16", "W8A8")),
        ({"*": "W4A8"}, ("W4A8", "W8A16", "W4A8")),
        ({"cell": "W4A8"}, ("W4A8", "W8A16", "W8A8")),
        ({"cell/state": "W8A8"}, ("W8A8", "W8A8", "W8A8")),
        ({"cell": "FP32"}, ("FP32", "FP32", "W8A8")),
        ({"*": "W4A16"}, ("W4A16", "W4A16", "W4A16")),
        ({"*": "w8a8_norm16", "head": "W4A8"}, ("W8A8", "W8A16", "W4A8")),
    ],
)
def test_a_state_has_more_bits_unless_it_is_named_itself(asked, wanted):
    got = chosen(asked)
    assert (got["cell/in"], got["cell/state"], got["head"]) == wanted


@pytest.mark.parametrize("name", ["W8A8", "W8A16", "W4A8"])
def test_a_plan_of_parts_is_resolved_again_from_its_kernels(name):
    model = cell()
    for asked in ({}, {"cell": name}, {"cell": name, "cell/state": "W8A8"}):
        plan = resolve(model, LITERT, asked)
        assert resolve(model, LITERT, precisions_of(plan.kernels)) == plan


def test_a_mixture_that_does_not_exist_is_refused_with_those_there_are():
    with pytest.raises(ProfileError, match="w8a8_norm16") as error:
        chosen({"*": "w8a8_norm"})
    assert "FP32" in str(error.value)


def test_a_mixture_of_unknown_precisions_is_no_profile():
    data = LITERT.to_json() | {"mixtures": {"wide": {"*": "W9A9"}}}
    with pytest.raises(ProfileError, match="W9A9"):
        TargetProfile.from_json(data)
    with pytest.raises(ProfileError, match="parts"):
        TargetProfile.from_json(LITERT.to_json() | {"parts": {"state": "W9A9"}})


def test_profiles_with_mixtures_and_parts_survive_json():
    assert LITERT.mixtures
    assert LITERT.parts
    assert TargetProfile.from_json(LITERT.to_json()) == LITERT


def kinds_of(model, profile=LITERT, asked=MIXED):
    graph = LayerGraph.of(prepare(model, profile, asked))
    kinds = part_kinds(graph)
    return {node.layer.name: kinds.get(id(node)) for node in graph.nodes}


@pytest.mark.parametrize("layer", [L.LayerNormalization(), L.GroupNormalization(2)])
def test_a_normalization_is_all_that_it_is_written_with_and_nothing_else(layer):
    x = Input((5, 4), name="x")
    y = L.Add(name="residual")([x, L.Dense(4, name="front")(x)])
    y = L.Multiply(name="gate")([y, L.Dense(4, name="other")(x)])
    model = tf_keras.Model(x, L.Dense(2, name="back")(layer(y)))
    kinds = kinds_of(model)
    moves = {"in", "out", "groups", "together"}
    for name, kind in kinds.items():
        head, _, part = name.partition("/")
        assert kind == (NORMALIZATION if head == layer.name and part not in moves else None), name
    whole = kinds_of(model, asked={})
    assert whole[layer.name] == NORMALIZATION
    assert set(whole.values()) == {NORMALIZATION, None}


def test_a_mean_square_of_a_product_has_the_mean_square_alone():
    x = Input((5, 4), name="x")
    y = L.Multiply(name="gate")([L.Dense(4)(x), L.Dense(4)(x)])
    y = y * tf.math.rsqrt(tf.reduce_mean(y * y, -1, keepdims=True) + 1e-6)
    kinds = kinds_of(tf_keras.Model(x, L.Dense(2, name="back")(y)))
    assert kinds["gate"] is None
    assert kinds["back"] is None
    assert list(kinds.values()).count(NORMALIZATION) == 8


def test_parts_of_a_normalization_have_16_bits_by_name_and_are_float_beside_8():
    x = Input((5, 4), name="x")
    square = tf.reduce_mean(L.Dense(4, name="front")(x) ** 2, -1, keepdims=True)
    product = L.Multiply(name="product")([x, tf.math.rsqrt(square + 1.0)])
    model = tf_keras.Model(x, L.Dense(2, name="back")(product))
    for asked, wanted in (({}, "FP32"), ({"product": "W8A16"}, "W8A16"), (MIXED, "W8A16")):
        graph = LayerGraph.of(prepare(model, LITERT, asked))
        found = choose_precisions(graph, LITERT, asked, {})
        got = {node.layer.name: found[id(node)].name for node in graph.nodes}
        assert (got["product"], got["front"], got["back"]) == (wanted, "W8A8", "W8A8")
