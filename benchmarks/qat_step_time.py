"""What a step of quantization-aware training costs, as a ratio to the float step.

    python benchmarks/qat_step_time.py DATA_FOLDER [PAIRS]

ResNet-8 at batch 64 and MobileNetV1-0.75 (224x224) at batch 16, everything quantized (int8 weights
per channel, activations, int32 biases), against the user's own float model with its batch norms
unfolded: forward, backward, SGD. Static and learned ranges (LSQ), batch norms folded and training.
Each ratio is the median over interleaved pairs in one run. The traces of a fit over three epochs
are counted, and the time of the first step, which traces, is given.
About ten minutes on two cores.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
import tf_keras
from data import load
from quantsim_overhead import ratio, training_step

import keras_edgeq as eq

BATCHES = {"ResNet-8": 64, "MobileNetV1-0.75": 16}


def sims(case):
    """Yield a name and a sim of each kind."""
    for batch_norm in ("fold", "train"):
        static = eq.quantize(
            case.whole, case.calibration[:128], batch_norm=batch_norm, progress=False
        )
        kind = "folded" if batch_norm == "fold" else "batch norms in training"
        yield f"static ranges, {kind}", static
        yield f"learned ranges, {kind}", eq.learn_ranges(static)


def traces_of_a_fit(sim: tf_keras.Model, images: np.ndarray, labels: np.ndarray) -> str:
    """Fit three epochs of two batches and say how often the step was traced."""
    sim.compile(tf_keras.optimizers.SGD(0.0), "categorical_crossentropy")
    counts = []
    step = tf_keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: counts.append(sim.train_function.experimental_get_tracing_count())
    )
    sim.fit(images, labels, batch_size=len(images) // 2, epochs=3, verbose=0, callbacks=[step])
    return f"traces after epochs 1, 2, 3: {counts}"


def main(folder: str, pairs: str = "11") -> None:
    """Print the ratios."""
    for name, batch in BATCHES.items():
        case = load(Path(folder), name)
        images = tf.constant(case.test[:batch])
        labels = tf.one_hot(case.labels[:batch], case.whole.output_shape[-1])
        start = time.perf_counter()
        plain = training_step(case.whole, images, labels)
        plain()
        print(f"{name}, batch {batch}: float, first step {time.perf_counter() - start:.1f} s")
        for kind, sim in sims(case):
            start = time.perf_counter()
            step = training_step(sim, images, labels)
            step()
            first = time.perf_counter() - start
            print(
                f"  {kind}: {ratio(step, plain, int(pairs))}; first step {first:.1f} s; "
                f"{traces_of_a_fit(sim, images.numpy(), labels.numpy())}",
                flush=True,
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
