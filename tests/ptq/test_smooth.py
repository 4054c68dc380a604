import numpy as np
import pytest
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import CalibrationDataError, EdgeqError
from keras_edgeq.numerics.metrics import sqnr_db
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


def block(norm, reads=("dense",)):
    """Return a normalization with outlier channels, and layers that read it."""
    x = tf_keras.Input((6, 8))
    y = L.Dropout(0.1)(norm(x))
    made = {
        "dense": lambda: L.Dense(8, name="query")(y),
        "key": lambda: L.Dense(8, name="key")(y),
        "einsum": lambda: L.EinsumDense(
            "abc,cde->abde", output_shape=(None, 2, 4), bias_axes="de", name="value"
        )(y),
        "skip": lambda: L.Add(name="skip")([x, y]),
    }
    model = train_like(tf_keras.Model(x, [made[name]() for name in reads]))
    gamma, beta, *rest = norm.get_weights()
    gamma[2], beta[2] = 60.0, 20.0
    norm.set_weights([gamma, beta, *rest])
    return model


def layer_norm():
    return L.LayerNormalization(name="norm")


def test_a_layer_norm_and_a_dense_layer_by_hand():
    x = tf_keras.Input((2,))
    model = tf_keras.Model(x, L.Dense(1, name="dense")(L.LayerNormalization(name="norm")(x)))
    model.set_weights(
        [np.float32([16.0, 1.0]), np.float32([8.0, 0.0]), np.float32([[0.25], [4.0]]), np.zeros(1)]
    )
    # Normalized, each sample is (-1, 1) or (1, -1): the greatest are 16 + 8 and 1.
    data = np.float32([[0.0, 1e3], [1e3, 0.0]])
    result = eq.smooth(model, data, 0.5, **QUIET)
    s = np.array([np.sqrt(24.0 / 0.25), np.sqrt(1.0 / 4.0)])
    norm, dense = result.get_layer("norm"), result.get_layer("dense")
    np.testing.assert_allclose(norm.gamma, [16.0, 1.0] / s, rtol=1e-4)
    np.testing.assert_allclose(norm.beta, [8.0, 0.0] / s, rtol=1e-4)
    np.testing.assert_allclose(dense.kernel[:, 0], [0.25, 4.0] * s, rtol=1e-4)


@pytest.mark.parametrize(
    ("make_norm", "alpha"),
    [(layer_norm, 0.0), (layer_norm, 0.5), (layer_norm, 1.0), (L.BatchNormalization, 0.5)],
)
def test_the_function_stays(make_norm, alpha):
    model = block(make_norm(), ("dense", "key", "einsum"))
    x = inputs_for(model, 16)
    before, wanted = snapshot(model), outputs(model, x)
    result = eq.smooth(model, x, alpha, **QUIET)
    assert_same_state(before, snapshot(model))
    assert_same_structure(model, result)
    got = outputs(result, x)
    assert_close(wanted, got)
    assert_close(got, outputs(saved_and_loaded(result), x), 0.0)
    assert np.abs(result.get_layer("query").kernel - model.get_layer("query").kernel).max() > 0.1
    again = eq.smooth(result, x, alpha, **QUIET)
    if alpha == 0.5:
        for once, twice in zip(result.get_weights(), again.get_weights(), strict=True):
            np.testing.assert_allclose(twice, once, rtol=1e-3, atol=1e-5)


def test_several_readers_share_the_greatest_of_their_weights():
    model = block(layer_norm(), ("dense", "key", "einsum"))
    result = eq.smooth(model, inputs_for(model, 16), 0.0, **QUIET)
    names = ("query", "key", "value")
    greatest = [np.abs(result.get_layer(n).kernel.numpy()).reshape(8, -1).max(1) for n in names]
    np.testing.assert_allclose(np.max(greatest, axis=0), 1.0, rtol=1e-5)


@pytest.mark.parametrize("reads", [("dense", "skip"), ("skip",)])
def test_a_norm_that_something_else_reads_stays(reads):
    model = block(layer_norm(), reads)
    result = eq.smooth(model, inputs_for(model, 8), **QUIET)
    np.testing.assert_array_equal(result.get_layer("norm").gamma, model.get_layer("norm").gamma)


def test_attention_stays():
    model = make("attention")
    x = inputs_for(model, 8)
    assert_close(outputs(model, x), outputs(eq.smooth(model, x, **QUIET), x))


def test_a_cap_between_stops_a_scale():
    x = tf_keras.Input((4,))
    y = L.ReLU(6.0)(L.LayerNormalization(name="norm")(x))
    model = train_like(tf_keras.Model(x, L.Dense(2)(y)))
    result = eq.smooth(model, inputs_for(model, 8), **QUIET)
    np.testing.assert_array_equal(result.get_layer("norm").gamma, model.get_layer("norm").gamma)


def test_a_convolution_behind_a_batch_norm_is_left_alone():
    model = make("forward_padded_conv")
    x = inputs_for(model, 4)
    result = eq.smooth(model, x, **QUIET)
    np.testing.assert_array_equal(result.get_layer("conv").kernel, model.get_layer("conv").kernel)


@pytest.mark.parametrize("make_norm", [layer_norm, L.BatchNormalization])
def test_eight_bits_lose_less(make_norm):
    model = block(make_norm(), ("dense", "key"))
    x = inputs_for(model, 64)
    wanted = model(x)
    noise = []
    for candidate in (model, eq.smooth(model, x, **QUIET)):
        got = eq.quantize(candidate, x, "litert_int8", **QUIET)(x)
        noise.append(min(sqnr_db(a, b) for a, b in zip(wanted, got, strict=True)))
    assert noise[1] > noise[0] + 1.0


@pytest.mark.parametrize("alpha", [-0.1, 1.5, float("nan")])
def test_alpha_outside_its_range_is_refused(alpha):
    model = block(layer_norm())
    with pytest.raises(EdgeqError, match="alpha"):
        eq.smooth(model, inputs_for(model, 4), alpha)


def test_data_with_nan_is_refused():
    model = block(layer_norm())
    with pytest.raises(CalibrationDataError, match="NaN"):
        eq.smooth(model, np.full((4, 6, 8), np.nan), **QUIET)
