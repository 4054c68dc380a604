"""What of tf_keras.applications runs in integers: every family, its smallest size.

    python benchmarks/applications.py [MODEL ...] [--table FILE]

Random weights with batch-norm statistics drawn at random, small inputs, 8 calibration images.
Writes a Markdown table, one model per process; a model that FILE has already is left out, so a run
that was cut short goes on where it stopped. Allow an hour on two cores.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tf_keras
from macs import integer_share
from table import emit, head

import keras_edgeq as eq
from keras_edgeq.runtime.artifact import load_artifact
from keras_edgeq.runtime.walk import walk

L = tf_keras.layers
APPLICATIONS = {
    "MobileNet": 96,
    "MobileNetV2": 96,
    "MobileNetV3Small": 96,
    "RegNetX002": 64,
    "RegNetY002": 64,
    "EfficientNetB0": 64,
    "EfficientNetV2B0": 64,
    "ConvNeXtTiny": 64,
    "DenseNet121": 64,
    "NASNetMobile": 64,
    "Xception": 80,
    "InceptionV3": 80,
    "InceptionResNetV2": 80,
    "ResNet50": 64,
    "ResNet50V2": 64,
    "ResNetRS50": 64,
    "VGG16": 64,
}
HEAD = (
    "model",
    "input",
    "integer layers",
    "float layers",
    "float TFLite ops",
    "what stayed float",
    "MACs in integers",
    "mean steps, LiteRT",
    "mean steps, ONNX Runtime",
    "worst op, LiteRT",
    "worst op, ONNX Runtime",
)
WALKED = 4


def build(name: str) -> tuple[tf_keras.Model, np.ndarray]:
    """Return a model with trained-like batch norms, and images as it takes them."""
    tf_keras.utils.set_random_seed(0)
    generator = np.random.default_rng(0)
    size = APPLICATIONS[name]
    model = getattr(tf_keras.applications, name)(
        weights=None, input_shape=(size, size, 3), classes=100, classifier_activation=None
    )
    randomize_batch_norms(model, generator)
    images = generator.uniform(0.0, 255.0, (8, size, size, 3)).astype(np.float32)
    if not any(isinstance(x, L.Rescaling | L.Normalization) for x in model.layers):
        images = images / 127.5 - 1.0
    return model, images


def randomize_batch_norms(model: tf_keras.Model, generator: np.random.Generator) -> None:
    """Give batch norms trained-like values, so that folding is not the identity."""
    draw = {
        "gamma": lambda s: generator.uniform(0.5, 1.5, s),
        "beta": lambda s: generator.normal(0.0, 0.1, s),
        "moving_mean": lambda s: generator.normal(0.0, 0.1, s),
        "moving_variance": lambda s: generator.uniform(0.5, 1.5, s),
    }
    for layer in model.submodules:
        if isinstance(layer, L.BatchNormalization):
            names = [w.name.rsplit("/", 1)[-1].split(":")[0] for w in layer.weights]
            layer.set_weights([draw[n](w.shape) for n, w in zip(names, layer.weights, strict=True)])


def measure(name: str) -> list[str]:
    """Return one row of the table."""
    model, images = build(name)
    with tempfile.TemporaryDirectory() as folder:
        sim = eq.quantize(model, images, progress=False)
        report = eq.export(sim, folder, ["tflite", "onnx"], verify=images, progress=False)
        print(report, file=sys.stderr)
        runs = {run.runtime: run for run in report.runs}
        share = integer_share(Path(report.files["tflite"]).read_bytes())
        worst = [worst_op(sim, Path(path), images[:WALKED]) for path in report.files.values()]
    floats = {**report.float_layers, **report.float_ops}
    kinds = sorted({why.split(" has ")[0].split(":")[0] for why in floats.values()})
    return [
        name,
        str(APPLICATIONS[name]),
        str(len(report.integer_layers)),
        str(len(report.float_layers)),
        str(len(report.float_ops)),
        ", ".join(kinds) or "nothing",
        f"{100 * share:.2f} %",
        f"{runs['LiteRT xnnpack'].mean_steps:.3f}",
        f"{runs['ONNX Runtime'].mean_steps:.3f}",
        *worst,
    ]


def worst_op(sim, path: Path, images: np.ndarray) -> str:
    """Return the operation with the fewest identical integers, fed the artifact's own input."""
    runtime = load_artifact(path, sim)[0]
    seen = walk(sim, [images], runtime.tensors([images]))
    step = min(seen, key=lambda s: (s.max_steps <= 1, s.identical))
    if step.identical == 1.0:
        return f"none of {len(seen)}"
    return f"{step.tensor} ({step.op}): {100 * step.identical:.2f} %, max {step.max_steps}"


def main() -> None:
    """Write the table, one process per model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(APPLICATIONS))
    parser.add_argument("--table", type=Path, help="file to write, and to go on with")
    parser.add_argument("--row", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = set(options.models) - set(APPLICATIONS)
    if unknown:
        parser.error(f"no such models: {sorted(unknown)}; there are {', '.join(APPLICATIONS)}")
    if options.row:
        print("| " + " | ".join(measure(options.models[0])) + " |")
        return
    table = options.table
    text = table.read_text() if table and table.exists() else ""
    if not text:
        emit(table, head(HEAD))
    for name in options.models or APPLICATIONS:
        if f"| {name} |" in text:
            continue
        child = subprocess.run(
            [sys.executable, __file__, name, "--row"], stdout=subprocess.PIPE, text=True
        )
        if child.returncode:
            print(f"{name} failed, see above", file=sys.stderr)
        else:
            emit(table, child.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    main()
