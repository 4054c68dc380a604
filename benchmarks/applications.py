"""What of tf_keras.applications runs in integers: quantize, export, list what stays float.

    python benchmarks/applications.py [MODEL ...]

Random weights with batch-norm statistics drawn at random, small inputs, 8 calibration images.
Prints a Markdown table; takes about ten minutes on two cores.
"""

from __future__ import annotations

import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tf_keras

import keras_edgeq as eq

APPLICATIONS = {
    "MobileNet": 96,
    "MobileNetV2": 96,
    "MobileNetV3Small": 96,
    "ResNet50": 64,
    "EfficientNetB0": 64,
    "DenseNet121": 64,
    "InceptionV3": 96,
}


def randomize_batch_norms(model: tf_keras.Model, generator: np.random.Generator) -> None:
    """Give batch norms trained-like values, so that folding is not the identity."""
    for layer in model.layers:
        if isinstance(layer, tf_keras.layers.BatchNormalization):
            shapes = [w.shape for w in layer.weights]
            names = [w.name.rsplit("/", 1)[-1].split(":")[0] for w in layer.weights]
            draw = {
                "gamma": lambda s: generator.uniform(0.5, 1.5, s),
                "beta": lambda s: generator.normal(0.0, 0.1, s),
                "moving_mean": lambda s: generator.normal(0.0, 0.1, s),
                "moving_variance": lambda s: generator.uniform(0.5, 1.5, s),
            }
            layer.set_weights([draw[n](s) for n, s in zip(names, shapes, strict=True)])


def measure(name: str, size: int, folder: str) -> list[str]:
    """Return one row of the table."""
    tf_keras.utils.set_random_seed(0)
    generator = np.random.default_rng(0)
    options = {"include_preprocessing": True} if "V3Small" in name else {}
    model = getattr(tf_keras.applications, name)(
        weights=None,
        input_shape=(size, size, 3),
        classes=100,
        classifier_activation=None,
        **options,
    )
    randomize_batch_norms(model, generator)
    images = generator.uniform(0.0, 255.0, (8, size, size, 3)).astype(np.float32)
    if not any(isinstance(x, tf_keras.layers.Rescaling) for x in model.layers):
        images = images / 127.5 - 1.0
    start = time.perf_counter()
    sim = eq.quantize(model, images, progress=False)
    quantized = time.perf_counter()
    report = eq.export(sim, folder, ["tflite", "onnx"], verify=images, progress=False)
    done = time.perf_counter()
    print(report, file=sys.stderr)
    runs = {run.runtime: run for run in report.runs}
    floats = {**report.float_layers, **report.float_ops}
    kinds = sorted({why.split(" has ")[0].split(":")[0] for why in floats.values()})
    parted = runs["LiteRT xnnpack"].first_difference
    return [
        name,
        str(len(report.integer_layers)),
        str(len(report.float_layers)),
        str(len(report.float_ops)),
        ", ".join(kinds) or "nothing",
        f"{runs['LiteRT xnnpack'].mean_steps:.3f}",
        f"{runs['ONNX Runtime'].mean_steps:.3f}",
        "none" if parted is None else f"{parted.tensor} ({parted.op})",
        f"{quantized - start:.0f} + {done - quantized:.0f}",
    ]


def main(names: list[str]) -> None:
    """Print the table."""
    import tempfile

    head = [
        "model",
        "integer layers",
        "float layers",
        "float TFLite ops",
        "what stayed float",
        "mean steps, LiteRT",
        "mean steps, ONNX Runtime",
        "first op that differs",
        "seconds",
    ]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head), flush=True)
    for name in names or APPLICATIONS:
        with tempfile.TemporaryDirectory() as folder:
            print("| " + " | ".join(measure(name, APPLICATIONS[name], folder)) + " |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
