import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from keras_edgeq.graph import keras_compat
from keras_edgeq.ops import op_type
from keras_edgeq.ops.table import WEIGHTED, activation_name
from keras_edgeq.prepare import prepare
from keras_edgeq.prepare.activations import split_layers
from keras_edgeq.prepare.flatten import flatten_nested
from keras_edgeq.prepare.float32 import to_float32
from keras_edgeq.prepare.fold_batch_norms import fold_batch_norms
from keras_edgeq.quantize import quantize
from tests.harness import check_transform, simplify
from tests.models import HAZARDS, inputs_for, make, train_like
from tests.short import without_long

L = tf_keras.layers


def names(model):
    return [layer.name for layer in model.layers]


def ops(model):
    return [op_type(layer) for layer in model.layers]


@pytest.mark.parametrize("hazard", without_long(HAZARDS, "recurrent", "transfer"))
def test_a_prepared_model_computes_the_same(hazard):
    model = make(hazard)
    # Half precision in the middle: float16 keeps 11 bits.
    tolerance = 5e-3 if hazard == "mixed_precision" else 2e-5
    # Not saved here: sims of all these models are.
    prepared = check_transform(prepare, model, inputs_for(model), tolerance, save=False)
    assert not any(isinstance(layer, tf_keras.Model) for layer in prepared.layers)
    assert "BatchNorm" not in ops(prepared)
    fusing = [n for n in prepared.layers if type(n) in WEIGHTED and hasattr(n, "activation")]
    assert all(activation_name(layer.activation) == "linear" for layer in fusing)
    assert all(layer.compute_dtype == "float32" for layer in prepared.layers if layer.weights)


def test_nested_layers_are_named_by_their_path():
    model = make("nested_same_names")
    flat = check_transform(flatten_nested, model, inputs_for(model))
    inner = {"left/dense", "left/norm", "right/dense", "right/norm", "dense", "sum"}
    assert inner <= set(names(flat))


def test_models_in_models_are_flattened_to_layers_that_are_called_as_often():
    model = make("nested_twice")
    flat = check_transform(flatten_nested, model, inputs_for(model))
    inner = flat.get_layer("outer/inner/dense")
    assert len(inner.inbound_nodes) == 2
    assert len(flat.get_layer("outer/dense").inbound_nodes) == 2


def test_a_backbone_called_with_training_false_keeps_its_weights_in_order():
    model = make("transfer")
    flat = check_transform(flatten_nested, model, inputs_for(model))
    wanted = {w.name: w.numpy() for w in model.get_layer("backbone").weights}
    got = [w.numpy() for layer in flat.layers if "backbone" in layer.name for w in layer.weights]
    assert len(wanted) == len(got)
    for a, b in zip(wanted.values(), got, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_flattened_layer_keeps_whether_it_trains():
    flat = flatten_nested(make("transfer"))
    assert flat.get_layer("head").trainable
    backbone = [layer for layer in flat.layers if layer.name.startswith("backbone/")]
    assert backbone
    assert not any(layer.trainable for layer in backbone if layer.weights)


def test_activations_become_layers_named_after_both():
    model = make("fused_activations")
    split = check_transform(split_layers, model, inputs_for(model))
    assert op_type(split.get_layer("relu6/relu6_part")) == "Relu6"
    assert op_type(split.get_layer("tanh/tanh_part")) == "Tanh"
    assert op_type(split.get_layer("softmax/softmax_part")) == "Softmax"
    assert op_type(split.get_layer("gelu/gelu_part")) == "Gelu"
    # Swish is x * sigmoid(x), as integer kernels compute it.
    assert op_type(split.get_layer("swish/swish_part")) == "Mul"
    assert op_type(split.get_layer("swish/swish_part/sigmoid")) == "Sigmoid"


def test_relu6_stays_relu6_and_another_cap_stays_itself():
    split = split_layers(make("separate_activations"))
    assert split.get_layer("relu6").max_value == 6.0
    assert split.get_layer("capped").max_value == 2.0


def test_a_silu_op_becomes_a_product_under_its_name():
    model = make("op_silu")
    split = check_transform(split_layers, model, inputs_for(model))
    assert "tf.nn.silu" not in [keras_compat.op_symbol(layer) for layer in split.layers]
    assert sorted(set(ops(split)) - {"Input", "Dense"}) == ["Mul", "Sigmoid"]


def test_separable_convolutions_become_two():
    model = make("separable")
    split = check_transform(split_layers, model, inputs_for(model))
    assert op_type(split.get_layer("two/depthwise")) == "DepthwiseConv2D"
    assert op_type(split.get_layer("two")) == "Conv2D"
    assert op_type(split.get_layer("one/depthwise")) == "DepthwiseConv1D"
    assert not split.get_layer("one").use_bias
    assert not split.get_layer("one/depthwise").use_bias


def test_a_causal_separable_convolution_stays_whole():
    x = tf_keras.Input((9, 3))
    model = tf_keras.Model(x, L.SeparableConv1D(4, 3, padding="causal")(x))
    assert ops(split_layers(model)) == ["Input", "SeparableConv1D"]


@pytest.mark.parametrize(("stride", "dilation"), [(2, 1), (1, 2)])
def test_separable_strides_and_dilations_go_to_the_depthwise_part(stride, dilation):
    x = tf_keras.Input((9, 9, 3))
    layer = L.SeparableConv2D(4, 3, strides=stride, dilation_rate=dilation, padding="same")
    model = train_like(tf_keras.Model(x, layer(x)))
    check_transform(split_layers, model, inputs_for(model))


def test_a_half_precision_model_computes_in_float32_after():
    model = make("mixed_precision")
    full = check_transform(to_float32, model, inputs_for(model), 5e-3)
    assert {layer.compute_dtype for layer in full.layers} == {"float32"}
    assert model.get_layer("conv").compute_dtype == "float16"


def test_a_float64_model_computes_in_float32_after():
    x = tf_keras.Input((4,), dtype="float64")
    model = train_like(tf_keras.Model(x, L.Dense(3, dtype="float64")(x)))
    full = to_float32(model)
    data = inputs_for(model)
    got = full(data.astype("float32"))
    assert got.dtype == tf.float32
    np.testing.assert_allclose(got, model(data), atol=1e-5)


@pytest.mark.parametrize("rewrite", [
    flatten_nested, to_float32, split_layers, simplify,
    fold_batch_norms,
])  # fmt: skip
@pytest.mark.parametrize(
    "hazard", without_long(["shared_layer", "dicts", "op_layers", "unsorted_inputs"], "op_layers")
)
def test_each_rewrite_alone_keeps_shared_layers_dicts_ops_and_input_order(rewrite, hazard):
    model = make(hazard)
    check_transform(rewrite, model, inputs_for(model))


def test_preparing_keeps_the_state_of_the_random_generators():
    model = make("residual")
    tf.random.set_seed(5)
    np.random.seed(5)
    state = np.random.get_state()[1].copy()
    wanted = tf.random.get_global_generator().state.numpy()
    prepare(model)
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    np.testing.assert_array_equal(tf.random.get_global_generator().state.numpy(), wanted)


def test_an_activity_regularizer_sees_the_real_output_of_its_layer():
    inputs = tf_keras.Input((6,))
    dense = tf_keras.layers.Dense(4, "relu", activity_regularizer=tf_keras.regularizers.L2(0.5))
    model = tf_keras.Model(inputs, tf_keras.layers.Dense(2)(dense(inputs)))
    x = np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32)
    model(x)
    wanted = float(sum(model.losses))
    prepared = prepare(model)
    prepared(x)
    np.testing.assert_allclose(float(sum(prepared.losses)), wanted, rtol=1e-5)
    sim = quantize(model, x, progress=False)
    sim(x)
    np.testing.assert_allclose(float(sum(sim.losses)), wanted, rtol=0.05)
