import pytest
import tf_keras

from keras_edgeq.graph.rebuild import calls
from keras_edgeq.prepare import prepared_form
from keras_edgeq.profiles import load_profile
from keras_edgeq.ptq.adaround.blocks import block_units, single_units
from keras_edgeq.sim.insert import insert
from keras_edgeq.sim.quant_sim import SimRecord
from keras_edgeq.sim.resolve import resolve
from tests.models import train_like

L = tf_keras.layers


def sim_of(inputs, outputs):
    """Return an uncalibrated sim; blocks are found without data."""
    model, profile = train_like(tf_keras.Model(inputs, outputs)), load_profile("litert_int8")
    prepared = prepared_form(model).model
    return insert(
        prepared,
        SimRecord(profile, resolve(prepared, profile, {"*": "W4A8"}), tuple(model.output_names)),
    )


def named(sim, units):
    """Return the names of each unit's layers, and the tensor at its end."""
    walked = [call for call in calls(sim) if not call.node.is_input]
    return [
        ([walked[i].layer.name for i in unit.layers], walked[unit.end].layer.name) for unit in units
    ]


def plain():
    x = tf_keras.Input((8, 8, 3))
    y = L.Conv2D(4, 3, activation="relu", name="a")(x)
    y = L.LeakyReLU(name="leaky")(L.Conv2D(4, 3, name="b")(y))
    return sim_of(x, L.Dense(2, name="head")(L.Flatten(name="flat")(y)))


def residual():
    x = tf_keras.Input((8, 8, 3))
    stem = L.Conv2D(4, 3, padding="same", activation="relu", name="stem")(x)
    y = L.Conv2D(4, 3, padding="same", activation="relu", name="one")(stem)
    y = L.Conv2D(4, 3, padding="same", name="two")(y)
    y = L.ReLU(name="out")(L.Add(name="skip")([stem, y]))
    z = L.Conv2D(6, 3, strides=2, padding="same", activation="relu", name="three")(y)
    z = L.Conv2D(6, 3, padding="same", name="four")(z)
    z = L.Add(name="join")([L.Conv2D(6, 1, strides=2, padding="same", name="side")(y), z])
    return sim_of(x, L.Dense(2, name="head")(L.GlobalAveragePooling2D(name="pool")(z)))


def inverted(activation):
    x = tf_keras.Input((8, 8, 3))
    y = L.Conv2D(4, 3, padding="same", activation="relu", name="stem")(x)
    y = L.Conv2D(8, 1, activation="relu", name="expand")(y)
    y = L.DepthwiseConv2D(3, strides=2, padding="same", activation="relu", name="depthwise")(y)
    y = L.Conv2D(4, 1, activation=activation, name="project")(y)
    return sim_of(x, L.Dense(2, name="head")(L.Flatten(name="flat")(y)))


def test_layers_of_a_plain_model_are_units_up_to_their_activation():
    sim = plain()
    wanted = [["a"], ["b"], ["head"]]
    for units in (single_units(sim), block_units(sim)):
        found = named(sim, units)
        assert [layers for layers, _ in found] == wanted
        assert "leaky" in found[1][1]  # the activation lies inside, fused or not


def test_a_residual_block_reaches_from_the_fork_to_behind_the_addition():
    sim = residual()
    found = named(sim, block_units(sim))
    assert [sorted(layers) for layers, _ in found] == [
        ["stem"], ["one", "two"], ["four", "side", "three"], ["head"]
    ]  # fmt: skip
    assert found[1][1] == "out/quant"
    assert found[2][1] == "join/quant"
    assert all(len(unit.layers) == 1 for unit in single_units(sim))


@pytest.mark.parametrize(
    ("activation", "wanted"),
    [
        (None, [["stem"], ["expand", "depthwise", "project"], ["head"]]),
        ("relu", [["stem"], ["expand"], ["depthwise", "project"], ["head"]]),
    ],
)
def test_a_linear_projection_makes_an_inverted_residual(activation, wanted):
    sim = inverted(activation)
    assert [layers for layers, _ in named(sim, block_units(sim))] == wanted


def test_a_block_that_is_read_from_inside_is_none():
    x = tf_keras.Input((8, 8, 4))
    inner = L.Conv2D(4, 3, padding="same", name="one")(x)
    joined = L.Add(name="skip")([x, L.Conv2D(4, 3, padding="same", name="two")(inner)])
    sim = sim_of(x, [joined, L.Dense(2, name="head")(L.Flatten(name="flat")(inner))])
    assert all(len(unit.layers) == 1 for unit in block_units(sim))


def test_the_outer_addition_is_left_where_the_inner_one_is_a_block():
    x = tf_keras.Input((8, 8, 4))
    stem = L.Conv2D(4, 3, padding="same", name="stem")(x)
    y = L.Add(name="inner")([stem, L.Conv2D(4, 3, padding="same", name="one")(stem)])
    y = L.Conv2D(4, 3, padding="same", name="two")(y)
    sim = sim_of(x, L.Add(name="outer")([stem, y]))
    assert [layers for layers, _ in named(sim, block_units(sim))] == [["stem"], ["one"], ["two"]]


def test_a_shared_layer_is_one_unit_of_its_own():
    x = tf_keras.Input((8, 8, 4))
    shared = L.Conv2D(4, 3, padding="same", name="shared")
    first = shared(x)
    sim = sim_of(x, L.Add(name="skip")([first, shared(first)]))
    assert [layers for layers, _ in named(sim, block_units(sim))] == [["shared"]]
