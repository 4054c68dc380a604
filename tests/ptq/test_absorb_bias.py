import numpy as np
import pytest
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import CalibrationDataError
from keras_edgeq.prepare import prepare
from tests.harness import (
    assert_close,
    assert_same_state,
    assert_same_structure,
    outputs,
    saved_and_loaded,
    snapshot,
)
from tests.models import inputs_for, make, train_like

L = tf_keras.layers
QUIET = {"progress": False}
# Models in which a technique has nothing to do show what it leaves alone.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.* changed nothing in:keras_edgeq.QuantizationWarning"
)


def pair(between, reader, shape=(6, 6, 3), bias=20.0):
    """Return a convolution with a large bias on channel 1, and a layer that reads it."""
    x = tf_keras.Input(shape)
    first = L.Conv2D(4, 3, name="first")
    y = first(x)
    for layer in between:
        y = layer(y)
    model = train_like(tf_keras.Model(x, reader(y)))
    kernel, values = first.get_weights()
    values[1] = bias
    first.set_weights([kernel, values])
    return model


def moved(model, result):
    return model.get_layer("first").bias.numpy() - result.get_layer("first").bias.numpy()


def test_two_dense_layers_by_hand():
    x = tf_keras.Input((1,))
    model = tf_keras.Model(x, L.Dense(1, name="b")(L.ReLU()(L.Dense(2, name="a")(x))))
    kernel, bias = np.float32([[1.0, 1.0]]), np.float32([10.0, 0.0])
    model.set_weights([kernel, bias, np.float32([[3.0], [5.0]]), np.float32([1.0])])
    # Both samples give the same: lows are 10 and 0, without deviation; 2 samples take 1 / sqrt(2).
    result = eq.absorb_bias(model, np.zeros((2, 1)), **QUIET)
    c = 10.0 - 10.0 / np.sqrt(2.0)
    np.testing.assert_allclose(result.get_layer("a").bias, [10.0 - c, 0.0], rtol=1e-6)
    np.testing.assert_allclose(result.get_layer("b").bias, [1.0 + 3.0 * c], rtol=1e-6)


DIFFICULT = (
    "residual", "sequential", "shared_layer", "several_outputs", "op_layers", "conv1d", "grouped",
    "depth_multiplier", "pools", "moves", "batch_norm_two_readers", "dead_channel",
)  # fmt: skip


@pytest.mark.parametrize("hazard", DIFFICULT)
def test_the_function_stays(hazard):
    model = make(hazard)
    x = inputs_for(model, 8)
    before, wanted = snapshot(model), outputs(prepare(model), x)
    result = eq.absorb_bias(model, x, **QUIET)
    assert_same_state(before, snapshot(model))
    assert_same_structure(model, result)
    assert_close(wanted, outputs(result, x))


BETWEEN = {
    "relu, convolution": ([L.ReLU()], L.Conv2D(2, 3, use_bias=False)),
    "relu, depthwise": ([L.ReLU(), L.Dropout(0.5)], L.DepthwiseConv2D(3, depth_multiplier=2)),
    "relu, grouped": ([L.ReLU()], L.Conv2D(4, 1, padding="same", groups=2)),
    "relu, mean, dense": ([L.ReLU(), L.GlobalAveragePooling2D()], L.Dense(2, use_bias=False)),
    "pool, flatten, dense": ([L.ReLU(), L.MaxPooling2D(2), L.Flatten()], L.Dense(2)),
    "average, flatten, dense": (
        [L.ReLU(), L.AveragePooling2D(3, padding="same"), L.Flatten()], L.Dense(2),
    ),
    "linear": ([], L.Conv2D(2, 1)),
}  # fmt: skip


@pytest.mark.parametrize("between", BETWEEN)
def test_a_large_bias_moves_on_through(between):
    layers, reader = (
        [layer.__class__.from_config(layer.get_config()) for layer in part]
        for part in (BETWEEN[between][0], [BETWEEN[between][1]])
    )
    model = pair(layers, reader[0])
    x = inputs_for(model, 64)
    result = eq.absorb_bias(model, x, **QUIET)
    shift = moved(model, result)
    assert shift[1] > 4.0
    if between != "linear":
        np.testing.assert_array_equal(shift[[0, 2, 3]], 0.0)
    fresh = inputs_for(model, 64, seed=5)
    assert_close(outputs(model, fresh), outputs(result, fresh))
    assert_close(outputs(result, x), outputs(saved_and_loaded(result), x), 0.0)


def test_a_linear_channel_is_centred():
    model = pair([], L.Conv2D(2, 1))
    x = inputs_for(model, 16)
    result = eq.absorb_bias(model, x, **QUIET)
    inner = tf_keras.Model(result.input, result.get_layer("first").output)(x).numpy()
    low, high = inner.min((0, 1, 2)), inner.max((0, 1, 2))
    np.testing.assert_allclose(low, -high, rtol=1e-4)


@pytest.mark.parametrize(
    ("between", "reader"),
    [
        ([L.ReLU()], L.Conv2D(2, 3, padding="same")),
        ([L.ReLU(), L.ZeroPadding2D(1)], L.Conv2D(2, 3)),
        ([L.ReLU(30.0)], L.Conv2D(2, 1)),
        ([L.LeakyReLU()], L.Conv2D(2, 1)),
        ([L.ReLU()], L.Conv2DTranspose(2, 3)),
        ([L.ReLU()], L.Activation("sigmoid")),
    ],
    ids=["same", "padded", "capped", "leaky", "transposed", "sigmoid"],
)
def test_a_bias_stays_in_front_of(between, reader):
    model = pair(between, reader)
    result = eq.absorb_bias(model, inputs_for(model, 16), **QUIET)
    np.testing.assert_array_equal(moved(model, result), 0.0)


def test_a_bias_stays_where_one_of_two_readers_cannot_take_it():
    x = tf_keras.Input((6, 6, 3))
    y = L.ReLU()(L.Conv2D(4, 3, name="first", bias_initializer="ones")(x))
    heads = [L.Conv2D(2, 1)(y), L.Conv2D(2, 3, padding="same")(y)]
    model = train_like(tf_keras.Model(x, heads))
    model.get_layer("first").bias.assign([20.0] * 4)
    result = eq.absorb_bias(model, inputs_for(model, 16), **QUIET)
    np.testing.assert_array_equal(moved(model, result), 0.0)


def test_without_data_batch_norms_tell():
    x = tf_keras.Input((6, 6, 3))
    y = L.ReLU()(L.BatchNormalization(name="norm")(L.Conv2D(3, 3, name="first")(x)))
    model = train_like(tf_keras.Model(x, L.Conv2D(2, 1)(y)))
    norm = model.get_layer("norm")
    _, _, *rest = norm.get_weights()
    rest[1][:] = 100.0  # no epsilon to speak of
    norm.set_weights([np.float32([0.01, 0.1, -0.01]), np.float32([1.0, 0.5, 2.0]), *rest])
    shift = moved(prepare(model), eq.absorb_bias(model))
    np.testing.assert_allclose(shift, [1.0 - 0.24, 0.0, 2.0 - 0.24], rtol=1e-3)


def test_without_data_and_batch_norms_all_stays():
    model = pair([L.ReLU()], L.Conv2D(2, 1))
    np.testing.assert_array_equal(moved(model, eq.absorb_bias(model)), 0.0)


def test_data_with_nan_is_refused():
    model = pair([L.ReLU()], L.Conv2D(2, 1))
    with pytest.raises(CalibrationDataError, match="NaN"):
        eq.absorb_bias(model, np.full((4, 6, 6, 3), np.nan), **QUIET)
