import pytest
import tensorflow as tf
import tf_keras

from keras_edgeq.ops import op_type, weights_of
from keras_edgeq.ops.cell_layers import CellDense
from keras_edgeq.ops.constant_operands import AddConstant, MultiplyConstant
from keras_edgeq.ops.table import (
    CLASSES,
    FUNCTIONS,
    OPS,
    SYMBOLS,
    WEIGHTED,
    activation_name,
    kept_channels,
)

L = tf_keras.layers


def built(layer, shape):
    layer(tf_keras.Input(shape))
    return layer


@pytest.mark.parametrize(("layer", "op"), [
    (L.ReLU(), "Relu"),
    (L.ReLU(6.0), "Relu6"),
    (L.ReLU(6), "Relu6"),
    (L.ReLU(2.0), "CappedRelu"),
    (L.ReLU(negative_slope=0.1), "LeakyRelu"),
    (L.ReLU(6.0, negative_slope=0.1), "CappedLeakyRelu"),
    (L.ReLU(threshold=1.0), "ThresholdedRelu"),
    (L.Softmax(), "Softmax"),
    (L.Softmax(axis=1), "SoftmaxOverAxis"),
    (L.Activation("relu"), "Relu"),
    (L.Activation(tf.nn.relu6), "Relu6"),
    (L.Activation("gelu"), "Gelu"),
    (L.ELU(), "Elu"),
    (L.ELU(0.5), "ScaledElu"),
    (L.Activation(tf_keras.activations.tanh), "Tanh"),
    (L.UpSampling2D(), "Repeat"),
    (L.UpSampling2D(interpolation="bilinear"), "Resize"),
    (L.Resizing(4, 4), "Resize"),
    (L.Resizing(4, 4, crop_to_aspect_ratio=True), "ResizeCrop"),
    (L.Dropout(0.1), "Identity"),
    (L.Lambda(lambda x: x), "Lambda"),
    (L.LayerNormalization(), "LayerNormalization"),
])  # fmt: skip
def test_a_layer_has_the_operation_of_its_configuration(layer, op):
    assert op_type(layer) == op


@pytest.mark.parametrize(("function", "op"), [
    (lambda x: x + x, "Add"),
    (lambda x: x - 1.0, "Sub"),
    (lambda x: 2.0 * x, "Mul"),
    (lambda x: x / 2.0, "Div"),
    (tf.nn.relu, "Relu"),
    (tf.nn.relu6, "Relu6"),
    (tf.sigmoid, "Sigmoid"),
    (tf.nn.softmax, "Softmax"),
    (lambda x: tf.reshape(x, [-1, 2]), "Reshape"),
    (lambda x: x[:, :2], "Slice"),
    (lambda x: tf.concat([x, x], -1), "Concat"),
    (lambda x: tf.reduce_mean(x, 1), "Mean"),
    (lambda x: tf.reduce_max(x, 1), "ReduceMax"),
    (lambda x: tf.matmul(x, x, transpose_b=True), "MatMul"),
    (lambda x: tf.image.resize(x[:, :, None, None], [2, 2]), "Resize"),
    (lambda x: tf.transpose(x, [1, 0]), "Transpose"),
    (lambda x: tf.pad(x, [[0, 0], [1, 1]]), "Pad"),
    (tf.math.erf, "Erf"),
    (tf.math.lgamma, "tf.math.lgamma"),
])  # fmt: skip
def test_an_op_layer_has_the_operation_of_its_function(function, op):
    x = tf_keras.Input((4,))
    model = tf_keras.Model(x, function(x))
    assert op_type(model.layers[-1]) == op


def test_a_users_subclass_is_not_taken_for_its_base():
    class Dense(L.Dense):
        pass

    class ReLU(L.ReLU):
        pass

    assert op_type(ReLU()) == "ReLU"
    assert weights_of(Dense(3)) is None


@pytest.mark.parametrize(("layer", "shape", "axes"), [
    (L.Conv2D(4, 3), (6, 6, 2), (3,)),
    (L.Conv2DTranspose(4, 3), (6, 6, 2), (2,)),
    (L.Conv1DTranspose(4, 3), (6, 2), (1,)),
    (L.DepthwiseConv2D(3, depth_multiplier=2), (6, 6, 3), (2, 3)),
    (L.DepthwiseConv1D(3), (6, 3), (1, 2)),
    (L.Dense(4), (3,), (1,)),
    (L.EinsumDense("abc,cd->abd", (None, 4), bias_axes="d"), (5, 3), (1,)),
    (L.EinsumDense("abc,cde->abde", (None, 4, 2), bias_axes="de"), (5, 3), (1, 2)),
    (L.EinsumDense("...x,xy->...y", (4,), bias_axes="y"), (5, 3), (1,)),
    (L.EinsumDense("abc,cde->abde", (None, 4, 2), bias_axes="e"), (5, 3), ()),
    (L.EinsumDense("abc,cde->abde", (None, 4, 2)), (5, 3), (1, 2)),
    (L.Embedding(10, 4), (5,), (1,)),
    (L.PReLU(), (5,), ()),
])  # fmt: skip
def test_a_kernel_owns_a_scale_per_output_channel_where_the_bias_allows_it(layer, shape, axes):
    layer = built(layer, shape)
    assert kept_channels(layer) == axes
    if axes and getattr(layer, "bias", None) is not None:
        kernel = getattr(layer, weights_of(layer).kernel)
        channels = 1
        for axis in axes:
            channels *= kernel.shape[axis]
        assert channels == layer.bias.shape.num_elements()


@pytest.mark.parametrize("kind", WEIGHTED, ids=lambda k: k.__name__)
def test_named_parameters_exist(kind):
    options = {
        L.Dense: (3,),
        CellDense: (3,),
        L.Embedding: (9, 3),
        L.PReLU: (),
        L.EinsumDense: ("ab,bc->ac", 3),
        AddConstant: ((3,),),
        MultiplyConstant: ((3,),),
        L.DepthwiseConv1D: (2,),
        L.DepthwiseConv2D: (2,),
    }
    layer = kind(*options.get(kind, (3, 2)))
    name = kind.__name__
    rank = 3 if "3D" in name else 2 if "2D" in name else 1 if "1D" in name else 0
    built(layer, (4,) * rank + (3,))
    assert getattr(layer, weights_of(layer).kernel).shape.num_elements() > 0


def test_a_name_a_class_a_function_and_a_symbol_stand_in_one_row_only():
    for field, table in (("classes", CLASSES), ("functions", FUNCTIONS), ("symbols", SYMBOLS)):
        named = [one for op in OPS.values() for one in getattr(op, field)]
        assert len(named) == len(set(named)) == len(table)
    assert all(name == op.name for name, op in OPS.items())


def own(x):
    return x


@pytest.mark.parametrize(("function", "name"), [
    ("relu", "relu"), (own, "own"), (tf.nn.relu, "relu"), (None, "linear"),
])  # fmt: skip
def test_an_activation_has_its_registered_name(function, name):
    assert activation_name(tf_keras.activations.get(function)) == name
