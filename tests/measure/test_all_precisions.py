"""A choice for the groups becomes the same precisions in the sim."""

import tf_keras

import keras_edgeq as eq
from keras_edgeq.measure.groups import all_precisions, find_groups, folded_graph
from keras_edgeq.spec.tensor_ref import TensorRef
from tests.models import inputs_for, make, train_like

L = tf_keras.layers


def precisions(model, choice):
    sim = eq.quantize(model, inputs_for(model), progress=False)
    asked = all_precisions(folded_graph(sim), sim.record.profile, choice)
    return asked, eq.requantize(sim, precision=asked)


def test_a_part_keeps_its_own_precision_beside_that_of_its_layer():
    choice = {"two/depthwise": "W8A8", "one/depthwise": "W8A16", "two": "W4A8", "one": "W8A8"}
    _, sim = precisions(make("separable"), choice)
    bits = {
        name: sim.record.plan.specs[TensorRef(name, "param", param=param)].bits
        for name, param in (("two/depthwise", "depthwise_kernel"), ("two", "kernel"))
    }
    assert bits == {"two/depthwise": 8, "two": 4}
    assert sim.record.plan.specs[TensorRef("one/depthwise")].bits == 16
    groups = find_groups(sim, ["W4A8", "W8A8"])
    assert {group.name for group in groups} == set(choice)


def test_precision_passes_through_layers_that_do_nothing():
    x = tf_keras.Input((8, 8, 3))
    y = L.Dropout(0.1)(L.Conv2D(4, 3, name="a")(x))
    y = L.Add(name="sum")([y, L.Conv2D(4, 1, name="b")(y)])
    y = L.Activation("sigmoid", name="gate")(L.Dropout(0.1)(y))
    model = train_like(tf_keras.Model(x, L.Conv2D(2, 1, name="c")(y)))
    asked, sim = precisions(model, {"a": "W8A16", "b": "W8A8", "c": "W8A8"})
    assert asked == dict.fromkeys(("a", "sum", "gate"), "W8A16") | {"b": "W8A8", "c": "W8A8"}
    assert sim.record.plan.specs[TensorRef("sum")].bits == 16
