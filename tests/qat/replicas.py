"""Trains the same sim alone, on two logical devices, or as one of several workers.

    python tests/qat/replicas.py mirrored RESULT.npz
    TF_CONFIG=... python tests/qat/replicas.py worker RESULT.npz FOLDER

Run by test_distribution.py: devices and workers have to be known before TensorFlow starts.
"""

import sys

import numpy as np
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from tests.models import train_like

L = tf_keras.layers
RNG = np.random.default_rng(0)
# 10 samples: the second batch of 6 is a part of one, and its halves differ in size.
X = np.float32(RNG.normal(size=(10, 6, 6, 2)))
Y = RNG.integers(0, 3, 10)
LOSS = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def build():
    x = tf_keras.Input((6, 6, 2), name="image")
    y = L.Conv2D(4, 3, strides=2, use_bias=False, kernel_regularizer="l2", name="conv")(x)
    y = L.Flatten(name="flat")(L.ReLU(name="relu")(L.BatchNormalization(name="norm")(y)))
    return train_like(tf_keras.Model(x, L.Dense(3, name="logits")(y)))


def calibrated():
    options = {"precision": {"*": "W4A8"}, "batch_norm": "train", "progress": False}
    sim = eq.learn_ranges(eq.quantize(build(), X, **options))
    # Statistics of half a batch are not those of the batch.
    freeze_batch_norm(sim, 1.0)
    return sim


def freeze_batch_norm(sim, frozen):
    for layer in sim.batch_norms().values():
        layer.frozen.assign(frozen)


def fit(sim):
    if sim.optimizer is None:
        sim.compile(tf_keras.optimizers.SGD(0.1), LOSS)
    sim.fit(X[:6], Y[:6], batch_size=6, shuffle=False, verbose=0)


def train(sim, folder=None):
    result = eq.qat.train(
        sim,
        (X, Y, np.linspace(0.5, 1.5, 10)),
        epochs=2,
        loss=LOSS,
        teacher=build(),
        distillation=eq.qat.Distillation(features=["relu"]),
        optimizer=tf_keras.optimizers.SGD(0.1, momentum=0.9),
        range_optimizer=tf_keras.optimizers.SGD(0.3),
        clip_norm=0.5,
        metrics=["accuracy"],
        validation=(X, Y),
        batch_size=6,
        steps_per_execution=2,
        checkpoint=folder,
        progress=False,
    )
    return result.history


def record(name, strategy, folder=None):
    """Return the trained sim, and its variables after each stage on each replica here."""
    results = {}
    sim = calibrated()
    start = sim.get_weights()

    def note(stage):
        for i, variable in enumerate(sim.variables):
            # Each replica follows its own batches, and reading them gives the mean.
            if "/moving_" in variable.name:
                continue
            for number, copy in enumerate(strategy.experimental_local_results(variable)):
                results[f"{stage}|{name}{number}|{i}"] = copy.numpy()

    note("calibrated")
    fit(sim)
    note("fit")
    sim.set_weights(start)
    freeze_batch_norm(sim, 0.0)
    fit(sim)
    note("thawed")
    results[f"moving mean|{name}0|0"] = sim.get_layer("norm").moving_mean.numpy()
    sim.set_weights(start)
    for key, losses in train(sim, folder).items():
        results[f"history|{name}0|{key}"] = np.array(losses)
    note("train")
    if name == "alone":
        results[f"folded|{name}0|outputs"] = eq.fold_batch_norms(sim).predict(X, verbose=0)
    if folder is not None:
        # What the checkpoint holds, from where a worker that is started anew goes on.
        sim.set_weights(start)
        assert train(sim, folder) == {}
        note("restored")
    return sim, results


def mirrored(path):
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    _, results = record("alone", tf.distribute.get_strategy())
    with strategy.scope():
        results.update(record("mirrored", strategy)[1])
    np.savez(path, **results)


def worker(path, folder):
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        sim, results = record("worker", strategy, folder)
    saved = f"{path}.keras"
    eq.save_sim(sim, saved)
    if strategy.cluster_resolver.task_id == 0:
        folded = eq.fold_batch_norms(eq.load_sim(saved))
        results["folded|worker0|outputs"] = folded.predict(X, verbose=0)
    np.savez(path, **results)


if __name__ == "__main__":
    {"mirrored": mirrored, "worker": worker}[sys.argv[1]](*sys.argv[2:])
