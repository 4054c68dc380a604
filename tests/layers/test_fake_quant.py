import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from keras_edgeq.layers import FakeQuant
from keras_edgeq.spec import Encoding, QuantSpec
from keras_edgeq.spec.quant_spec import HALF
from tests import reference

CASES = {
    "int8": (QuantSpec(), 0.02, 13),
    "uint8": (QuantSpec(signed=False), 0.02, 131),
    "int4 symmetric": (QuantSpec(4, symmetric=True), 0.3, 0),
    "int8 narrow": (QuantSpec(symmetric=True, narrow_range=True), 0.01, 0),
    "int16": (QuantSpec(16), 0.0001, -300),
    "decided unsigned": (QuantSpec(symmetric=True, signed=False), 0.02, 0),
}


def rounded_by_reference(x, scale, zero_point, bounds, half_away=False, factor=1.0):
    """Grid steps of `x * (factor / scale)` and their real values; kernels multiply, not divide."""
    ratio = x * (np.float32(factor) / np.float32(scale))
    steps = reference.quantize(ratio, np.float32(1.0), zero_point, *bounds, half_away) - zero_point
    return steps, steps.astype(np.float32) * np.float32(scale)


def layer_of(spec, scale, zero_point, shape=(5, 4)):
    layer = FakeQuant(spec, "conv")
    layer.build((None, *shape[1:]))
    layer.assign(Encoding(spec, np.float32(scale), np.int32(zero_point)))
    return layer


@pytest.mark.parametrize("half_away", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_a_tensor_is_rounded_as_the_reference_does(case, half_away):
    spec, scale, zero_point = CASES[case]
    x = np.random.default_rng(0).normal(0.0, 2.0, (5, 4)).astype(np.float32)
    rounding = "half_away" if half_away else "half_even"
    rounded, steps, used = layer_of(*CASES[case])(x, rounding=rounding)
    bounds = reference.grid_bounds(spec.bits, spec.signed, spec.narrow_range)
    wanted_steps, wanted = rounded_by_reference(x, scale, zero_point, bounds, half_away)
    np.testing.assert_array_equal(steps, wanted_steps)
    np.testing.assert_array_equal(rounded, wanted)
    assert used.shape == ()
    assert float(used) == np.float32(scale)


@pytest.mark.parametrize(("rounding", "steps"), [
    ("half_even", [-2.0, 0.0, 0.0, 2.0]),
    ("half_up", [-1.0, 0.0, 1.0, 2.0]),
    ("half_away", [-2.0, -1.0, 1.0, 2.0]),
])  # fmt: skip
def test_ties_are_rounded_as_the_call_asks(rounding, steps):
    layer = layer_of(QuantSpec(symmetric=True), 0.5, 0)
    got = layer(tf.constant([[-0.75, -0.25, 0.25, 0.75]]), rounding=rounding)[1]
    np.testing.assert_array_equal(got, [steps])


def test_per_channel_grids_round_each_channel_on_its_own():
    spec = QuantSpec(symmetric=True, narrow_range=True, axes=(2, 3))
    layer = FakeQuant(spec)
    layer.build((3, 3, 4, 2))
    scale = np.random.default_rng(0).uniform(0.01, 0.1, (1, 1, 4, 2)).astype(np.float32)
    layer.assign(Encoding(spec, scale, np.zeros(scale.shape, np.int32)))
    x = np.random.default_rng(1).normal(size=(3, 3, 4, 2)).astype(np.float32)
    rounded, _, used = layer(x)
    np.testing.assert_array_equal(rounded, rounded_by_reference(x, scale, 0, (-127, 127))[1])
    np.testing.assert_array_equal(used, scale)


def test_sums_of_a_layer_are_requantized_with_one_factor_per_channel():
    layer = layer_of(QuantSpec(), 0.05, 7)
    sums = np.random.default_rng(0).integers(-5000, 5000, (9, 4)).astype(np.float32)
    factors = np.float32([0.0011, 0.0007, 0.002, 0.0003])
    _, steps, _ = layer(sums, input_scale=tf.constant(factors))
    wanted, _ = rounded_by_reference(sums, 0.05, 7, (-128, 127), factor=factors)
    np.testing.assert_array_equal(steps, wanted)


@pytest.mark.parametrize(("activation", "function"), [
    ("relu", lambda x: np.maximum(x, 0)), ("relu6", lambda x: np.clip(x, 0, 6)),
    ((0.0, 2.3), lambda x: np.clip(x, 0, 2.3)), ((-1.01, 1.5), lambda x: np.clip(x, -1.01, 1.5)),
])  # fmt: skip
def test_a_fused_activation_rounds_as_if_it_came_first(activation, function):
    scale, zero_point = 10.0 / 255, -77
    layer = layer_of(QuantSpec(), scale, zero_point)
    x = np.random.default_rng(0).normal(0.0, 5.0, (50, 4)).astype(np.float32)
    rounded, _, _ = layer(x, activation=activation)
    wanted = rounded_by_reference(function(x), scale, zero_point, (-128, 127))[1]
    np.testing.assert_array_equal(rounded, wanted)
    np.testing.assert_array_equal(FakeQuant.activate(x, {"activation": activation}), function(x))


def test_without_a_fused_activation_nothing_is_applied():
    assert FakeQuant.activate(-1.0, {}) == -1.0


@pytest.mark.parametrize("case", CASES)
def test_the_encoding_reads_back_what_was_assigned(case):
    spec, scale, zero_point = CASES[case]
    encoding = layer_of(*CASES[case]).encoding
    assert encoding.spec == spec
    assert encoding.scale == np.float32(scale)
    assert encoding.zero_point == zero_point


def test_an_undecided_sign_is_decided_by_the_encoding():
    spec = QuantSpec(symmetric=True, signed=None)
    layer = FakeQuant(spec)
    layer.build((None, 3))
    layer.assign(Encoding(QuantSpec(symmetric=True, signed=False), np.float32(0.1), np.int32(0)))
    assert layer.encoding.spec.signed is False
    np.testing.assert_allclose(layer(tf.constant([[-1.0, 1.0, 99.0]]))[0], [[0.0, 1.0, 25.5]])


def test_before_calibration_there_is_no_encoding():
    layer = FakeQuant(QuantSpec())
    layer.build((None, 3))
    assert layer.encoding is None


def test_bits_change_without_retracing():
    layer = layer_of(QuantSpec(), 0.1, 0)
    traces = []

    @tf.function
    def call(x):
        traces.append(1)
        return layer(x)[0]

    x = tf.constant([[0.26, 30.0]])
    np.testing.assert_allclose(call(x), [[0.3, 12.7]], rtol=1e-6)
    layer.assign(Encoding(QuantSpec(4), np.float32(0.5), np.int32(0)))
    np.testing.assert_allclose(call(x), [[0.5, 3.5]])
    assert len(traces) == 1
    assert layer.encoding.spec.bits == 4


def test_the_grid_does_not_train_by_itself():
    layer = layer_of(QuantSpec(), 0.1, 0)
    assert layer.trainable_weights == []
    assert len(layer.weights) == 4


def test_calling_one_layer_on_two_tensors_shares_the_grid():
    layer = layer_of(QuantSpec(), 0.5, 0, (None, None))
    assert float(layer(tf.constant([0.6]))[0][0]) == 0.5
    assert float(layer(tf.constant([[0.2]]))[0][0, 0]) == 0.0


@pytest.mark.parametrize("dtype", ["mixed_float16", "float16", "float64"])
def test_the_grid_stays_float32_under_any_policy(dtype):
    layer = FakeQuant(QuantSpec(), dtype=dtype)
    layer.build((None, 2))
    assert {w.dtype for w in layer.weights} == {tf.float32}
    assert layer.compute_dtype == "float32"


def test_a_half_precision_tensor_is_rounded_in_float32():
    layer = layer_of(QuantSpec(), 0.1, 0)
    x = tf.constant([[0.26, 3.14]], tf.float16)
    rounded, _, _ = layer(x)
    wanted = rounded_by_reference(x.numpy().astype(np.float32), 0.1, 0, (-128, 127))[1]
    assert rounded.dtype == tf.float32
    np.testing.assert_array_equal(rounded, wanted)


def test_the_mask_passes():
    layer = layer_of(QuantSpec(), 0.1, 0)
    mask = tf.constant([True, False])
    rounded, steps, scale = layer.compute_mask(tf.zeros([2, 3]), mask)
    assert rounded is steps is mask
    assert scale is None


def test_the_configuration_makes_the_same_layer():
    spec = QuantSpec(4, symmetric=True, narrow_range=True, axes=(1,))
    layer = FakeQuant(spec, "conv", name="conv/quant")
    twin = FakeQuant.from_config(layer.get_config())
    assert (twin.spec, twin.tensor, twin.name) == (spec, "conv", "conv/quant")
    assert tf_keras.saving.get_registered_name(FakeQuant) == "keras_edgeq>FakeQuant"


def half_layer(shape=(None, 4)):
    layer = FakeQuant(HALF, "conv")
    layer.build(shape)
    return layer


def test_a_half_precision_grid_casts_there_and_back():
    x = np.random.default_rng(0).normal(0.0, 100.0, (50, 4)).astype(np.float32)
    rounded, steps, scale = half_layer()(x)
    np.testing.assert_array_equal(rounded, x.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(steps, rounded)
    assert float(scale) == 1.0


def test_a_half_precision_grid_saturates_at_its_largest_number():
    got = half_layer()(tf.constant([[1e6, -1e6, 65519.0, 65504.0]]))[0]
    np.testing.assert_array_equal(got, [[65504.0, -65504.0, 65504.0, 65504.0]])


@pytest.mark.parametrize(("activation", "function"), [
    ("relu", lambda x: np.maximum(x, 0)), ("relu6", lambda x: np.clip(x, 0, 6)),
    ((0.0, 2.3), lambda x: np.clip(x, 0, 2.3)), ((-1.01, 1.5), lambda x: np.clip(x, -1.01, 1.5)),
])  # fmt: skip
def test_a_half_precision_grid_takes_sums_and_a_fused_activation(activation, function):
    sums = np.random.default_rng(0).integers(-900, 900, (9, 4)).astype(np.float32)
    factors = np.float32([0.011, 0.007, 0.02, 0.003])
    got = half_layer()(sums, input_scale=tf.constant(factors), activation=activation)[0]
    wanted = function(sums * factors).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(got, wanted)


def test_a_half_precision_grid_needs_no_calibration_and_does_not_train():
    layer = half_layer()
    assert layer.encoding is not None
    assert layer.encoding.spec == HALF
    assert (float(layer.encoding.scale), int(layer.encoding.zero_point)) == (1.0, 0)
    assert layer.trainable_weights == []


def test_a_half_precision_grid_comes_back_from_its_configuration():
    twin = FakeQuant.from_config(half_layer().get_config())
    assert twin.spec == HALF
