import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import CalibrationDataError, UnsupportedModelError
from keras_edgeq.numerics.metrics import sqnr_db
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
from tests.short import without_long

L = tf_keras.layers
QUIET = {"progress": False}
# Models in which a technique has nothing to do show what it leaves alone.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.* changed nothing in:keras_edgeq.QuantizationWarning"
)


def ranges(model, name, axis):
    """Return the greatest magnitude of a kernel per channel on one of its axes."""
    kernel = np.abs(model.get_layer(name).weights[0].numpy())
    return kernel.max(axis=tuple(i for i in range(kernel.ndim) if i != axis % kernel.ndim))


def spoiled(model, name, channels, factor, seed=3):
    """Multiply some output channels of a layer, as a nearly dead batch norm does when folded."""
    layer = model.get_layer(name)
    kernel, *rest = layer.get_weights()
    kernel[..., channels] *= factor
    layer.set_weights([kernel, *rest])
    return model


def test_two_dense_layers_by_hand():
    x = tf_keras.Input((2,))
    model = tf_keras.Model(x, L.Dense(1, name="b")(L.Dense(2, activation="relu", name="a")(x)))
    a, b = np.float32([[8.0, 0.5], [2.0, 0.25]]), np.float32([[0.5], [2.0]])
    model.set_weights([a, np.float32([4.0, 1.0]), b, np.float32([3.0])])
    result = eq.equalize(model)
    # s = sqrt(8 / 0.5) = 4 and sqrt(0.5 / 2) = 0.5
    np.testing.assert_array_equal(result.get_layer("a").kernel, [[2.0, 1.0], [0.5, 0.5]])
    np.testing.assert_array_equal(result.get_layer("a").bias, [1.0, 2.0])
    np.testing.assert_array_equal(result.get_layer("b").kernel, [[2.0], [1.0]])
    np.testing.assert_array_equal(result.get_layer("b").bias, [3.0])


# Where a scale can go wrong: shared layers, several readers, caps, moves, what is not linear.
DIFFICULT = (
    "residual", "sequential", "shared_layer", "shared_in_series", "nested_twice", "unsorted_inputs",
    "several_outputs", "fused_activations", "separate_activations", "op_layers", "op_constants",
    "separable", "conv1d", "transposed", "depth_multiplier", "grouped", "einsum_dense", "prelu",
    "lambda_island", "one_channel", "dynamic_size", "batch_norm_first", "batch_norm_two_readers",
    "pools", "moves", "fixed_meets_free", "zero_channel", "dead_channel", "constant_activation",
)  # fmt: skip


@pytest.mark.parametrize(
    "hazard",
    without_long(DIFFICULT, "nested_twice", "separate_activations", "op_constants", "op_layers"),
)
def test_the_function_stays_and_a_second_time_changes_nothing(hazard):
    model = make(hazard)
    x = inputs_for(model, 8)
    before, wanted = snapshot(model), outputs(prepare(model), x)
    result = eq.equalize(model, x, **QUIET)
    assert_same_state(before, snapshot(model))
    assert_same_structure(model, result)
    assert_close(wanted, outputs(result, x))
    again = eq.equalize(result, x, **QUIET)
    for once, twice in zip(result.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(twice, once, rtol=0.03, atol=1e-6)


CHAINS = {
    "conv, depthwise, conv": [
        L.Conv2D(6, 3, name="first"), L.ReLU(), L.ZeroPadding2D(1),
        L.DepthwiseConv2D(3, name="middle"), L.ReLU(), L.Conv2D(4, 1, name="last"),
    ],
    "conv, two depthwise, conv": [
        L.Conv2D(6, 3, name="first"), L.DepthwiseConv2D(3, name="middle"), L.LeakyReLU(),
        L.DepthwiseConv2D(3, depth_multiplier=2), L.MaxPooling2D(2), L.Conv2D(4, 1, name="last"),
    ],
    "grouped": [
        L.Conv2D(6, 3, groups=3, name="first"), L.ReLU(), L.Conv2D(6, 3, groups=2, name="last"),
    ],
    "transposed": [
        L.Conv2DTranspose(4, 3, strides=2, name="first"), L.PReLU(), L.Conv2DTranspose(3, 3),
    ],
    "flattened": [
        L.Conv2D(5, 3, name="first"), L.ReLU(), L.AveragePooling2D(2), L.Flatten(), L.Dense(4),
    ],
    "mean": [L.Conv2D(5, 3, name="first"), L.ReLU(), L.GlobalAveragePooling2D(), L.Dense(4)],
    "signal": [
        L.Reshape((64, 6)), L.Conv1D(6, 3, padding="causal", name="first"), L.ReLU(),
        L.DepthwiseConv1D(3), L.UpSampling1D(2), L.Conv1D(3, 1),
    ],
}  # fmt: skip


@pytest.mark.parametrize("chain", CHAINS)
def test_scales_run_through(chain):
    layers = [layer.__class__.from_config(layer.get_config()) for layer in CHAINS[chain]]
    model = train_like(tf_keras.Sequential([tf_keras.Input((8, 8, 6)), *layers]))
    axis = -2 if "Transpose" in type(layers[0]).__name__ else -1
    model = tf_keras.Model(model.inputs, model.outputs)
    layer = model.get_layer("first")
    kernel, bias = layer.get_weights()
    index = [slice(None)] * kernel.ndim
    index[axis] = [0]
    kernel[tuple(index)] *= 100.0
    layer.set_weights([kernel, bias])
    x = inputs_for(model, 4)
    result = eq.equalize(model)
    assert_close(outputs(model, x), outputs(result, x))
    before, after = (ranges(m, "first", axis) for m in (model, result))
    assert after.max() / np.median(after) < 0.3 * before.max() / np.median(before)


def test_branches_that_meet_in_an_add_share_their_scales():
    x = tf_keras.Input((6, 6, 3))
    stem = L.Conv2D(4, 1, name="stem")(x)
    y = L.Conv2D(4, 3, padding="same", name="branch")(L.ReLU()(stem))
    y = L.ReLU(name="joined")(L.Add()([stem, y]))
    model = train_like(tf_keras.Model(x, L.Conv2D(2, 1, name="head")(y)))
    for name in ("stem", "branch"):
        spoiled(model, name, [2], 50.0)
    result = eq.equalize(model)
    data = inputs_for(model, 4)
    assert_close(outputs(model, data), outputs(result, data))
    scales = [
        model.get_layer(n).get_weights()[1] / result.get_layer(n).get_weights()[1]
        for n in ("stem", "branch")
    ]
    np.testing.assert_allclose(scales[0], scales[1], rtol=1e-5)
    assert scales[0].max() > 2.0 * scales[0].min()
    made = np.maximum(ranges(result, "stem", -1), ranges(result, "branch", -1))
    read = np.maximum(ranges(result, "branch", -2), ranges(result, "head", -2))
    np.testing.assert_allclose(made, read, rtol=0.03)


@pytest.mark.parametrize("cap", [6.0, 2.0])
def test_a_cap_is_kept_where_channels_reach_it(cap):
    x = tf_keras.Input((4,))
    y = L.ReLU(cap, name="cap")(L.Dense(3, name="a")(x))
    model = tf_keras.Model(x, L.Dense(2, name="b")(y))
    a = np.diag([3.0 * cap, 0.05 * cap, 0.05 * cap, 0.0])[:, :3]
    model.set_weights([a, np.zeros(3), np.full((3, 2), 50.0), np.zeros(2)])
    data = np.random.default_rng(0).uniform(0, 1, (64, 4)).astype(np.float32)
    result = eq.equalize(model, data, **QUIET)
    fresh = np.random.default_rng(1).uniform(0, 1, (500, 4)).astype(np.float32)
    assert_close(outputs(model, fresh), outputs(result, fresh))
    scaled = result.get_layer("a").kernel.numpy()
    assert scaled[0, 0] == np.float32(3.0 * cap)
    # Grown, but not up to the cap.
    assert np.all(np.diag(scaled)[1:] > 0.15 * cap)
    assert np.all(np.diag(scaled)[1:] < cap)


def test_without_data_a_cap_is_kept_by_batch_norms():
    x = tf_keras.Input((4,))
    y = L.ReLU(6.0)(L.BatchNormalization(name="norm")(L.Dense(3, use_bias=False, name="a")(x)))
    model = tf_keras.Model(x, L.Dense(2, name="b")(y))
    train_like(model)
    norm = model.get_layer("norm")
    gamma, beta = np.float32([1.0, 0.01, 0.01]), np.float32([2.0, 0.1, 0.02])
    norm.set_weights([gamma, beta, *norm.get_weights()[2:]])
    prepared, result = prepare(model), eq.equalize(model)
    before, after = (m.get_layer("a").kernel.numpy() for m in (prepared, result))
    np.testing.assert_array_equal(before[:, 0], after[:, 0])  # 2 + 24 * 1 > 6
    assert np.all(np.abs(after[:, 1:]) > 2.0 * np.abs(before[:, 1:]))


def test_without_data_and_batch_norms_capped_channels_stay():
    x = tf_keras.Input((4,))
    model = tf_keras.Model(x, L.Dense(2)(L.ReLU(6.0)(L.Dense(3)(x))))
    train_like(model)
    for before, after in zip(model.get_weights(), eq.equalize(model).get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("between", ["sigmoid", "swish", "softmax", "elu"])
def test_no_scale_runs_through(between):
    x = tf_keras.Input((4,))
    model = tf_keras.Model(x, L.Dense(2)(L.Activation(between)(L.Dense(3)(x))))
    train_like(model)
    for before, after in zip(model.get_weights(), eq.equalize(model).get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_shifted_pad_stops_a_scale():
    x = tf_keras.Input((4, 4, 2))
    y = tf.pad(L.Conv2D(3, 1)(x), [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=1.0)
    model = train_like(tf_keras.Model(x, L.Conv2D(2, 3)(y)))
    for before, after in zip(model.get_weights(), eq.equalize(model).get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_channel_of_zeros_keeps_its_scale():
    x = tf_keras.Input((4,))
    model = train_like(tf_keras.Model(x, L.Dense(2, name="b")(L.ReLU()(L.Dense(3, name="a")(x)))))
    kernel, bias = model.get_layer("a").get_weights()
    kernel[:, 1] = 0.0
    model.get_layer("a").set_weights([kernel, bias])
    result = eq.equalize(model)
    assert result.get_layer("a").bias[1] == bias[1]
    assert all(np.isfinite(w).all() for w in result.get_weights())


def test_a_tiny_channel_under_a_large_bias_stays_within_the_biases():
    x = tf_keras.Input((4,))
    model = train_like(tf_keras.Model(x, L.Dense(2, name="b")(L.ReLU()(L.Dense(3, name="a")(x)))))
    kernel, bias = model.get_layer("a").get_weights()
    kernel[:, 1], bias[:] = 1e-20, [0.5, -0.3, 0.1]
    model.get_layer("a").set_weights([kernel, bias])
    layer = eq.equalize(model).get_layer("a")
    assert np.abs(layer.bias).max() < 10.0 * np.abs(layer.kernel).max()


@pytest.mark.filterwarnings("ignore::keras_edgeq.errors.QuantizationWarning")
def test_per_tensor_weights_lose_less():
    model = tf_keras.Sequential([
        tf_keras.Input((8, 8, 3)),
        L.Conv2D(8, 3, name="conv"), L.BatchNormalization(), L.ReLU(6.0),
        L.DepthwiseConv2D(3), L.BatchNormalization(), L.ReLU(6.0),
        L.Conv2D(8, 1), L.BatchNormalization(), L.ReLU(), L.GlobalAveragePooling2D(), L.Dense(4),
    ])  # fmt: skip
    train_like(model)
    # Nearly dead channels: the next kernel makes up for them, as after training with batch norm.
    norm = model.layers[1]
    gamma, beta, *rest = norm.get_weights()
    gamma[:3], beta[:3] = 0.005, 0.01
    norm.set_weights([gamma, beta, *rest])
    depthwise = model.layers[3]
    kernel, bias = depthwise.get_weights()
    kernel[:, :, :3] *= 100.0
    depthwise.set_weights([kernel, bias])
    x = inputs_for(model, 32)
    wanted = model(x).numpy()
    profile = "litert_int8_per_tensor"
    plain, equal = (
        sqnr_db(wanted, eq.quantize(m, x, profile, **QUIET)(x).numpy())
        for m in (model, eq.equalize(model, x, **QUIET))
    )
    assert equal > plain + 10.0


def test_the_result_saves_and_loads():
    model = make("residual")
    x = inputs_for(model, 8)
    result = eq.equalize(model, x, **QUIET)
    assert_close(outputs(result, x), outputs(saved_and_loaded(result), x), 0.0)


def test_data_with_nan_is_refused():
    model = make("residual")
    x = inputs_for(model, 8)
    x[3, 0, 0, 0] = np.nan
    with pytest.raises(CalibrationDataError, match="NaN"):
        eq.equalize(model, x, **QUIET)


def test_data_that_overflows_is_refused_with_the_tensor_named():
    model = make("residual")
    x = np.full((4, 8, 8, 3), 3e38, np.float32)
    with pytest.raises(CalibrationDataError, match="becomes NaN or infinite"):
        eq.equalize(model, x, **QUIET)


def test_a_subclassed_model_is_refused():
    class Subclassed(tf_keras.Model):
        def call(self, x):
            return x

    with pytest.raises(UnsupportedModelError, match="subclassed"):
        eq.equalize(Subclassed())
