import math

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from keras_edgeq.callbacks import BitWidthSchedule, OscillationFreezing
from keras_edgeq.callbacks.oscillation import follow, start
from keras_edgeq.callbacks.oscillation_freezing import ATTRIBUTE
from keras_edgeq.errors import UnsupportedModelError
from tests.callbacks.training import data, drive, fit, fresh

MOMENTUM = 0.1


class Weight:
    """One weight followed by the paper's algorithm 1, in NumPy's float32."""

    def __init__(self, integer):
        self.integer = self.average = np.float32(integer)
        self.direction, self.frequency, self.frozen = 0, np.float32(0), None

    def step(self, integer, threshold):
        if self.frozen is not None:
            integer = self.frozen
        change = np.sign(integer - self.integer)
        turned = change != 0 and self.direction != 0 and change != self.direction
        m, rest = np.float32(MOMENTUM), np.float32(1.0 - MOMENTUM)
        self.frequency = m * np.float32(turned) + rest * self.frequency
        if change != 0:
            self.direction = change
        if self.frozen is None and self.frequency > threshold:
            self.frozen = np.rint(self.average)
        self.average = m * np.float32(integer) + rest * self.average
        # A weight that freezes is put in its place in this very step.
        self.integer = np.float32(integer if self.frozen is None else self.frozen)


def test_the_rule_is_that_of_the_paper():
    rng = np.random.default_rng(0)
    steps = np.float32(rng.integers(0, 2, (60, 12)) + rng.integers(-2, 2, 12))
    steps[:, :3] = steps[0, :3]  # at rest
    steps[:, 3] = np.arange(60) // 9  # goes one way
    weights, track = [Weight(v) for v in steps[0]], start(tf.constant(steps[0]))
    for t, integers in enumerate(steps[1:]):
        threshold = np.float32(0.45 - 0.003 * t)
        track = follow(track, tf.constant(integers), MOMENTUM, threshold)
        for weight, integer in zip(weights, integers, strict=True):
            weight.step(integer, threshold)
        frozen = [w.frozen is not None for w in weights]
        np.testing.assert_array_equal(track.frozen, frozen)
        np.testing.assert_allclose(track.frequency, [w.frequency for w in weights], rtol=1e-5)
        wanted = [w.average if w.frozen is None else w.frozen for w in weights]
        np.testing.assert_allclose(track.average, wanted, rtol=1e-5, atol=1e-6)
    assert any(frozen)
    assert not any(frozen[:4])


class Watched(OscillationFreezing):
    """Keeps what became of a kernel, batch by batch."""

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        layer = self.model.get_layer("conv")
        before = layer.layer.kernel.numpy()
        super().on_train_batch_end(batch, logs)
        quantizer = layer.quantizers["kernel"]
        grid = [np.float32(tf.identity(getattr(quantizer, n))) for n in ("scale", "qmin", "qmax")]
        self.seen.append((before, layer.layer.kernel.numpy(), *grid))


@pytest.mark.slow
def test_a_training_freezes_and_pulls_as_a_loop_over_numpy_does(learning):
    rate, pull = 0.004, 0.7
    options = {"final_threshold": 0.06, "dampening": pull, "momentum": MOMENTUM}
    steps = Watched(0.12, **options)
    own = fresh(learning, rate=rate)
    fit(own, [steps], epochs=40, validate=False)
    weights = None
    for t, (before, after, scale, qmin, qmax) in enumerate(steps.seen):
        ratio = before * (np.float32(1) / scale)
        integers = np.clip(np.rint(ratio), qmin, qmax)
        threshold = 0.06 + 0.06 * 0.5 * (1.0 + math.cos(math.pi * t / len(steps.seen)))
        if weights is None:
            weights = [Weight(v) for v in integers.ravel()]
        else:
            for weight, integer in zip(weights, integers.ravel(), strict=True):
                weight.step(integer, threshold)
        clipped = np.clip(before, qmin * scale, qmax * scale)
        free = before - 2.0 * pull * rate * (clipped - integers * scale)
        frozen = np.reshape([w.frozen is not None for w in weights], before.shape)
        places = np.reshape([w.frozen or 0.0 for w in weights], before.shape)
        np.testing.assert_allclose(after, np.where(frozen, places * scale, free), atol=1e-6)
    assert 0 < frozen.sum() < frozen.size
    assert 0 < steps.frozen_share < 1
    assert not hasattr(own, ATTRIBUTE)


def test_what_is_known_is_saved_with_the_sim_but_no_weight_of_it(sim, tmp_path):
    own = fresh(sim)
    count, saved = len(own.weights), {}

    def on_epoch_end(epoch, logs):
        path = tf.train.Checkpoint(model=own).save(str(tmp_path / "during"))
        saved["during"] = [n for n, _ in tf.train.list_variables(path) if ATTRIBUTE in n]
        saved["weights"] = len(own.weights)

    watch = tf_keras.callbacks.LambdaCallback(on_epoch_end=on_epoch_end)
    drive(own, [OscillationFreezing(0.04), watch], epochs=1)
    assert len(saved["during"]) == 1 + 2 * 6
    assert saved["weights"] == count == len(own.weights)
    path = tf.train.Checkpoint(model=own).save(str(tmp_path / "after"))
    assert not [n for n, _ in tf.train.list_variables(path) if ATTRIBUTE in n]


def test_other_bits_free_the_weights_again(sim):
    freezing = OscillationFreezing(0.02, momentum=MOMENTUM)
    shares = []
    watch = tf_keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: shares.append(freezing.frozen_share)
    )
    schedule = BitWidthSchedule({0: 8, 1: 3, 4: 6, 5: None})
    drive(fresh(sim), [schedule, freezing, watch], epochs=6, steps=8)
    assert shares[0] == 0.0
    assert shares[4] == 0.0
    assert 0.0 < shares[2] <= shares[3]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"threshold": 0.0}, "lie in"), ({"threshold": 0.1, "dampening": -1.0}, "at least 0")],
)
def test_numbers_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        OscillationFreezing(**options)


def test_a_sim_that_it_cannot_follow_is_refused(sim):
    with pytest.raises(UnsupportedModelError, match="steps_per_execution"):
        fit(fresh(sim, steps_per_execution=2), [OscillationFreezing(0.1)])
    with pytest.raises(UnsupportedModelError, match="most_bits"):
        fit(fresh(sim), [OscillationFreezing(0.1, most_bits=3)])
    callback = OscillationFreezing(0.1, dampening=0.1)
    callback.set_model(fresh(sim, compiled=False))
    with pytest.raises(UnsupportedModelError, match="no optimizer"):
        callback.on_train_begin()


def test_annealing_needs_a_known_number_of_steps(sim):
    x, y = data()
    source = tf.data.Dataset.from_generator(
        lambda: iter([(x, y)] * 2),
        output_signature=(tf.TensorSpec(x.shape), tf.TensorSpec(y.shape)),
    )
    with pytest.raises(ValueError, match="steps_per_epoch"):
        fresh(sim).fit(source, verbose=0, callbacks=[OscillationFreezing(0.1, final_threshold=0.2)])


def test_it_warns_where_backups_come_too_early(sim, tmp_path):
    backup = tf_keras.callbacks.BackupAndRestore(tmp_path / "backup", save_freq=2)
    with pytest.warns(UserWarning, match="List it after OscillationFreezing"):
        drive(fresh(sim), [backup, OscillationFreezing(0.1)], epochs=1)
