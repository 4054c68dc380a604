"""Gradients of learned ranges against the formulas of their papers."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from keras_edgeq.layers import FakeQuant
from keras_edgeq.layers.learned_range import GAIN, LEAST
from keras_edgeq.spec import Encoding, QuantSpec

SYMMETRIC = QuantSpec(4, symmetric=True)
ASYMMETRIC = QuantSpec(4, signed=False)
# Below, at the lower end, inside, at the upper end and above, in steps of the symmetric grid.
STEPS = np.float32([-11.0, -8.0, -0.4, 2.3, 7.0, 12.0])


def layer_of(spec, scale, zero_point, learn, shape, **options):
    layer = FakeQuant(spec, "conv", learn=learn, **options)
    layer.build(shape)
    layer.assign(Encoding(spec, np.float32(scale), np.int32(zero_point)))
    return layer


def gradients(layer, x, upstream):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x)[0] * upstream)
    # In units of the change itself: what SGD does to the change is `GAIN` times a variable's step.
    return [GAIN * np.asarray(v) for v in tape.gradient(loss, layer.learned.variables)]


def by_scale(x, scale, zero_point, qmin, qmax):
    """LSQ's equation 3, LSQ+'s with the zero point where its offset is."""
    v = x / scale
    inside = np.rint(v) - v
    low, high = qmin - zero_point, qmax - zero_point
    return np.where(v < low, low, np.where(v > high, high, inside))


def by_zero_point(x, scale, zero_point, qmin, qmax):
    """LSQ+'s equation 6: its offset is minus the scale times the zero point."""
    v = x / scale
    return np.where((v < qmin - zero_point) | (v > qmax - zero_point), -scale, 0.0)


@pytest.mark.parametrize("samples", [1, 3])
def test_lsq_is_the_papers_with_its_gradient_scale_in_units_of_the_start(samples):
    scale, x = 0.5, np.tile(STEPS, (samples, 1)) * np.float32(0.5)
    g = np.random.default_rng(0).normal(size=x.shape).astype(np.float32)
    layer = layer_of(SYMMETRIC, scale, 0, "lsq", (None, 6))
    (got,) = gradients(layer, x, g)
    gradient_scale = 1.0 / np.sqrt(6 * 7)
    wanted = gradient_scale * np.sum(g * by_scale(x, scale, 0, -8, 7)) / scale
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


def test_lsq_of_a_weight_counts_all_its_elements_and_is_per_channel():
    spec, scale = QuantSpec(4, symmetric=True, axes=(1,)), np.float32([[0.5, 0.25]])
    x = np.random.default_rng(0).normal(0, 2, (12, 2)).astype(np.float32)
    g = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    layer = layer_of(spec, scale, np.zeros((1, 2)), "lsq", (12, 2), per_sample=False)
    (got,) = gradients(layer, x, g)
    wanted = np.sum(g * by_scale(x, scale, 0, -8, 7), 0, keepdims=True) / scale / np.sqrt(12 * 7)
    np.testing.assert_allclose(got, wanted, rtol=1e-4)


def test_plain_sgd_on_the_change_moves_the_scale_as_lsq_moves_it():
    scale, x = 0.02, STEPS[None] * np.float32(0.02)
    g = np.float32([[0.3, -0.2, 0.5, 0.1, 0.4, 0.6]])
    layer = layer_of(SYMMETRIC, scale, 0, "lsq", (None, 6))
    (gradient,) = gradients(layer, x, g)
    tf_keras.optimizers.SGD(1e-3).apply_gradients([(gradient / GAIN, layer.learned.change)])
    step = 1e-3 / np.sqrt(6 * 7) * np.sum(g * by_scale(x, scale, 0, -8, 7))
    np.testing.assert_allclose(layer.scale, scale - step, rtol=1e-5)


@pytest.mark.parametrize("learn", ["lsq", "tqt"])
def test_the_zero_point_is_that_of_lsq_plus(learn):
    scale, zero_point = 0.5, 6
    x = (STEPS[None] + 2) * np.float32(0.5)
    g = np.random.default_rng(0).normal(size=x.shape).astype(np.float32)
    layer = layer_of(ASYMMETRIC, scale, zero_point, learn, (None, 6))
    by_change, by_shift = gradients(layer, x, g)
    at = (x, scale, zero_point, 0, 15)
    if learn == "lsq":
        gradient_scale = 1.0 / np.sqrt(6 * 15)
        wanted = gradient_scale * np.sum(g * by_scale(*at)) / scale
        shift = gradient_scale * np.sum(g * by_zero_point(*at)) / (15 * scale**2)
    else:
        wanted = np.sum(g * by_scale(*at)) * scale * np.log(2.0)
        shift = 15 * np.sum(g * by_zero_point(*at))
    np.testing.assert_allclose(by_change, wanted, rtol=1e-5)
    np.testing.assert_allclose(by_shift, shift, rtol=1e-5)


def test_the_zero_point_stays_whole_and_a_range_from_zero_keeps_its_zero():
    layer = layer_of(ASYMMETRIC, 0.5, 6, "lsq", (None, 6))
    layer.learned.shift.assign(0.1 / GAIN)
    assert float(layer.zero_point) == 8.0  # 6 + 1.5
    layer.learned.shift.assign(9.0)
    assert float(layer.zero_point) == 15.0
    assert layer.encoding.zero_point == 15
    from_zero = layer_of(ASYMMETRIC, 0.5, 0, "lsq", (None, 6))
    assert gradients(from_zero, STEPS[None], np.ones((1, 6), np.float32))[1] == 0.0
    from_zero.learned.shift.assign(0.3)
    assert float(from_zero.zero_point) == 0.0


def test_tqt_trains_the_logarithm_of_the_scale():
    scale, x = 0.5, STEPS[None] * np.float32(0.5)
    g = np.random.default_rng(0).normal(size=x.shape).astype(np.float32)
    layer = layer_of(SYMMETRIC, scale, 0, "tqt", (None, 6))
    (got,) = gradients(layer, x, g)
    wanted = np.log(2.0) * scale * np.sum(g * by_scale(x, scale, 0, -8, 7))
    np.testing.assert_allclose(got, wanted, rtol=1e-5)
    layer.learned.change.assign(-1.0 / GAIN)
    assert float(layer.scale) == 0.25


@pytest.mark.parametrize("activation", [None, "relu"])
def test_pact_trains_the_bound_by_clipped_values_alone(activation):
    x = np.float32([[-3.0, 0.4, 7.4, 7.5, 8.0, 20.0]])
    g = np.float32([[5.0, 7.0, 11.0, 13.0, 17.0, 19.0]])
    layer = layer_of(ASYMMETRIC, 0.5, 0, "pact", (None, 6))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x, activation=activation)[0] * g)
    got = GAIN * tape.gradient(loss, layer.learned.change)
    # In units of the start, divided by alpha^2, so that SGD steps on alpha are the paper's.
    alpha = 0.5 * 15
    np.testing.assert_allclose(got, (17.0 + 19.0) / alpha, rtol=1e-5)


@pytest.mark.parametrize("scaling", [0.0, 0.7])
def test_element_wise_gradient_scaling_is_the_papers(scaling):
    scale, x = 0.5, STEPS[None] * np.float32(0.5)
    g = np.float32([[1.0, -2.0, 3.0, -4.0, 5.0, 6.0]])
    layer = layer_of(SYMMETRIC, scale, 0, None, (None, 6), ewgs=scaling)
    variable = tf.Variable(x)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(variable)[0] * g)
    x_n = np.clip(STEPS, -8, 7) / 15
    x_q = np.rint(np.clip(STEPS, -8, 7)) / 15
    wanted = g * (1 + scaling * np.sign(g) * (x_n - x_q)) * ((STEPS >= -8) & (STEPS <= 7))
    np.testing.assert_allclose(tape.gradient(loss, variable), wanted, rtol=1e-5)


@pytest.mark.parametrize("learn", ["lsq", "pact"])
def test_the_scale_stays_positive_whatever_the_optimizer_does(learn):
    layer = layer_of(SYMMETRIC, 0.5, 0, learn, (None, 6))
    tf_keras.optimizers.SGD(1.0).apply_gradients([(tf.constant(50.0), layer.learned.change)])
    np.testing.assert_allclose(layer.scale, 0.5 * LEAST)


@pytest.mark.parametrize("learn", ["lsq", "tqt"])
def test_a_held_range_is_the_present_one_for_good(learn):
    layer = layer_of(ASYMMETRIC, 0.3, 6, learn, (None, 6))
    layer.learned.change.assign(0.037)
    layer.learned.shift.assign(-0.01)
    before, encoding = layer(STEPS[None])[0].numpy(), layer.encoding
    assert layer.is_learning
    for _ in range(2):
        layer.hold()
        assert not layer.is_learning
        np.testing.assert_array_equal(layer(STEPS[None])[0], before)
        assert layer.encoding.scale == encoding.scale
        assert layer.encoding.zero_point == encoding.zero_point
        assert not np.any(gradients(layer, STEPS[None], np.ones((1, 6), np.float32)))
    layer.learned.change.assign(5.0)  # what momentum would do
    np.testing.assert_array_equal(layer(STEPS[None])[0], before)


def test_inputs_of_unknown_size_count_their_elements():
    layer = layer_of(SYMMETRIC, 0.5, 0, "lsq", (None, None, 6))
    traced = tf.function(
        lambda x, g: tf.gradients(tf.reduce_sum(layer(x)[0] * g), layer.learned.change)[0],
        input_signature=[tf.TensorSpec([None, None, 6])] * 2,
    )
    x = np.tile(STEPS, (2, 5, 1)) * np.float32(0.5)
    g = np.random.default_rng(0).normal(size=x.shape).astype(np.float32)
    wanted = np.sum(g * by_scale(x, 0.5, 0, -8, 7)) / 0.5 / np.sqrt(5 * 6 * 7)
    np.testing.assert_allclose(GAIN * traced(x, g), wanted, rtol=1e-5)
