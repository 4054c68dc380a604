"""Memory that a process keeps from cycle to cycle of quantize, predict, export and load_sim.

    python benchmarks/memory_cycles.py [--cycles 30] [--of quantize,predict,export,load]

Prints the resident memory after each cycle and a table of what each kind of work adds per cycle.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import tf_keras

import keras_edgeq as eq

WARM = 5


def model() -> tf_keras.Model:
    layers = tf_keras.layers
    x = inputs = tf_keras.Input((16, 16, 3))
    for width in (8, 16, 16):
        x = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    return tf_keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


def megabytes() -> float:
    gc.collect()
    return psutil.Process().memory_info().rss / 1e6


def measure(work, cycles: int) -> tuple[float, Counter]:
    """Return megabytes per cycle after a few that warm up, and what objects stayed, by type."""
    for _ in range(WARM):
        work()
    start = megabytes()
    before = Counter(type(one).__name__ for one in gc.get_objects())
    for _ in range(cycles):
        work()
    grown = (megabytes() - start) / cycles
    after = Counter(type(one).__name__ for one in gc.get_objects())
    return grown, after - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=30)
    parser.add_argument("--of", default="keras,quantize,predict,tflite,onnx,saved_model,load")
    parser.add_argument("--objects", action="store_true", help="print what objects stay")
    arguments = parser.parse_args()
    float_model, x = model(), np.random.default_rng(0).normal(size=(32, 16, 16, 3))
    sim = eq.quantize(float_model, x, progress=False)
    folder = Path(tempfile.mkdtemp())
    eq.save_sim(sim, folder / "sim.keras")

    def export(kind):
        return lambda: eq.export(sim, folder / kind, kind, verify=False, progress=False)

    works = {
        "keras": lambda: tf_keras.models.clone_model(float_model).predict(x, verbose=0),
        "quantize": lambda: eq.quantize(float_model, x, progress=False),
        "predict": lambda: sim.predict(x, verbose=0),
        "tflite": export("tflite"),
        "onnx": export("onnx"),
        "saved_model": export("saved_model"),
        "load": lambda: eq.load_sim(folder / "sim.keras").predict(x, verbose=0),
    }
    print("| work | MB per cycle |\n|---|---|")
    for name in arguments.of.split(","):
        grown, kept = measure(works[name], arguments.cycles)
        print(f"| {name} | {grown:.2f} |", flush=True)
        if arguments.objects:
            print(kept.most_common(25))


if __name__ == "__main__":
    main()
