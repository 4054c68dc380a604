"""A layer's rows times its columns are what Keras computes, for every layer that `Rows.can`."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from keras_edgeq.ptq.rows import Rows

L = tf_keras.layers
SIGNAL, IMAGE = (11, 4), (9, 10, 4)
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
]


def built(layer, shape, seed=0):
    """Return a layer with random weights and what it reads."""
    rng = np.random.default_rng(seed)
    layer.build((None, *shape))
    layer.set_weights([rng.normal(size=w.shape) for w in layer.weights])
    return layer, np.float32(rng.normal(size=(3, *shape)))


def kernel_of(rows):
    return getattr(rows.layer, rows.kernel_name).numpy()


def made_of(rows, products):
    """Return `[groups, rows, outputs]` with the groups' outputs side by side, as a layer does."""
    return np.moveaxis(products, 0, 1).reshape(products.shape[1], -1)


@pytest.mark.parametrize(("layer", "shape"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_rows_times_columns_are_what_keras_computes(layer, shape):
    layer, x = built(layer, shape)
    rows = Rows(layer)
    assert Rows.can(layer)
    kernel, wanted = kernel_of(rows), (layer(x) - layer.bias).numpy()
    columns = rows.columns(kernel)
    np.testing.assert_array_equal(rows.kernel(columns), kernel)
    got = made_of(rows, rows.rows(x).numpy() @ columns)
    np.testing.assert_allclose(got, wanted.reshape(-1, wanted.shape[-1]), atol=2e-5)
    assert rows.sites(x) == len(got)
    bias = rows.per_output(layer.bias.numpy())
    assert bias.shape == (rows.groups, 1, columns.shape[2])
    np.testing.assert_array_equal(rows.flat(bias), layer.bias)

    axes = 1 if rows.op == "Dense" else wanted.ndim - 2
    if rows.op == "Dense":
        wanted = wanted.reshape(-1, wanted.shape[-1])
    for every, offset in ((2, 0), (2, 1), (3, 2)):
        some = slice(offset, None, every)
        picked = wanted[some] if rows.op == "Dense" else wanted[(slice(None), *[some] * axes)]
        got = made_of(rows, rows.rows(x, every, offset).numpy() @ columns)
        np.testing.assert_allclose(got, picked.reshape(-1, picked.shape[-1]), atol=2e-5)


def test_an_offset_behind_the_last_output_gives_no_rows():
    layer, x = built(L.Conv2D(2, 3, strides=2), (5, 5, 4))
    assert Rows(layer).rows(x, 4, 3).shape == (1, 0, 36)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (L.Dense(3), (4,)),
        (L.Conv1D(3, 3), (9, 4)),
        (L.Conv2D(6, 3, groups=2), (7, 7, 4)),
        (L.DepthwiseConv2D(3, depth_multiplier=2), (7, 7, 4)),
        (L.Conv1DTranspose(3, 3, strides=3), (6, 4)),
        (L.Conv2DTranspose(3, 2, strides=2), (5, 5, 4)),
    ],
)
def test_the_mean_row_is_the_mean_of_rows_of_a_constant_input(layer, shape):
    layer, x = built(layer, shape)
    means = np.arange(1.0, 5.0)
    rows = Rows(layer)
    seen = rows.rows(np.float32(np.broadcast_to(means, x.shape))).numpy()
    np.testing.assert_allclose(rows.mean_row(means)[:, :, 0], seen.mean(1), rtol=1e-6)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (L.Conv2D(2, 3, data_format="channels_first"), (4, 8, 8)),
        (L.Conv2DTranspose(2, 3, strides=2, output_padding=1), (4, 4, 3)),
        (L.Conv1DTranspose(2, 3, strides=2, output_padding=1), (4, 3)),
        (L.Conv2DTranspose(2, 3, dilation_rate=2), (4, 4, 3)),
        (L.Conv3D(2, 2), (4, 4, 4, 3)),
        (L.EinsumDense("ab,bc->ac", output_shape=4), (4,)),
        (L.Embedding(5, 3), (4,)),
        (L.BatchNormalization(), (4,)),
    ],
)
def test_other_layers_are_no_products(layer, shape):
    layer.build((None, *shape))
    assert not Rows.can(layer)


def test_rows_are_traced_on_a_tensor_of_unknown_batch():
    layer, x = built(L.Conv2DTranspose(3, 3, strides=2, padding="same"), (4, 5, 4))
    signature = [tf.TensorSpec([None, 4, 5, 4])]
    traced = tf.function(Rows(layer).rows, input_signature=signature).get_concrete_function()
    np.testing.assert_array_equal(traced(tf.constant(x)), Rows(layer).rows(x))
