import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from keras_edgeq.ops import op_type
from keras_edgeq.prepare.affine import affine, can_be_affine
from tests.harness import assert_same_arrays, check_transform, outputs, simplify
from tests.models import inputs_for, make, train_like

L = tf_keras.layers
VECTOR = tf.constant([0.5, -2.0, 3.0])
SHAPES = [(3,), (7, 3), (None, 3), (4, 5, 3), (None, None, 3), (2, 3, 4, 3), (2, None, 4, 3)]


@pytest.mark.parametrize("shape", SHAPES)
def test_affine_scales_and_shifts_each_channel(shape):
    x = tf_keras.Input(shape)
    assert can_be_affine((None, *shape))
    scale, offset = np.array([0.5, -2.0, 3.0]), np.array([1.0, 0.0, -4.0])
    model = tf_keras.Model(x, affine("scale", scale, offset)(x))
    data = inputs_for(model)
    (got,) = outputs(model, data)
    np.testing.assert_allclose(got, data * scale + offset, atol=1e-6)


@pytest.mark.parametrize("shape", [(None, None), (None, None, 2, 3), (2, 2, 2, 2, 3)])
def test_shapes_that_no_image_holds_are_refused(shape):
    assert not can_be_affine((None, *shape))


@pytest.mark.parametrize(("function", "replaced"), [
    (lambda x: x + VECTOR, True),
    (lambda x: VECTOR + x, True),
    (lambda x: x - VECTOR, True),
    (lambda x: VECTOR - x, True),
    (lambda x: x * VECTOR, True),
    (lambda x: x / VECTOR, True),
    (lambda x: x / 255.0, True),
    (lambda x: 1.0 - x, True),
    (lambda x: x * VECTOR[None, None, :], True),
    (lambda x: tf.math.add(x, VECTOR), True),
    (lambda x: tf.math.multiply(VECTOR, x), True),
    (lambda x: tf.math.subtract(x=VECTOR, y=x), True),
    (lambda x: tf.math.multiply(x, y=VECTOR), True),
    (lambda x: tf.math.divide(x, y=4.0), True),
    (lambda x: tf.maximum(x, VECTOR), False),
    (lambda x: x + 2.0, False),
    (lambda x: 2.0 * x, False),
    (lambda x: VECTOR / (tf.nn.relu(x) + 1.0), False),
    (lambda x: x * np.ones((3, 1), np.float32), False),
    (lambda x: x * x, False),
])  # fmt: skip
def test_a_constant_per_channel_becomes_a_convolution(function, replaced):
    x = tf_keras.Input((3, 3))
    model = tf_keras.Model(x, function(x))
    result = check_transform(simplify, model, inputs_for(model))
    assert ("DepthwiseConv2D" in [op_type(layer) for layer in result.layers]) == replaced


@pytest.mark.parametrize("layer", [
    L.Rescaling(1 / 127.5, -1.0),
    L.Rescaling([0.5, 2.0, 1.0], [1.0, 0.0, -1.0]),
    L.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 4.0, 0.25]),
    L.Normalization(axis=None, mean=0.3, variance=2.0),
], ids=["rescaling", "rescaling per channel", "normalization", "normalization of all"])  # fmt: skip
@pytest.mark.parametrize("shape", [(3,), (4, 4, 3)])
def test_preprocessing_layers_become_convolutions_of_their_name(layer, shape):
    layer = layer.__class__.from_config({**layer.get_config(), "name": "first"})
    x = tf_keras.Input(shape)
    model = tf_keras.Model(x, layer(x))
    result = check_transform(simplify, model, inputs_for(model))
    assert op_type(result.get_layer("first")) == "DepthwiseConv2D"


def test_an_adapted_normalization_keeps_its_statistics():
    layer = L.Normalization(name="first")
    layer.adapt(np.random.default_rng(0).normal(3.0, 2.0, (50, 4)).astype(np.float32))
    x = tf_keras.Input((4,))
    model = tf_keras.Model(x, layer(x))
    result = check_transform(simplify, model, inputs_for(model))
    assert op_type(result.get_layer("first")) == "DepthwiseConv2D"


def test_an_inverting_normalization_and_one_over_other_axes_stay():
    x = tf_keras.Input((4, 3))
    invert = L.Normalization(mean=[0.0] * 3, variance=[1.0] * 3, invert=True)
    over = L.Normalization(axis=1, mean=[0.1, 0.2, 0.3, 0.4], variance=[1.0, 2.0, 3.0, 4.0])
    model = tf_keras.Model(x, over(invert(x)))
    check_transform(simplify, model, inputs_for(model))
    x = tf_keras.Input((4, 4))
    square = L.Normalization(axis=1, mean=[0.1, 0.2, 0.3, 0.4], variance=[1.0, 2.0, 3.0, 4.0])
    model = tf_keras.Model(x, square(x))
    check_transform(simplify, model, inputs_for(model))


def test_a_preprocessing_layer_shared_by_two_shapes_works_on_both():
    a, b = tf_keras.Input((6, 3)), tf_keras.Input((9, 3))
    shared = L.Rescaling(0.5, 1.0)
    model = tf_keras.Model([a, b], [shared(a), shared(b)])
    check_transform(simplify, model, inputs_for(model))


def test_a_dense_reads_what_the_constant_made():
    model = make("op_constants")
    check_transform(simplify, model, inputs_for(model))


def test_an_integer_input_that_is_scaled_stays_as_it_is():
    x = tf_keras.Input((4, 4, 3), dtype="uint8")
    model = train_like(tf_keras.Model(x, L.Conv2D(2, 3)(L.Rescaling(1 / 255.0)(x))))
    result = check_transform(simplify, model, inputs_for(model))
    data = inputs_for(model)
    assert_same_arrays(outputs(result, data), outputs(result, data.astype(np.uint8)))
