"""What a simulation costs: forward pass, training step and calibration, as ratios to float.

    python benchmarks/quantsim_overhead.py DATA_FOLDER

MobileNetV1-0.75 at 224x224 against the user's own float model with its batch norms unfolded: batch
32 forward, 16 training, everything quantized (weights, int32 biases, activations). Each ratio is
the median over interleaved pairs in one run. Calibration is one observing pass over 128 images,
against one float pass over the same batches; its memory is the growth of the peak from 4 batches
to 40.
About four minutes on two cores.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
import tf_keras
from data import load

import keras_edgeq as eq
from keras_edgeq.sim.calibrate import collect
from keras_edgeq.sim.data import batches

PAIRS = 15


def forward(model: tf_keras.Model, images: tf.Tensor) -> Callable:
    """Return a traced inference call."""
    traced = tf.function(lambda x: model(x, training=False), autograph=False)
    return lambda: traced(images)


def training_step(model: tf_keras.Model, images: tf.Tensor, labels: tf.Tensor) -> Callable:
    """Return a traced step of SGD with rate 0, so that both models stay as they are."""
    optimizer = tf_keras.optimizers.SGD(0.0)

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            outputs = model(images, training=True)
            loss = tf.reduce_mean(tf_keras.losses.categorical_crossentropy(labels, outputs))
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    return step


def ratio(ours: Callable, theirs: Callable, pairs: int = PAIRS) -> str:
    """Time two calls in turn and return the median ratio with its quartiles."""
    for call in (ours, theirs) * 2:
        call()
    ratios = []
    for _ in range(pairs):
        start = time.perf_counter()
        ours()
        middle = time.perf_counter()
        theirs()
        ratios.append((middle - start) / (time.perf_counter() - middle))
    low, median, high = np.percentile(ratios, [25, 50, 75])
    return f"{median:.2f} (quartiles {low:.2f} to {high:.2f}, {pairs} pairs)"


def main(folder: str) -> None:
    """Print the ratios."""
    case = load(Path(folder), "MobileNetV1-0.75")
    model, images = case.whole, tf.constant(case.test[:32])
    start = time.perf_counter()
    sim = eq.quantize(model, case.calibration, progress=False)
    print(f"quantize, model to calibrated sim: {time.perf_counter() - start:.1f} s")
    print("sim forward / float forward:", ratio(forward(sim, images), forward(model, images)))
    labels = tf.one_hot(case.labels[:16], 1000)
    half = images[:16]
    steps = (training_step(sim, half, labels), training_step(model, half, labels))
    print("QAT step / float step:", ratio(*steps))
    prepared = eq.strip(sim)
    print("folded float / float:", ratio(forward(prepared, images), forward(model, images)))
    float_pass = tf.function(lambda x: model(x, training=False), autograph=False)

    def float_calibration():
        for (batch,) in batches(case.calibration, model):
            float_pass(batch)

    def observe(data):
        return lambda: collect(sim, batches(data, model), progress=False)

    print("calibration with histograms, trace included / float pass:",
          ratio(observe(case.calibration), float_calibration, 3))  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    many = (
        np.random.default_rng(i).normal(size=(32, 224, 224, 3)).astype("float32") for i in range(40)
    )
    collect(sim, batches(many, model), progress=False)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"peak memory after 4 batches {before / 1024:.0f} MiB, after 40 more {after / 1024:.0f} MiB"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
