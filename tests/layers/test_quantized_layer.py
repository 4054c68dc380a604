import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from keras_edgeq.layers import QuantizedLayer
from keras_edgeq.numerics.affine import grid_from_range
from keras_edgeq.numerics.range_rules import weight_range
from keras_edgeq.ops import weights_of
from keras_edgeq.spec import Encoding, QuantSpec
from keras_edgeq.spec.quant_spec import BIAS_SPEC
from tests import reference
from tests.models import train_like

L = tf_keras.layers
INPUT_SCALE = np.float32(0.03)
LAYERS = {
    "Conv1D": (lambda: L.Conv1D(4, 3, padding="causal"), (9, 3)),
    "Conv2D": (lambda: L.Conv2D(4, 3, strides=2, padding="same"), (6, 6, 3)),
    "Conv2D grouped": (lambda: L.Conv2D(4, 3, groups=2), (6, 6, 4)),
    "Conv3D": (lambda: L.Conv3D(4, 2), (4, 4, 4, 2)),
    "Conv1DTranspose": (lambda: L.Conv1DTranspose(4, 3), (5, 3)),
    "Conv2DTranspose": (lambda: L.Conv2DTranspose(4, 3, strides=2), (4, 4, 3)),
    "Conv3DTranspose": (lambda: L.Conv3DTranspose(4, 2), (3, 3, 3, 2)),
    "DepthwiseConv1D": (lambda: L.DepthwiseConv1D(3), (7, 3)),
    "DepthwiseConv2D": (lambda: L.DepthwiseConv2D(3, depth_multiplier=2), (6, 6, 3)),
    "Dense": (lambda: L.Dense(4), (6,)),
    "Dense rank 3": (lambda: L.Dense(4), (5, 6)),
    "EinsumDense": (lambda: L.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de"), (5, 4)),
}


def built(make_layer, shape, axes=None, bits=8):
    """Return the float layer and its quantized twin, called on data of `shape`."""
    layer = make_layer()
    x = tf_keras.Input(shape)
    train_like(tf_keras.Model(x, layer(x)))
    trait = weights_of(layer)
    axes = trait.axes if axes is None else axes
    spec = QuantSpec(bits, symmetric=True, narrow_range=True, axes=axes)
    inner = layer.__class__.from_config(layer.get_config())
    params = {trait.kernel: spec}
    if trait.bias and getattr(layer, trait.bias) is not None:
        params["bias"] = BIAS_SPEC
    wrapped = QuantizedLayer(inner, params)
    wrapped.build((None, *shape))
    inner.set_weights(layer.get_weights())
    kernel = layer.get_weights()[0]
    grid = {"bits": bits, "symmetric": True, "signed": True, "narrow_range": True}
    low, high = weight_range(kernel, axes, "minmax", **grid)
    encoding = Encoding(spec, *grid_from_range(low, high, **grid))
    wrapped.quantizers[trait.kernel].assign(encoding)
    return layer, wrapped, encoding


def data(shape):
    return np.random.default_rng(3).normal(size=(2, *shape)).astype(np.float32)


def rounded_by_reference(kernel, encoding):
    """The kernel in integers; the ratio is a product, as kernels compute it."""
    ratio = kernel * (np.float32(1.0) / encoding.scale)
    return reference.quantize(ratio, np.float32(1.0), 0, -127, 127).astype(np.float32)


def axes_of(kind, per_channel):
    """Integer sums of an EinsumDense have one scale, so its grid has no axes there."""
    return None if per_channel and kind != "EinsumDense" else ()


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("kind", LAYERS)
def test_it_sums_integers_as_the_kernel_does(kind, per_channel):
    make_layer, shape = LAYERS[kind]
    layer, wrapped, encoding = built(make_layer, shape, axes_of(kind, per_channel))
    assert wrapped.sums_integers
    kernel, bias = layer.get_weights()
    q_kernel = rounded_by_reference(kernel, encoding)
    scale = INPUT_SCALE * encoding.scale.ravel()
    grid = scale.reshape(bias.shape) if scale.size > 1 else scale[0]
    q_bias = reference.quantize(bias, grid, 0, -(2**31), 2**31 - 1).astype(np.float32)
    integers = np.random.default_rng(3).integers(-128, 128, (2, *shape)).astype(np.float32)
    outputs, sums, used = wrapped(integers * INPUT_SCALE, input_scale=tf.constant(INPUT_SCALE))
    np.testing.assert_array_equal(used, scale if scale.size > 1 else scale[0])
    layer.set_weights([q_kernel, q_bias])
    np.testing.assert_array_equal(sums, layer(integers))
    np.testing.assert_array_equal(sums, np.rint(sums))
    in_steps = wrapped(integers, input_scale=tf.constant(INPUT_SCALE), in_steps=True)
    np.testing.assert_array_equal(in_steps[1], sums)
    layer.set_weights([q_kernel * encoding.scale, q_bias * grid])
    wanted = layer(integers * INPUT_SCALE).numpy()
    np.testing.assert_allclose(outputs, wanted, rtol=0, atol=2e-6 * np.abs(wanted).max())
    assert len(np.unique(q_kernel)) >= 8
    assert not np.array_equal(q_bias * grid, bias)


@pytest.mark.parametrize("kind", LAYERS)
def test_without_an_input_scale_it_is_the_float_layer_with_the_rounded_kernel(kind):
    layer, wrapped, encoding = built(*LAYERS[kind])
    kernel, bias = layer.get_weights()
    layer.set_weights([rounded_by_reference(kernel, encoding) * encoding.scale, bias])
    x = data(LAYERS[kind][1])
    np.testing.assert_array_equal(wrapped(x)[0], layer(x))


def test_a_bias_without_a_grid_stays_float():
    layer, wrapped, encoding = built(*LAYERS["Conv2D"])
    wrapped.bias_spec = None
    kernel, bias = layer.get_weights()
    layer.set_weights([rounded_by_reference(kernel, encoding) * encoding.scale, bias])
    integers = np.random.default_rng(3).integers(-128, 128, (2, 6, 6, 3)).astype(np.float32)
    x = integers * INPUT_SCALE
    wanted = layer(x).numpy()
    got = wrapped(x, input_scale=tf.constant(INPUT_SCALE))[0]
    np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-6 * np.abs(wanted).max())


@pytest.mark.parametrize(("make_layer", "shape", "param"), [
    (lambda: L.Embedding(10, 4), (7,), "embeddings"),
    (lambda: L.PReLU(shared_axes=[1]), (7, 4), "alpha"),
    (lambda: L.Dense(4, use_bias=False), (6,), "kernel"),
])  # fmt: skip
def test_layers_without_a_bias_are_quantized_too(make_layer, shape, param):
    layer, wrapped, encoding = built(make_layer, shape)
    assert wrapped.bias_spec is None
    assert wrapped.kernel_name == param
    assert wrapped.sums_integers == (param == "kernel")
    (weight,) = layer.get_weights()
    layer.set_weights([rounded_by_reference(weight, encoding) * encoding.scale])
    x = np.abs(data(shape)).astype(np.int32) if param == "embeddings" else data(shape)
    np.testing.assert_array_equal(wrapped(x)[0], layer(x))


@pytest.mark.parametrize("kind", LAYERS)
def test_calling_leaves_variables_and_their_order_as_they_were(kind):
    make_layer, shape = LAYERS[kind]
    layer, wrapped, _ = built(make_layer, shape, axes_of(kind, True))
    inner = wrapped.layer
    before = [id(w) for w in inner.weights]
    trait = weights_of(inner)
    kernel = getattr(inner, trait.kernel)
    wrapped(data(shape), input_scale=tf.constant(INPUT_SCALE))
    assert [id(w) for w in inner.weights] == before
    assert getattr(inner, trait.kernel) is kernel
    assert isinstance(inner.bias, tf.Variable)
    for a, b in zip(layer.get_weights(), inner.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_variables_come_back_when_the_call_fails():
    _, wrapped, _ = built(*LAYERS["Dense"])
    kernel = wrapped.layer.kernel
    with pytest.raises(Exception, match=r"shape|dimension|compatible"):
        wrapped(np.zeros((2, 5), np.float32), input_scale=tf.constant(INPUT_SCALE))
    assert wrapped.layer.kernel is kernel


@pytest.mark.parametrize("kind", LAYERS)
def test_the_gradient_reaches_kernel_and_bias(kind):
    make_layer, shape = LAYERS[kind]
    _, wrapped, _ = built(make_layer, shape, axes_of(kind, True))
    with tf.GradientTape() as tape:
        y, _, _ = wrapped(data(shape), input_scale=tf.constant(INPUT_SCALE))
        loss = tf.reduce_sum(tf.square(y))
    gradients = tape.gradient(loss, wrapped.trainable_weights)
    assert len(gradients) == 2
    assert all(np.abs(tf.convert_to_tensor(g)).max() > 0 for g in gradients)


def test_the_gradient_of_the_kernel_is_the_float_layers_at_the_rounded_kernel():
    layer, wrapped, encoding = built(*LAYERS["Dense"])
    kernel, bias = layer.get_weights()
    layer.set_weights([rounded_by_reference(kernel, encoding) * encoding.scale, bias])
    x = data((6,))
    gradients = []
    for call, variable in ((layer, layer.kernel), (lambda x: wrapped(x)[0], wrapped.layer.kernel)):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(call(x)))
        gradients.append(tape.gradient(loss, variable).numpy())
    np.testing.assert_allclose(*gradients, rtol=1e-5)


def test_gradients_through_integer_sums_are_those_of_the_rounded_layer():
    layer, wrapped, encoding = built(*LAYERS["Conv2D"])
    kernel, bias = layer.get_weights()
    layer.set_weights([rounded_by_reference(kernel, encoding) * encoding.scale, bias])
    integers = np.random.default_rng(3).integers(-128, 128, (2, 6, 6, 3)).astype(np.float32)
    x = tf.constant(integers * INPUT_SCALE)

    def gradients(call, variables):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(call(x))
        return tape.gradient(loss, [x, *variables])

    wanted = gradients(layer, layer.trainable_weights)
    call = lambda x: wrapped(x, input_scale=tf.constant(INPUT_SCALE))[0]  # noqa: E731
    got = gradients(call, wrapped.trainable_weights)
    # The largest weight of a channel is at the end of its grid, or an ulp past it.
    inside = np.abs(rounded_by_reference(kernel, encoding)) < 127
    for a, b, used in zip(got, wanted, (True, inside, True), strict=True):
        np.testing.assert_allclose(a * used, b * used, rtol=0, atol=1e-5 * np.abs(b).max())


def test_the_gradient_reaches_the_scale_when_it_is_watched():
    _, wrapped, _ = built(*LAYERS["Dense"])
    scale = wrapped.quantizers["kernel"].start
    with tf.GradientTape() as tape:
        tape.watch(scale)
        loss = tf.reduce_sum(tf.square(wrapped(data((6,)))[0]))
    assert np.abs(tape.gradient(loss, scale)).max() > 0


def test_the_weights_are_the_layers_and_then_the_grids():
    _, wrapped, _ = built(*LAYERS["Conv2D"])
    names = [w.name.rpartition("/")[2] for w in wrapped.weights]
    assert names == ["kernel:0", "bias:0", "scale:0", "zero_point:0", "qmin:0", "qmax:0"]
    assert [id(w) for w in wrapped.trainable_weights] == [id(w) for w in wrapped.layer.weights]


def test_freezing_the_wrapper_freezes_the_layer():
    _, wrapped, _ = built(*LAYERS["Conv2D"])
    wrapped.trainable = False
    assert wrapped.trainable_weights == []


def test_the_configuration_makes_the_same_layer():
    _, wrapped, _ = built(*LAYERS["DepthwiseConv2D"])
    config = wrapped.get_config()
    twin = QuantizedLayer.from_config(config)
    assert twin.get_config()["params"] == config["params"]
    assert twin.get_config()["layer"]["config"] == config["layer"]["config"]
    assert twin.name == wrapped.name
    assert twin.bias_spec == BIAS_SPEC
    assert twin.quantizers["depthwise_kernel"].spec.axes == (2, 3)


def test_regularization_losses_of_the_layer_are_kept():
    layer = L.Dense(3, kernel_regularizer=tf_keras.regularizers.L2(0.1))
    wrapped = QuantizedLayer(layer, {"kernel": QuantSpec(symmetric=True)})
    wrapped.build((None, 4))
    wanted = 0.1 * np.sum(np.square(layer.kernel.numpy()))
    assert len(wrapped.losses) == 1
    np.testing.assert_allclose(wrapped.losses[0], wanted, rtol=1e-6)
