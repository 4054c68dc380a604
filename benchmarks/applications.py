"""What of tf_keras.applications and keras.applications runs in integers: every family, one size.

    python benchmarks/applications.py [MODEL ...] [--library LIBRARY] [--table FILE]

Weights as drawn before training, with biases and the numbers of normalizations as after it, small
images, 8 of them to calibrate with. `verdict` is what verification says of each file. Writes a
Markdown table, one model per process; a model that FILE has already is left out, so a run that was
cut short goes on where it stopped, and one that failed is tried again. Allow an hour on two cores.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from macs import integer_share
from table import head

import keras_edgeq as eq

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
LIBRARIES = ("tf_keras", "keras")
HEAD = (
    "model", "input", "integer layers", "float layers", "what stayed float", "MACs in integers",
    "sim, dB", "verdict, LiteRT", "verdict, ONNX Runtime", "mean steps", "quantize, s",
    "TFLite, s", "ONNX, s", "verify, s",
)  # fmt: skip
# Least and most, or mean and deviation, of what training changes most.
UNIFORM = {"gamma": (0.5, 1.5), "moving_variance": (0.5, 1.5), "variance": (0.5, 1.5)}
NORMAL = {"beta": 0.1, "bias": 0.1, "moving_mean": 0.1, "mean": 0.1}


def build(library: str, name: str) -> tuple[Any, np.ndarray]:
    """Return a model with weights like trained ones, and images as it takes them."""
    keras = import_module(library)
    keras.utils.set_random_seed(0)
    generator = np.random.default_rng(0)
    size = APPLICATIONS[name]
    model = getattr(keras.applications, name)(
        weights=None, input_shape=(size, size, 3), classes=100, classifier_activation=None
    )
    for weight in model.weights:
        end = weight.name.rpartition("/")[2].partition(":")[0]
        if end in UNIFORM:
            weight.assign(generator.uniform(*UNIFORM[end], weight.shape))
        elif end in NORMAL:
            weight.assign(generator.normal(0.0, NORMAL[end], weight.shape))
    images = generator.uniform(0.0, 255.0, (8, size, size, 3)).astype(np.float32)
    if not any(type(x).__name__ in ("Rescaling", "Normalization") for x in model.layers):
        images = images / 127.5 - 1.0
    return model, images


def measure(library: str, name: str) -> list[str]:
    """Return the cells of a row behind its name."""
    model, images = build(library, name)
    seconds = [time.perf_counter()]

    def lap() -> None:
        seconds.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sim = eq.quantize(model, images, progress=False)
        lap()
        found, floats = [], {}
        for format in ("tflite", "onnx"):
            report = eq.export(sim, f"{folder}/{format}", [format], verify=False, progress=False)
            lap()
            found += eq.verify(sim, report.files[format], images)
            lap()
            floats |= {**report.float_layers, **report.float_ops}
            if format == "tflite":
                share = integer_share(Path(report.files[format]).read_bytes())
    assert sim.record.fidelity is not None  # just measured
    quantize, tflite, lite_check, onnx, ort_check = np.diff(seconds)
    kinds = sorted({why.split(" has ")[0].split(":")[0] for why in floats.values()})
    runs = {run.runtime: run for run in found}
    lite, ort = runs["LiteRT xnnpack"], runs["ONNX Runtime"]
    return [
        str(APPLICATIONS[name]),
        str(len(report.integer_layers)),
        str(len(report.float_layers)),
        ", ".join(kinds) or "nothing",
        f"{100 * share:.2f} %",
        f"{min(one.sqnr_db for one in sim.record.fidelity.outputs):.1f}",
        lite.verdict,
        ort.verdict,
        f"{lite.mean_steps:.3f}, {ort.mean_steps:.3f}",
        *(f"{spent:.0f}" for spent in (quantize, tflite, onnx, lite_check + ort_check)),
    ]


def models(library: str, names: list[str]) -> list[tuple[str, str]]:
    """Return library and name of what is asked for and there."""
    libraries = [library] if library else LIBRARIES
    return [
        (one, name)
        for one in libraries
        for name in names or APPLICATIONS
        if hasattr(import_module(one).applications, name)
    ]


def done(table: Path | None) -> dict[str, str]:
    """Return the rows of a table by name, without those that failed."""
    lines = table.read_text().splitlines() if table and table.exists() else []
    rows = {line.split("|")[1].strip(): line for line in lines if line.startswith("| ")}
    rows.pop("model", None)  # the titles
    return {name: line for name, line in rows.items() if " failed: " not in line}


def main() -> None:
    """Write the table, one process per model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(APPLICATIONS))
    parser.add_argument("--library", choices=LIBRARIES, help="of both, only this one")
    parser.add_argument("--table", type=Path, help="file to write, and to go on with")
    parser.add_argument("--row", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    unknown = set(asked.models) - set(APPLICATIONS)
    if unknown:
        parser.error(f"no such models: {sorted(unknown)}; there are {', '.join(APPLICATIONS)}")
    if asked.row:
        print(" | ".join(measure(asked.library, asked.models[0])))
        return
    rows = done(asked.table)
    for library, name in models(asked.library, asked.models):
        title = f"{library} {name}"
        if title in rows:
            continue
        child = subprocess.run(
            [sys.executable, __file__, name, "--library", library, "--row"],
            capture_output=True,
            text=True,
        )
        print(child.stderr, file=sys.stderr, flush=True)
        lines = (child.stderr if child.returncode else child.stdout).strip().splitlines()
        cells = lines[-1] if lines else f"exit code {child.returncode}"
        rows[title] = f"| {title} | {'failed: ' if child.returncode else ''}{cells[:300]} |"
        print(rows[title], flush=True)
        if asked.table:
            asked.table.write_text("\n".join([head(HEAD), *rows.values()]) + "\n")


if __name__ == "__main__":
    main()
