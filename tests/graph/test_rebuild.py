import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from keras_edgeq.graph.rebuild import call_layer, calls, clone, rebuild, replay, run
from keras_edgeq.spec import TensorRef
from tests.harness import (
    assert_same_arrays,
    assert_same_state,
    assert_same_structure,
    outputs,
    snapshot,
)
from tests.models import HAZARDS, Input, inputs_for, make, train_like

L = tf_keras.layers


@pytest.mark.parametrize("hazard", HAZARDS)
def test_a_rebuilt_model_is_bit_identical(hazard):
    model = make(hazard)
    x, before = inputs_for(model), snapshot(model)
    copy = rebuild(model)
    assert_same_state(before, snapshot(model))
    assert_same_structure(model, copy)
    assert copy.name == model.name
    own = [layer.name for layer in model.layers if not isinstance(layer, L.InputLayer)]
    assert [n.name for n in copy.layers if not isinstance(n, L.InputLayer)] == own
    assert_same_arrays(model.get_weights(), copy.get_weights())
    assert_same_arrays(outputs(model, x), outputs(copy, x))
    assert not {id(v) for v in model.weights} & {id(v) for v in copy.weights}


@pytest.mark.parametrize("hazard", ["residual", "dicts", "nested_twice", "op_layers", "recurrent"])
def test_running_node_by_node_is_calling_the_model(hazard):
    model = make(hazard)
    x = inputs_for(model, 4)
    flat = [x[n] for n in model.input_names] if isinstance(x, dict) else [x]
    got = run(model, [tf.constant(part) for part in flat])
    tf.nest.assert_same_structure(model.output, got)
    assert_same_arrays(outputs(model, x), [t.numpy() for t in tf.nest.flatten(got)])


def test_slices_with_an_ellipsis_and_steps_are_rebuilt():
    x = Input((8, 8, 4))
    model = tf_keras.Model(x, L.Conv2D(2, 1)(x[..., 1:3] + x[:, ::2, ::2][:, :1, :1, :2]))
    data = inputs_for(model)
    assert_same_arrays(outputs(model, data), outputs(rebuild(model), data))


def test_calls_of_a_shared_layer_are_numbered_in_graph_order():
    refs = [str(call.output_ref()) for call in calls(make("shared_layer"))]
    assert refs == ["a", "b", "conv", "conv@1", "norm", "norm@1", "joined"]


def test_rebuilding_keeps_the_numbers_of_the_calls_of_a_shared_layer():
    """Here the first call stands behind a longer branch, so depth alone would swap them."""
    a, b = Input((4,), name="a"), Input((4,), name="b")
    dense = L.Dense(4, name="dense")
    first = dense(a)
    second = L.Activation("tanh")(L.Activation("relu")(dense(b)))
    model = tf_keras.Model([a, b], L.Add()([first, second]))

    def readers(model):
        return {str(c.output_ref()): c.node.parent_nodes[0].layer.name for c in calls(model)[2:4]}

    assert readers(model) == {"dense": "a", "dense@1": "b"}
    assert readers(rebuild(model)) == readers(rebuild(rebuild(model))) == readers(model)


def test_a_call_outside_the_model_does_not_count():
    model = make("shared_in_series")
    dense = model.get_layer("dense")
    dense(Input((6,)))
    refs = [str(call.output_ref()) for call in calls(model)]
    assert refs[1:] == ["dense", "dense@1"]
    part = tf_keras.Model(dense.get_input_at(1), dense.get_output_at(1))
    assert [str(call.output_ref()) for call in calls(part)][1:] == ["dense"]


def test_a_replacement_is_asked_for_once_per_layer():
    asked = []
    rebuild(make("shared_layer"), lambda layer: asked.append(layer.name))
    assert sorted(asked) == ["conv", "joined", "norm"]


def test_a_layer_is_replaced_by_a_function_of_tensors():
    model = make("forward_dense")
    x = inputs_for(model)
    double = rebuild(model, lambda layer: (lambda t: 2.0 * t) if layer.name == "dense" else None)
    assert "dense" not in [layer.name for layer in double.layers]
    norm = tf_keras.Model(model.input, model.get_layer("norm").output)
    assert_same_arrays([2 * outputs(norm, x)[0]], outputs(double, x))


def test_every_tensor_is_offered_with_its_name():
    made, read = [], []

    def on_output(ref, tensor):
        made.append(str(ref))
        return tensor

    def on_input(ref, tensor):
        read.append(str(ref))
        return tensor

    model = make("shared_layer")
    same = rebuild(model, None, on_output, on_input)
    assert made == ["a", "b", "conv", "conv@1", "norm", "norm@1", "joined"]
    assert read == ["conv<0", "conv@1<0", "norm<0", "norm@1<0", "joined<0", "joined<1"]
    x = inputs_for(model)
    assert_same_arrays(outputs(model, x), outputs(same, x))


def test_what_is_put_on_an_output_is_what_consumers_read():
    x = Input((3,), name="x")
    y = L.Activation("linear", name="y")(x)
    model = tf_keras.Model(x, L.Activation("linear", name="z")(y))
    on = {TensorRef("x"): 2.0, TensorRef("y"): 5.0, TensorRef("z"): 7.0}
    scaled = rebuild(model, on_output=lambda ref, t: t * on[ref])
    np.testing.assert_array_equal(scaled(np.ones((1, 3), np.float32)), np.full((1, 3), 70.0))


def test_several_outputs_of_an_op_are_told_apart():
    x = Input((4,))
    first, second = tf.split(x, 2, axis=-1)
    model = tf_keras.Model(x, [first, second])
    seen = []

    def on_output(ref, tensor):
        seen.append(str(ref))
        return tensor

    rebuild(model, on_output=on_output)
    name = model.layers[1].name
    assert seen[1:] == [name, f"{name}:1"]


def test_options_in_calls_survive():
    x = Input((4,))
    y = L.BatchNormalization(name="norm")(x, training=True)
    copy = rebuild(train_like(tf_keras.Model(x, y)))
    data = inputs_for(copy)
    (got,) = outputs(copy, data)
    # In training mode the batch itself is normalized, whatever the moving statistics.
    gamma, beta = (w.numpy() for w in copy.get_layer("norm").weights[:2])
    np.testing.assert_allclose(((got - beta) / gamma).mean(0), 0.0, atol=1e-5)


def test_masks_travel_through_a_rebuilt_model():
    x = Input((5,), dtype="int32")
    y = L.LSTM(3)(L.Embedding(10, 4, mask_zero=True)(x))
    model = train_like(tf_keras.Model(x, y))
    data = np.array([[1, 2, 0, 0, 0], [3, 4, 5, 6, 7]], np.int32)
    assert_same_arrays(outputs(model, data), outputs(rebuild(model), data))


def test_replay_offers_each_call_once_and_in_order():
    model = make("forward_dense")
    order = []

    def on_call(call, args, kwargs):
        order.append(call.layer.name)
        return call_layer(call, args, kwargs)

    replay(model, [tf.constant(inputs_for(model))], on_call)
    assert order == [layer.name for layer in model.layers[1:]]


def falling(shape, dtype=None):
    return -tf.cast(tf.range(shape[0]), dtype or tf.float32)


def bent(x):
    return x * tf.sigmoid(x) + 1.0


@pytest.mark.filterwarnings("ignore:The `keras.initializers.serialize:UserWarning")
def test_a_layer_with_functions_of_the_user_is_cloned():
    layer = L.Dense(3, activation=bent, bias_initializer=falling)
    copy = clone(layer)
    assert copy.activation is bent
    np.testing.assert_array_equal(copy(np.zeros((1, 2))), bent(np.float32([[0, -1, -2]])))
