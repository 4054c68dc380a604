import numpy as np
import pytest
import tf_keras

from keras_edgeq.ops import op_type
from keras_edgeq.prepare.fold_batch_norms import (
    fold_batch_norms,
    scale_and_offset,
)
from tests.harness import assert_close, check_transform, outputs, simplify
from tests.models import inputs_for, make, train_like

L = tf_keras.layers
IMAGE, SIGNAL, VOLUME = (7, 7, 4), (9, 4), (4, 5, 4, 3)


def einsum(equation, output_shape, bias_axes, use_bias=True):
    return L.EinsumDense(equation, output_shape, bias_axes=bias_axes if use_bias else None)


# A layer of each kind that takes a batch norm behind it, and its input shape.
BACKWARD = {
    "Conv1D": (lambda **k: L.Conv1D(3, 3, padding="causal", **k), SIGNAL),
    "Conv2D same": (lambda **k: L.Conv2D(3, 3, padding="same", strides=2, **k), IMAGE),
    "Conv2D grouped": (lambda **k: L.Conv2D(4, 3, groups=2, **k), IMAGE),
    "Conv2D dilated": (lambda **k: L.Conv2D(3, 3, dilation_rate=2, **k), IMAGE),
    "Conv3D": (lambda **k: L.Conv3D(3, 2, **k), VOLUME),
    "Conv1DTranspose": (lambda **k: L.Conv1DTranspose(3, 3, strides=2, **k), SIGNAL),
    "Conv2DTranspose": (lambda **k: L.Conv2DTranspose(3, 3, padding="same", **k), IMAGE),
    "Conv3DTranspose": (lambda **k: L.Conv3DTranspose(3, 2, **k), VOLUME),
    "DepthwiseConv1D": (lambda **k: L.DepthwiseConv1D(3, depth_multiplier=2, **k), SIGNAL),
    "DepthwiseConv2D": (lambda **k: L.DepthwiseConv2D(3, depth_multiplier=2, **k), IMAGE),
    "Dense rank 2": (lambda **k: L.Dense(3, **k), (5,)),
    "Dense rank 3": (lambda **k: L.Dense(3, **k), SIGNAL),
    "Dense rank 4": (lambda **k: L.Dense(3, **k), IMAGE),
    "EinsumDense": (lambda **k: einsum("abc,cd->abd", (None, 5), "d", **k), SIGNAL),
    "EinsumDense heads": (lambda **k: einsum("abc,cde->abde", (None, 2, 5), "de", **k), SIGNAL),
    "EinsumDense, a bias of the last axis": (
        lambda **k: einsum("abc,cde->abde", (None, 2, 5), "e", **k),
        SIGNAL,
    ),
    "EinsumDense, heads in front": (
        lambda use_bias: einsum("abc,cde->adbe", (2, None, 5), "de", use_bias),
        SIGNAL,
    ),
    "EinsumDense of each position": (
        lambda **k: einsum("abc,bcd->abd", (9, 5), "bd", **k),
        SIGNAL,
    ),
}
# A layer of each kind that takes a batch norm in front of it.
FORWARD = {
    "Conv1D": (lambda: L.Conv1D(3, 3), SIGNAL),
    "Conv2D": (lambda: L.Conv2D(3, 3, strides=2, use_bias=False), IMAGE),
    "Conv2D 1x1 same": (lambda: L.Conv2D(3, 1, padding="same"), IMAGE),
    "Conv2D fused relu": (lambda: L.Conv2D(3, 3, activation="relu"), IMAGE),
    "Conv3D": (lambda: L.Conv3D(3, 2), VOLUME),
    "DepthwiseConv1D": (lambda: L.DepthwiseConv1D(3, depth_multiplier=2), SIGNAL),
    "DepthwiseConv2D": (lambda: L.DepthwiseConv2D(3, use_bias=False), IMAGE),
    "Dense rank 2": (lambda: L.Dense(3), (5,)),
    "Dense rank 3": (lambda: L.Dense(3, use_bias=False), SIGNAL),
    "Conv2D grouped": (lambda: L.Conv2D(4, 3, groups=2), IMAGE),
    "EinsumDense": (lambda: einsum("abc,cde->abde", (None, 2, 5), "de"), SIGNAL),
    "EinsumDense without a bias": (lambda: einsum("abcd,de->abce", (7, 7, 3), None), IMAGE),
    "EinsumDense that sums two axes": (lambda: einsum("abcd,cde->abe", (7, 3), "e"), IMAGE),
}
# Layers in front of which a batch norm must stay.
NOT_FORWARD = {
    "padded": (lambda: L.Conv2D(3, 3, padding="same"), IMAGE),
    "causal": (lambda: L.Conv1D(3, 3, padding="causal"), SIGNAL),
    "padded depthwise": (lambda: L.DepthwiseConv2D(3, padding="same"), IMAGE),
    "EinsumDense with a bias per position": (
        lambda: einsum("abc,cd->abd", (9, 5), "bd"),
        SIGNAL,
    ),
    "transposed": (lambda: L.Conv2DTranspose(3, 3), IMAGE),
}


def batch_norms(model):
    return [layer.name for layer in model.layers if op_type(layer) == "BatchNorm"]


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("kind", BACKWARD)
def test_a_batch_norm_folds_backward_into(kind, use_bias):
    make_layer, shape = BACKWARD[kind]
    x = tf_keras.Input(shape)
    model = train_like(tf_keras.Model(x, L.BatchNormalization()(make_layer(use_bias=use_bias)(x))))
    folded = check_transform(fold_batch_norms, model, inputs_for(model, 4))
    assert not batch_norms(folded)
    assert len(folded.layers) == 2


@pytest.mark.parametrize("kind", FORWARD)
def test_a_batch_norm_folds_forward_into(kind):
    make_layer, shape = FORWARD[kind]
    x = tf_keras.Input(shape)
    y = make_layer()(L.BatchNormalization()(L.ReLU()(x)))
    model = train_like(tf_keras.Model(x, y))
    folded = check_transform(fold_batch_norms, model, inputs_for(model, 4))
    assert not batch_norms(folded)


@pytest.mark.parametrize("kind", NOT_FORWARD)
def test_a_batch_norm_does_not_fold_forward_into(kind):
    make_layer, shape = NOT_FORWARD[kind]
    x = tf_keras.Input(shape)
    y = make_layer()(L.BatchNormalization(name="norm")(L.ReLU()(x)))
    model = train_like(tf_keras.Model(x, y))
    assert fold_batch_norms(model) is model
    check_transform(simplify, model, inputs_for(model, 4))


@pytest.mark.parametrize(("scale", "center"), [(True, False), (False, True), (False, False)])
def test_a_batch_norm_without_gamma_or_beta_folds(scale, center):
    x = tf_keras.Input(IMAGE)
    norm = L.BatchNormalization(scale=scale, center=center, epsilon=0.1)
    model = train_like(tf_keras.Model(x, norm(L.Conv2D(3, 3)(x))))
    assert not batch_norms(check_transform(fold_batch_norms, model, inputs_for(model, 4)))


def test_folding_behind_flatten_repeats_the_channels():
    model = make("forward_flatten")
    folded = check_transform(fold_batch_norms, model, inputs_for(model))
    assert not batch_norms(folded)


def test_two_batch_norms_in_a_row_both_fold():
    x = tf_keras.Input(IMAGE)
    y = L.BatchNormalization()(L.BatchNormalization()(L.Conv2D(3, 3)(x)))
    model = train_like(tf_keras.Model(x, y))
    assert not batch_norms(check_transform(fold_batch_norms, model, inputs_for(model)))


def test_a_shared_layer_with_a_shared_batch_norm_folds_once():
    model = make("shared_layer")
    folded = check_transform(fold_batch_norms, model, inputs_for(model))
    assert not batch_norms(folded)
    assert len(folded.get_layer("conv").inbound_nodes) == 2


def test_a_shared_layer_with_two_batch_norms_does_not_fold():
    a, b = tf_keras.Input(IMAGE), tf_keras.Input(IMAGE)
    conv = L.Conv2D(3, 3)
    y = [L.BatchNormalization()(conv(a)), L.BatchNormalization()(conv(b))]
    model = train_like(tf_keras.Model([a, b], y))
    assert fold_batch_norms(model) is model


def test_a_batch_norm_shared_by_two_layers_does_not_fold():
    a, b = tf_keras.Input(IMAGE), tf_keras.Input(IMAGE)
    norm = L.BatchNormalization()
    model = tf_keras.Model([a, b], [norm(L.Conv2D(3, 3)(a)), norm(L.Conv2D(3, 3)(b))])
    assert fold_batch_norms(train_like(model)) is model


def test_a_convolution_with_two_readers_does_not_fold():
    model = make("batch_norm_two_readers")
    assert fold_batch_norms(model) is model


def test_a_convolution_that_is_an_output_does_not_fold():
    x = tf_keras.Input(IMAGE)
    y = L.Conv2D(3, 3)(x)
    model = train_like(tf_keras.Model(x, [y, L.BatchNormalization()(y)]))
    assert fold_batch_norms(model) is model


def test_a_batch_norm_behind_a_fused_activation_does_not_fold_backward():
    x = tf_keras.Input(IMAGE)
    y = L.BatchNormalization()(L.Conv2D(3, 3, activation="relu")(x))
    model = train_like(tf_keras.Model(x, y))
    folded = check_transform(fold_batch_norms, model, inputs_for(model))
    assert len(batch_norms(folded)) == 1


def test_a_batch_norm_over_another_axis_stays():
    x = tf_keras.Input(IMAGE)
    model = train_like(tf_keras.Model(x, L.BatchNormalization(axis=1)(L.Conv2D(3, 3)(x))))
    assert fold_batch_norms(model) is model


def test_the_inference_form_of_a_batch_norm_is_its_formula():
    norm = L.BatchNormalization(epsilon=0.01)
    norm.build((None, 2))
    norm.set_weights([np.array([2.0, 3.0]), np.array([0.5, -1.0]), np.array([1.0, 2.0]),
                      np.array([0.99, 0.24])])  # fmt: skip
    scale, offset = scale_and_offset(norm)
    np.testing.assert_allclose(scale, [2.0, 6.0], rtol=1e-6)
    np.testing.assert_allclose(offset, [-1.5, -13.0], rtol=1e-6)


@pytest.mark.parametrize("shape", [(5,), (9, 5), (None, 5), (4, 6, 5), (3, 4, 2, 5)])
def test_a_standalone_batch_norm_becomes_a_depthwise_convolution(shape):
    x = tf_keras.Input(shape)
    model = train_like(tf_keras.Model(x, L.ReLU()(L.BatchNormalization(name="norm")(x))))
    result = check_transform(simplify, model, inputs_for(model, 4))
    assert op_type(result.get_layer("norm")) == "DepthwiseConv2D"


def test_trainable_statistics_are_not_touched_when_folding():
    model = make("residual")
    x = inputs_for(model)
    before = [w.copy() for w in model.get_weights()]
    folded = fold_batch_norms(model)
    folded.set_weights([0 * w for w in folded.get_weights()])
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert_close(outputs(model, x), outputs(make("residual"), x), 0)


def test_a_standalone_batch_norm_shared_by_two_lengths_works_on_both():
    a, b = tf_keras.Input((6, 3)), tf_keras.Input((9, 3))
    shared = L.BatchNormalization(name="norm")
    model = train_like(tf_keras.Model([a, b], [L.ReLU()(shared(a)), L.ReLU()(shared(b))]))
    result = check_transform(simplify, model, inputs_for(model))
    assert len(result.get_layer("norm").inbound_nodes) == 2
