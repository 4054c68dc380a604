"""A sim trains the same traced, eager and compiled by XLA."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.numerics.round_to_half import round_to_half
from keras_edgeq.numerics.round_to_steps import round_to_steps, scale_sums
from tests.models import train_like

L = tf_keras.layers
RNG = np.random.default_rng(0)
DATA = RNG.normal(size=(32, 6, 6, 2)).astype(np.float32)
LABELS = RNG.integers(0, 3, 32)
LOSS = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
# Range gradients are differences of sums that are 10^3 times as large, so more noise is left.
NOISE = {"weights": 2e-6, "ranges": 1e-3}


def tiny():
    x = tf_keras.Input((6, 6, 2))
    y = L.Conv2D(4, 3, padding="same", activation="relu", name="conv")(x)
    z = L.DepthwiseConv2D(3, padding="same", name="depthwise")(y)
    y = L.AveragePooling2D(name="pool")(L.Add(name="add")([y, z]))
    return train_like(tf_keras.Model(x, L.Dense(3, name="head")(L.Flatten()(y))))


def trained(sim, start, **options):
    """Return how much the variables of a sim move in three steps from `start`, and the losses."""
    sim.set_weights(start)
    before = [v.numpy() for v in sim.trainable_variables]
    sim.compile(tf_keras.optimizers.SGD(1e-3, momentum=0.9), LOSS, **options)
    history = sim.fit(DATA, LABELS, batch_size=16, epochs=2, shuffle=False, verbose=0).history
    moves = [v.numpy() - a for v, a in zip(sim.trainable_variables, before, strict=True)]
    return moves, history["loss"]


def assert_near(sim, moves, wanted):
    ranges = {id(v) for v in sim.range_variables()}
    for variable, move, near in zip(sim.trainable_variables, moves, wanted, strict=True):
        noise = NOISE["ranges" if id(variable) in ranges else "weights"]
        difference = np.abs(move - near).max()
        assert difference <= noise * np.abs(near).max() + 1e-7, variable.name


def test_eager_training_is_bit_identical_to_traced():
    sim = eq.quantize(tiny(), DATA, progress=False)
    start = sim.get_weights()
    moves, losses = trained(sim, start)
    eager, eager_losses = trained(sim, start, run_eagerly=True)
    assert max(np.abs(move).max() for move in moves) > 1e-3
    assert all(map(np.array_equal, eager, moves))
    assert eager_losses == losses


@pytest.mark.slow
def test_learned_ranges_train_the_same_traced_eager_and_compiled():
    sim = eq.quantize(tiny(), DATA, "litert_w4a8", progress=False)
    sim = eq.learn_ranges(sim, "conv/relu", "depthwise*", "head")
    start = sim.get_weights()
    moves, losses = trained(sim, start)
    for options in ({"run_eagerly": True}, {"jit_compile": True}):
        others, other_losses = trained(sim, start, **options)
        assert_near(sim, others, moves)
        np.testing.assert_allclose(other_losses, losses, rtol=1e-5)


def rounded(values, how):
    if how == "half_precision":
        return round_to_half(values * 0.3)
    factor = tf.constant(0.3, tf.float64)
    ratio = scale_sums(4 * values, factor) if how.startswith("twice") else values
    return round_to_steps(ratio, -8.0, 7.0, 3.0, how)


@pytest.mark.parametrize(
    "how", ["half_even", "half_up", "half_away", "twice", "twice_away", "half_precision"]
)
def test_every_way_of_rounding_is_the_same_compiled(how):
    ties = tf.constant(np.arange(-40, 41, dtype=np.float32) / 4)

    def step(values):
        with tf.GradientTape() as tape:
            tape.watch(values)
            steps = rounded(values, how)
            loss = tf.reduce_sum(steps * tf.range(81.0))
        return steps, tape.gradient(loss, values)

    wanted, got = step(ties), tf.function(step, jit_compile=True)(ties)
    assert len(np.unique(wanted[0])) >= 16
    for one, other in zip(wanted, got, strict=True):
        np.testing.assert_array_equal(one, other)
