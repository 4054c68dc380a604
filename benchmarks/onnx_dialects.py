"""How close ONNX Runtime comes to the sim in every dialect and precision, and how large files are.

    python benchmarks/onnx_dialects.py DATA_FOLDER [MODEL ...]

Logits of models cut before the softmax, one calibration each. Every file is loaded with all
optimizations. Prints a Markdown table; about an hour on two cores.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import onnx
from data import CASES, Case, load

import keras_edgeq as eq
from keras_edgeq.numerics.metrics import top1
from keras_edgeq.profiles import TargetProfile, load_profile

SAMPLES = 1000  # per model, where it has so many
MIXED = ("W8A8", "W4A8", "W8A16", "FP16", "W8A8", "FP32")
COLUMNS = (
    "model", "dialect", "opset", "bytes", "top-1 of the sim", "agreement", "identical",
    "mean steps", "first part",
)  # fmt: skip


def symmetric_int8() -> TargetProfile:
    """Return a profile as TensorRT reads it: int8, zero point 0, float bias."""
    base = load_profile("onnxruntime_int8")
    grid = replace(base.activation, signed=True, symmetric=True)
    return replace(
        base,
        name="symmetric_int8",
        activation=grid,
        bias="float",
        fixed_ranges={},
        onnx_activation="int8",
        onnx_weight="int8",
    )


def mixture(case: Case) -> Mapping[str, str]:
    """Return one precision after the other for the layers with weights."""
    names = [layer.name for layer in case.model.layers if hasattr(layer, "bias")]
    return {name: MIXED[i % len(MIXED)] for i, name in enumerate(names)}


def dialects(case: Case) -> dict[str, tuple[TargetProfile, Mapping[str, str]]]:
    """Return the profile and the precisions of each row."""
    cpu, symmetric = load_profile("onnxruntime_int8"), symmetric_int8()
    signed = replace(cpu, onnx_weight="int8")
    return {
        "W8A8, uint8": (cpu, {}),
        "W8A8, uint8, int8 weights": (signed, {}),
        "W8A8, int8 symmetric, float bias": (symmetric, {}),
        "W8A16, uint16": (cpu, {"*": "W8A16"}),
        "W4A8, uint8, int4 weights": (signed, {"*": "W4A8"}),
        "W4A16, uint16, int4 weights": (signed, {"*": "W4A16"}),
        "FP16 by casts": (cpu, {"*": "FP16"}),
        "mixture": (cpu, mixture(case)),
    }


def measure(case: Case) -> None:
    """Print the rows of one model."""
    test, labels = case.test[:SAMPLES], case.labels[:SAMPLES]
    calibrated = eq.quantize(case.model, case.calibration, "onnxruntime_int8", progress=False)
    for name, (profile, precision) in dialects(case).items():
        sim = eq.requantize(calibrated, profile, precision=precision)
        with tempfile.TemporaryDirectory() as folder:
            report = eq.export(sim, folder, ["onnx"], verify=test, progress=False)
            opset = onnx.load(report.files["onnx"]).opset_import[0].version
        (run,) = report.runs
        predicted = top1(sim.predict(test, verbose=0).reshape(len(test), -1))
        identical = "" if run.identical is None else f"{100 * run.identical:.2f} %"
        mean = "" if run.mean_steps is None else f"{run.mean_steps:.4f}"
        step = run.first_difference
        where = "" if step is None else f"{step.tensor}: {100 * step.identical:.2f} % identical"
        print(
            f"| {case.name} | {name} | {opset} | {report.sizes['onnx']:,} "
            f"| {100 * np.mean(predicted == labels):.2f} % | {run.agreement:.2f} % "
            f"| {identical} | {mean} | {where} |",
            flush=True,
        )


def main(folder: str, *names: str) -> None:
    """Measure every model, or those named."""
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for name in names or CASES:
        measure(load(Path(folder), name))


if __name__ == "__main__":
    main(*sys.argv[1:])
