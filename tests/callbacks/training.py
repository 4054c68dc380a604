"""Trains small sims, and kills such trainings to see how they go on."""

from __future__ import annotations

import numpy as np
import tf_keras

import keras_edgeq as eq
from keras_edgeq.sim.freeze import all_quantizers, copy_sim

L = tf_keras.layers


def data(samples=32):
    """Inputs (samples, 8, 8, 1) and targets (samples, 3)."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples, 8, 8, 1)).astype("float32")
    return x, np.float32(x[:, :3, 0, 0] - x[:, 3:6, 1, 0])


def small_sim(profile="litert_int8", **options):
    """A calibrated sim of a convolution with a batch norm and a Dense."""
    tf_keras.utils.set_random_seed(0)
    x = tf_keras.Input((8, 8, 1), name="image")
    y = L.Conv2D(4, 3, strides=2, name="conv")(x)
    y = L.ReLU(name="conv_relu")(L.BatchNormalization(momentum=0.8, name="norm")(y))
    model = tf_keras.Model(x, L.Dense(3, name="head")(L.Flatten(name="flat")(y)))
    return eq.quantize(model, data()[0], profile, progress=False, **options)


def fresh(sim, compiled=True, rate=0.02, **options):
    """A sim of its own, of the same values, with an optimizer of its own."""
    copy = copy_sim(sim)
    if compiled:
        copy.compile(tf_keras.optimizers.Adam(rate), "mse", **options)
    return copy


def fit(sim, callbacks, epochs=4, validate=True, alike=False):
    """Train on 4 batches of 8 in a fixed order, or on 4 times the same one."""
    x, y = data()
    held = (x[:8], y[:8]) if validate else None
    if alike:
        x, y = (np.tile(part[:8], (4,) + (1,) * (part.ndim - 1)) for part in (x, y))
    return sim.fit(
        x, y, batch_size=8, epochs=epochs, validation_data=held, verbose=0, shuffle=False,
        callbacks=callbacks,
    )  # fmt: skip


def drive(sim, callbacks, epochs=4, steps=2, validate=False):
    """Call the hooks as `fit` does, around steps that push all that trains at random."""
    hooks = tf_keras.callbacks.CallbackList(callbacks, model=sim, epochs=epochs, steps=steps)
    rng = np.random.default_rng(0)
    hooks.on_train_begin()
    for epoch in range(epochs):
        hooks.on_epoch_begin(epoch)
        for batch in range(steps):
            hooks.on_train_batch_begin(batch)
            for weight in sim.trainable_weights:
                weight.assign_add(0.05 * rng.normal(size=weight.shape).astype("float32"))
                if weight.constraint is not None:
                    weight.assign(weight.constraint(weight))
            hooks.on_train_batch_end(batch)
        if validate:
            hooks.on_test_begin()
        hooks.on_epoch_end(epoch, {"loss": 1.0})
    hooks.on_train_end()


class Traces(tf_keras.callbacks.Callback):
    """Counts how often the training step was traced until each epoch's end."""

    def on_train_begin(self, logs=None):
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(self.model.train_function.experimental_get_tracing_count())


class Killed(Exception):
    """Stands for whatever ends a process."""


class KillAt(tf_keras.callbacks.Callback):
    """Ends a training at the start of an epoch, or of a batch in it."""

    def __init__(self, epoch, batch=None):
        super().__init__()
        self.epoch, self.batch, self.now = epoch, batch, -1

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch
        if self.batch is None and epoch == self.epoch:
            raise Killed

    def on_train_batch_begin(self, batch, logs=None):
        if (self.now, batch) == (self.epoch, self.batch):
            raise Killed


def encodings(sim):
    """Bits, scale and zero point of every grid by name."""
    grids = {name: q.encoding for name, q in all_quantizers(sim).items()}
    return {n: (g.spec.bits, g.scale.tolist(), g.zero_point.tolist()) for n, g in grids.items()}


def check_restart(
    sim, make, kill, folder, save_freq="epoch", data=None, backup_first=False, **options
):
    """Compare a training that is killed and restarted with one that is not; return the latter.

    Args:
        sim: where each training starts.
        make: returns new callbacks, given a folder of the training's own.
        kill: `KillAt`.
        folder: where to write.
        save_freq: of `BackupAndRestore`.
        data: arguments for `fit`.
        backup_first: list `BackupAndRestore` before the other callbacks.
        options: for `compile`.
    """

    epochs = []

    def train(place, extra=()):
        own = fresh(sim, **options)
        backup = tf_keras.callbacks.BackupAndRestore(folder / place / "backup", save_freq)
        callbacks = make(folder / place)
        callbacks.insert(0 if backup_first else len(callbacks), backup)
        history = fit(own, [*callbacks, *extra], **(data or {}))
        epochs.append(history.epoch)
        return own

    whole = train("whole")
    try:
        train("killed", [kill])
        raise AssertionError("The training was not killed.")
    except Killed:
        pass
    again = train("killed")
    assert epochs == [list(range(4)), list(range(kill.epoch, 4))]
    assert [w.name for w in again.weights] == [w.name for w in whole.weights]
    for wanted, got in zip(whole.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert encodings(again) == encodings(whole)
    assert again.record.frozen == whole.record.frozen
    assert again.record.floored == whole.record.floored
    return whole
