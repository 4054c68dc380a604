"""A layer's rows times its columns are what Keras computes, for every layer with a form."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from keras_edgeq.ops import matrix_form

L = tf_keras.layers
SIGNAL, IMAGE, VOLUME = (11, 4), (9, 10, 4), (5, 6, 4, 2)
Einsum = L.EinsumDense
PADDINGS = ("valid", "same")


def transposed(make, shape):
    """Yield kernels smaller than the strides, as large, and larger."""
    for padding in PADDINGS:
        for strides in (1, 2, 3):
            for size in (1, 2, 3, 5):
                layer = make(3, size, strides=strides, padding=padding)
                yield f"{make.__name__} {padding} {size}/{strides}", layer, shape


CASES = [
    ("Dense", L.Dense(3), (4,)),
    ("Dense rank 3", L.Dense(3), (6, 4)),
    ("Conv1D causal", L.Conv1D(3, 3, padding="causal"), SIGNAL),
    ("Conv1D causal dilated", L.Conv1D(3, 3, padding="causal", dilation_rate=2), SIGNAL),
    ("Conv1D causal strided", L.Conv1D(3, 4, padding="causal", strides=2), SIGNAL),
    ("Conv2D uneven", L.Conv2D(3, (2, 5), strides=(3, 2), padding="same"), IMAGE),
    ("Conv2D leaps", L.Conv2D(3, 2, strides=3, padding="same"), IMAGE),
    ("DepthwiseConv1D dilated", L.DepthwiseConv1D(3, dilation_rate=2), SIGNAL),
    ("Conv2DTranspose uneven", L.Conv2DTranspose(3, (2, 4), strides=(3, 2)), IMAGE),
    *[
        case
        for padding in PADDINGS
        for case in (
            (f"Conv1D {padding}", L.Conv1D(3, 4, padding=padding), SIGNAL),
            (f"Conv1D {padding} strided", L.Conv1D(3, 3, strides=2, padding=padding), SIGNAL),
            (f"Conv1D {padding} groups", L.Conv1D(6, 3, groups=2, padding=padding), SIGNAL),
            (f"Conv2D {padding}", L.Conv2D(3, 3, padding=padding), IMAGE),
            (f"Conv2D {padding} strided", L.Conv2D(3, 3, strides=2, padding=padding), IMAGE),
            (f"Conv2D {padding} dilated", L.Conv2D(3, 3, dilation_rate=2, padding=padding), IMAGE),
            (f"Conv2D {padding} groups", L.Conv2D(6, 2, groups=2, padding=padding), IMAGE),
            (
                f"DepthwiseConv1D {padding}",
                L.DepthwiseConv1D(3, strides=2, padding=padding, depth_multiplier=2),
                SIGNAL,
            ),
            (
                f"DepthwiseConv2D {padding}",
                L.DepthwiseConv2D(3, strides=2, padding=padding, depth_multiplier=2),
                IMAGE,
            ),
        )
    ],
    *transposed(L.Conv1DTranspose, (5, 4)),
    *transposed(L.Conv2DTranspose, (4, 5, 4)),
    ("Conv3D", L.Conv3D(3, (2, 3, 1), padding="same"), VOLUME),
    ("Conv3D strided", L.Conv3D(4, 2, strides=(1, 2, 2), groups=2), VOLUME),
    ("Conv3DTranspose", L.Conv3DTranspose(3, 2, strides=2, padding="same"), (3, 2, 4, 2)),
]
EINSUMS = [
    Einsum("ab,bc->ac", 4, bias_axes="c"),
    Einsum("abc,cde->abde", (None, 3, 5), bias_axes="de"),
    Einsum("abc,cde->aebd", (5, None, 3), bias_axes="de"),
    Einsum("abcd,cde->abe", (None, 4), bias_axes="e"),
    Einsum("abcd,dce->abe", (None, 4), bias_axes="e"),
    Einsum("abc,bcd->abd", (6, 4), bias_axes="bd"),
    Einsum("abc,bcd->adb", (4, 6), bias_axes="bd"),
    Einsum("...x,xy->...y", 4, bias_axes="y"),
    Einsum("abc,cd->adb", (6, None), bias_axes="d"),
]
INPUTS = {"ab,bc->ac": (3,), "abcd,cde->abe": (4, 2, 3), "abcd,dce->abe": (4, 2, 3)}


def built(layer, shape, seed=0):
    """Return a layer with random weights and what it reads."""
    rng = np.random.default_rng(seed)
    layer.build((None, *shape))
    layer.set_weights([rng.normal(size=w.shape) for w in layer.weights])
    return layer, np.float32(rng.normal(size=(3, *shape)))


def kernel_of(form):
    return getattr(form.layer, form.kernel_name).numpy()


def made_of(products):
    """Return `[groups, rows, outputs]` with the groups' outputs side by side, as a layer does."""
    groups, count, outputs = products.shape
    return np.moveaxis(products, 0, 1).reshape(count, groups * outputs)


@pytest.mark.parametrize(("layer", "shape"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_rows_times_columns_are_what_keras_computes(layer, shape):
    layer, x = built(layer, shape)
    form = matrix_form(layer)
    kernel, wanted = kernel_of(form), (layer(x) - layer.bias).numpy()
    columns = form.columns(kernel)
    np.testing.assert_array_equal(form.kernel(columns), kernel)
    got = made_of(form.rows(x).numpy() @ columns)
    np.testing.assert_allclose(got, wanted.reshape(-1, wanted.shape[-1]), atol=2e-5)
    np.testing.assert_array_equal(form.products(wanted), wanted.reshape(-1, wanted.shape[-1]))
    assert form.sites(x) == len(got)
    assert form.shape == columns.shape
    bias = form.of_bias(layer.bias.numpy())
    assert bias.shape == (form.groups, 1, columns.shape[2])
    np.testing.assert_array_equal(form.bias(bias), layer.bias)

    is_dense, axes = isinstance(layer, L.Dense), wanted.ndim - 2
    if is_dense:
        wanted = wanted.reshape(-1, wanted.shape[-1])
    for every, offset in ((2, 0), (2, 1), (3, 2)):
        some = slice(offset, None, every)
        picked = wanted[some] if is_dense else wanted[(slice(None), *[some] * axes)]
        got = made_of(form.rows(x, every, offset).numpy() @ columns)
        np.testing.assert_allclose(got, picked.reshape(-1, picked.shape[-1]), atol=2e-5)


@pytest.mark.parametrize("layer", EINSUMS, ids=lambda layer: layer.equation)
def test_an_einsum_is_a_product_in_the_order_of_its_letters(layer):
    layer, x = built(layer, INPUTS.get(layer.equation, (6, 4)))
    form = matrix_form(layer)
    kernel, made = kernel_of(form), layer(x).numpy()
    columns = form.columns(kernel)
    np.testing.assert_array_equal(form.kernel(columns), kernel)
    bias = form.of_bias(layer.bias.numpy())
    np.testing.assert_array_equal(form.bias(bias), layer.bias)
    got = form.rows(x).numpy() @ columns + bias
    np.testing.assert_allclose(made_of(got), form.products(made), atol=2e-5)
    assert form.sites(x) == got.shape[1]
    assert form.groups == columns.shape[0]


def test_an_offset_behind_the_last_output_gives_no_rows():
    layer, x = built(L.Conv2D(2, 3, strides=2), (5, 5, 4))
    assert matrix_form(layer).rows(x, 4, 3).shape == (1, 0, 36)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (L.Conv2D(2, 3, data_format="channels_first"), (4, 8, 8)),
        (L.Conv2DTranspose(2, 3, strides=2, output_padding=1), (4, 4, 3)),
        (L.Conv1DTranspose(2, 3, strides=2, output_padding=1), (4, 3)),
        (L.Conv2DTranspose(2, 3, dilation_rate=2), (4, 4, 3)),
        (L.Conv3DTranspose(2, 3, strides=2, output_padding=1), (4, 4, 4, 3)),
        (Einsum("abc,cd->ad", 4), (4, 3)),
        (Einsum("abc,cde->abde", (None, 3, 5), bias_axes="e"), (6, 4)),
        (Einsum("abc,cd->abd", (6, 5), bias_axes="bd"), (6, 4)),
        (L.PReLU(), (4,)),
        (L.Embedding(5, 3), (4,)),
        (L.BatchNormalization(), (4,)),
    ],
)
def test_other_layers_are_no_products(layer, shape):
    layer.build((None, *shape))
    assert len(matrix_form(layer).why) > 10


def test_rows_are_traced_on_a_tensor_of_unknown_batch():
    layer, x = built(L.Conv2DTranspose(3, 3, strides=2, padding="same"), (4, 5, 4))
    signature = [tf.TensorSpec([None, 4, 5, 4])]
    traced = tf.function(matrix_form(layer).rows, input_signature=signature).get_concrete_function()
    np.testing.assert_array_equal(traced(tf.constant(x)), matrix_form(layer).rows(x))
