"""Functions without a kernel are written with operations that have one, and compute the same."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from keras_edgeq.graph import keras_compat
from keras_edgeq.ops import op_type
from keras_edgeq.prepare import prepare
from tests.harness import assert_close, outputs, saved_and_loaded
from tests.models import train_like

L = tf_keras.layers
Input = tf_keras.Input
IMAGE, MATRIX, ROW = (4, 6, 4), (5, 4), (4,)

# How it is written -> the shape of each tensor, the function, and the operations that it becomes.
WRITTEN = {
    "cast": (IMAGE, lambda x: tf.cast(x, tf.float32), ["Identity"]),
    "convert_to_tensor": (IMAGE, lambda x: tf.convert_to_tensor(x), ["Identity"]),
    "ensure_shape": (IMAGE, lambda x: tf.ensure_shape(x, (None, None, 6, 4)), ["Identity"]),
    "repeat": (IMAGE, lambda x: tf.repeat(x, 3, axis=-1), ["Gather"]),
    "repeat each": (IMAGE, lambda x: tf.repeat(x, repeats=[1, 0, 2, 1], axis=1), ["Gather"]),
    "roll": (IMAGE, lambda x: tf.roll(x, -1, 1), ["Gather"]),
    "roll two": (IMAGE, lambda x: tf.roll(x, shift=[1, 7], axis=[1, -2]), ["Gather", "Gather"]),
    "reverse": (IMAGE, lambda x: tf.reverse(x, [1, -1]), ["Slice"]),
    "flip left right": (IMAGE, tf.image.flip_left_right, ["Slice"]),
    "flip up down": (IMAGE, lambda x: tf.image.flip_up_down(image=x), ["Slice"]),
    "flip": (IMAGE, lambda x: tf.experimental.numpy.flip(x, 2), ["Identity", "Identity", "Slice"]),
    "transpose": (IMAGE, tf.image.transpose, ["Transpose"]),
    "matrix transpose": (MATRIX, tf.linalg.matrix_transpose, ["Transpose"]),
    "crop": (IMAGE, lambda x: tf.image.crop_to_bounding_box(x, 1, 2, 3, 3), ["Slice"]),
    "center crop": (IMAGE, L.CenterCrop(3, 3), ["Slice"]),
    "clip 0 to 6": (IMAGE, lambda x: tf.clip_by_value(x, 0, 6), ["Relu6"]),
    "clip from 0": (IMAGE, lambda x: tf.clip_by_value(x, 0.0, np.inf), ["Relu"]),
    "clip": (IMAGE, lambda x: tf.clip_by_value(x, -np.inf, 0.5), ["Clip"]),
    "maximum 0": (IMAGE, lambda x: tf.maximum(0.0, x), ["Relu"]),
    "maximum": (IMAGE, lambda x: tf.maximum(x, y=0.25), ["Clip"]),
    "minimum": (IMAGE, lambda x: tf.minimum(x=tf.constant([0.25]), y=x), ["Clip"]),
    "negative": (IMAGE, lambda x: -x, ["Mul"]),
    "square": (IMAGE, tf.square, ["Mul"]),
    "power 1": (IMAGE, lambda x: x**1, ["Identity"]),
    "power 2": (IMAGE, lambda x: x**2, ["Mul"]),
    "power 3": (IMAGE, lambda x: tf.pow(x, 3.0), ["Mul", "Mul"]),
    "power 4": (IMAGE, lambda x: tf.pow(x=x, y=4), ["Mul", "Mul"]),
    "scalar_mul": (IMAGE, lambda x: tf.scalar_mul(0.5, x), ["Mul"]),
    "divide_no_nan": (IMAGE, lambda x: tf.math.divide_no_nan(x, 4.0), ["Mul"]),
    "is_inf": (
        ROW,
        lambda x: tf.math.is_inf(tf.math.log(tf.nn.relu(x))),
        ["Relu", "Log", "tf.math.greater", "tf.math.less", "tf.math.logical_or"],
    ),
    "equals infinity": (
        ROW,
        lambda x: tf.equal(-np.inf, tf.math.log(tf.nn.relu(x))),
        ["Relu", "Log", "tf.math.less"],
    ),
    "is not infinity": (
        ROW,
        lambda x: tf.math.reciprocal(tf.nn.relu(x)) != np.inf,
        ["Relu", "Reciprocal", "tf.math.greater", "tf.math.logical_not"],
    ),
    "below infinity": (
        ROW,
        lambda x: tf.math.reciprocal(tf.nn.relu(x)) < np.inf,
        ["Relu", "Reciprocal", "tf.math.less_equal"],
    ),
    "above -infinity": (
        ROW,
        lambda x: tf.greater(tf.math.log(tf.nn.relu(x)), -np.inf),
        ["Relu", "Log", "tf.math.greater_equal"],
    ),
    "divide_no_nan of two": (
        [IMAGE, IMAGE],
        lambda x, y: tf.math.divide_no_nan(x, tf.nn.relu(y)),
        ["Relu", "tf.math.equal", "Div", "Select"],
    ),
    "divide_no_nan of a constant": (
        ROW,
        lambda x: tf.math.divide_no_nan(np.float32([1.0, 2.0, 0.0, 1.0]), tf.nn.relu(x)),
        ["Relu", "tf.math.equal", "Div", "Select"],
    ),
    "multiply_no_nan": (
        [ROW, ROW],
        lambda x, y: tf.math.multiply_no_nan(tf.exp(x), y=tf.nn.relu(y)),
        ["Exp", "Relu", "tf.math.equal", "Mul", "Select"],
    ),
    "squared difference": (
        IMAGE,
        lambda x: tf.math.squared_difference(np.float32([1.0, 0.0, -1.0, 2.0]), x),
        ["DepthwiseConv2D", "Mul"],
    ),
    "squared difference of two": (
        [IMAGE, IMAGE],
        lambda x, y: tf.math.squared_difference(x, y=y),
        ["Sub", "Mul"],
    ),
    "bias_add": (
        IMAGE,
        lambda x: tf.nn.bias_add(x, np.float32([1.0, 0.0, -1.0, 2.0])),
        ["DepthwiseConv2D"],
    ),
    "add_n": ([IMAGE] * 3, lambda *xs: tf.add_n(xs), ["Add", "Add"]),
    "reduce_sum": (IMAGE, lambda x: tf.reduce_sum(x, [1, -2]), ["Mean", "Mul"]),
    "reduce_sum last": (IMAGE, lambda x: tf.reduce_sum(x, -1, True), ["Mean", "Mul"]),
    "Average": ([IMAGE] * 3, lambda *xs: L.Average()(xs), ["Add", "Add", "Mul"]),
    "Add": ([IMAGE] * 4, lambda *xs: L.Add()(xs), ["Add", "Add", "Add"]),
    "Multiply": ([IMAGE] * 3, lambda *xs: L.Multiply()(xs), ["Mul", "Mul"]),
    "Maximum": ([IMAGE] * 3, lambda *xs: L.Maximum()(xs), ["Maximum", "Maximum"]),
    "Minimum": ([IMAGE] * 3, lambda *xs: L.Minimum()(inputs=list(xs)), ["Minimum", "Minimum"]),
    "Dot rows": ([ROW, ROW], lambda *xs: L.Dot(axes=1)(xs), ["Reshape"] * 4 + ["MatMul"]),
    "Dot last": ([MATRIX, MATRIX], lambda *xs: L.Dot(axes=-1)(xs), ["MatMul"]),
    "Dot first": ([MATRIX, MATRIX], lambda *xs: L.Dot(axes=1)(xs), ["Transpose", "MatMul"]),
    "Dot mixed": ([MATRIX, (3, 5)], lambda *xs: L.Dot(axes=(1, 2))(xs), ["Transpose", "MatMul"]),
    "Dot row": (
        [MATRIX, ROW],
        lambda *xs: L.Dot(axes=(2, 1))(xs),
        ["Reshape", "MatMul", "Reshape"],
    ),
    "einsum": ([MATRIX, MATRIX], lambda x, y: tf.einsum("bic,bjc->bij", x, y), ["MatMul"]),
    "einsum turned": (
        [MATRIX, MATRIX],
        lambda x, y: tf.einsum("b i c, b j c -> b j i", x, y),
        ["MatMul"],
    ),
    "einsum heads": (
        [IMAGE, (5, 6, 4)],
        lambda q, k: tf.einsum("bqhd,bkhd->bhqk", q, k),
        ["Transpose", "Transpose", "MatMul"],
    ),
    "einsum two sums": (
        [IMAGE, (4, 6, 3)],
        lambda x, y: tf.einsum("bhwc,bhwk->bck", x, y),
        ["Transpose", "Reshape", "Reshape", "MatMul"],
    ),
    "einsum outer": (
        [ROW, (3,)],
        lambda x, y: tf.einsum("bi,bj->bij", x, y),
        ["Reshape", "Reshape", "MatMul"],
    ),
}
# What stays as it is -> its function, and the operation.
KEPT = {
    "repeat of an unknown axis": ((None, 4), lambda x: tf.repeat(x, 2, axis=1), "tf.repeat"),
    "roll of samples": (ROW, lambda x: tf.roll(x, 1, 0), "tf.roll"),
    "reversed samples": (ROW, lambda x: tf.reverse(x, [0]), "tf.reverse"),
    "cast to half": (ROW, lambda x: tf.cast(x, tf.float16), "tf.cast"),
    "shape that is news": (
        (None, 4), lambda x: tf.ensure_shape(x, (None, 5, 4)), "tf.ensure_shape",
    ),
    "center crop of less": (IMAGE, L.CenterCrop(8, 3), "CenterCrop"),
    "maximum per channel": (ROW, lambda x: tf.maximum(x, [0.0, 1.0, 0.5, 0.1]), "Maximum"),
    "power of a half": (ROW, lambda x: tf.abs(x) ** 0.5, "tf.math.pow"),
    "power with a base": (ROW, lambda x: tf.pow(2.0, x), "tf.math.pow"),
    "one more axis": (ROW, lambda x: tf.math.minimum(x, np.ones((1, 1, 1), "float32")), "Minimum"),
    "sum of samples": (ROW, lambda x: tf.reduce_sum(x, 0, keepdims=True), "tf.math.reduce_sum"),
    "sum of an unknown axis": ((None, 4), lambda x: tf.reduce_sum(x, 1), "tf.math.reduce_sum"),
    "sum of the input": (MATRIX, lambda x: tf.einsum("bij,bkl->bil", x, x), "tf.einsum"),
    "diagonal": ((4, 4), lambda x: tf.einsum("bii,bij->bij", x, x), "tf.einsum"),
    "ellipsis": (MATRIX, lambda x: tf.einsum("...i,...j->...ij", x, x), "tf.einsum"),
    "product over samples": (ROW, lambda x: tf.einsum("bi,cj->bcij", x, x), "tf.einsum"),
    "ranks": (ROW, lambda x: L.Add()([x, x, tf.identity(x)[:, tf.newaxis]]), "Add"),
    "whole numbers": (ROW, lambda x: -tf.cast(10.0 * x, tf.int32), "tf.math.negative"),
}  # fmt: skip


def model_of(shapes, function):
    shapes = shapes if isinstance(shapes, list) else [shapes]
    xs = [Input(shape) for shape in shapes]
    return tf_keras.Model(xs, function(*xs))


def samples(model):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(3, *(n or 5 for n in x.shape[1:]))) for x in model.inputs]
    return [np.float32(array) for array in arrays]


def written(model):
    return [op_type(layer) for layer in model.layers if op_type(layer) != "Input"]


@pytest.mark.parametrize("name", WRITTEN)
def test_a_function_becomes_operations_that_have_kernels_and_computes_the_same(name):
    model = model_of(*WRITTEN[name][:2])
    data = samples(model)
    made = prepare(model)
    assert_close(outputs(model, data), outputs(made, data))
    assert sorted(written(made)) == sorted(WRITTEN[name][2])
    last = model.layers[-1].name
    assert {layer.name.split("/")[0] for layer in made.layers[len(made.inputs) :]} <= {
        layer.name for layer in model.layers
    }
    assert keras_compat.producer(made.outputs[0])[0].name.removesuffix("/out") == last
    assert_close(outputs(made, data), outputs(saved_and_loaded(made), data))


@pytest.mark.parametrize("name", KEPT)
def test_what_cannot_be_written_so_stays(name):
    model = model_of(*KEPT[name][:2])
    data = samples(model)
    made = prepare(model)
    assert KEPT[name][2] in written(made)
    for wanted, got in zip(outputs(model, data), outputs(made, data), strict=True):
        np.testing.assert_allclose(np.float64(got), np.float64(wanted), rtol=1e-6, atol=1e-6)


def test_calls_of_one_layer_become_operations_of_their_own():
    x = Input(ROW)
    inner = tf_keras.Model(x, tf.add_n([x, tf.square(x), -x]), name="inner")
    a, b = Input(ROW), Input(ROW)
    model = tf_keras.Model([a, b], L.Dense(2)(inner(inner(a)) - inner(b)))
    data = samples(train_like(model))
    made = prepare(model)
    names = [layer.name for layer in made.layers]
    assert len(set(names)) == len(names)
    assert_close(outputs(model, data), outputs(saved_and_loaded(made), data))
