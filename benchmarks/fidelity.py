"""How close sim, artifacts and float model come, beside LiteRT's own converter on the same images.

    python benchmarks/fidelity.py DATA_FOLDER [MODEL ...]

Logits of models cut before the softmax, W8A8 per channel. Top-1 agreement in %, ties to the lowest
index; SQNR in dB; differences in integer steps of the output. About six minutes on
two cores.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from data import CASES, Case, load

import keras_edgeq as eq
from keras_edgeq.numerics.metrics import agreement, sqnr_db, top1
from keras_edgeq.runtime.artifact import load_artifact
from keras_edgeq.runtime.litert import LiteRtModel
from keras_edgeq.runtime.walk import walk

WALKED = 64


def litert_converter(case: Case) -> np.ndarray:
    """Return the logits of LiteRT's own int8 post-training quantization on XNNPACK."""
    converter = tf.lite.TFLiteConverter.from_keras_model(case.model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([x[None]] for x in case.calibration)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    model = LiteRtModel(converter.convert())
    return next(iter(model.run([case.test], list(model.inputs)).values()))


def row(name: str, case: Case, reference: np.ndarray, ours: np.ndarray) -> str:
    """Return one line: accuracy, agreement and SQNR against float."""
    ours, reference = (a.reshape(len(a), -1) for a in (ours, reference))
    accuracy = 100.0 * np.mean(top1(ours) == case.labels)
    return (
        f"  {name:<24} top-1 {accuracy:6.2f} %   agreement {agreement(reference, ours):6.2f} %   "
        f"SQNR {sqnr_db(reference, ours):6.2f} dB"
    )


def measure(case: Case) -> None:
    """Print the comparison for one model."""
    print(f"\n{case.name}: {len(case.calibration)} calibration, {len(case.test)} test samples")
    floats = case.model.predict(case.test, verbose=0)
    print(row("float", case, floats, floats))
    for profile, formats in (("litert_int8", ["tflite"]), ("onnxruntime_int8", ["onnx"])):
        sim = eq.quantize(case.model, case.calibration, profile, progress=False)
        with tempfile.TemporaryDirectory() as folder:
            report = eq.export(sim, folder, formats, verify=case.test, progress=False)
            path = report.files[formats[0]]
            print(row(f"sim {profile}", case, floats, sim.predict(case.test, verbose=0)))
            for run in report.runs:
                print(f"  {run}")
            print(f"  float layers: {dict(report.float_layers)}, ops: {dict(report.float_ops)}")
            for runtime in load_artifact(Path(path), sim):
                print_walk(sim, runtime, case.test[:WALKED])
                if runtime.name != "LiteRT builtin":
                    made = np.concatenate(
                        [
                            runtime.outputs([case.test[i : i + 50]])[0]
                            for i in range(0, len(case.test), 50)
                        ]
                    )
                    print(row(runtime.name, case, floats, made))
            if profile == "litert_int8":
                print_kernels(sim, Path(path), case)
    print(row("LiteRT converter int8", case, floats, litert_converter(case)))


def print_kernels(sim, path: Path, case: Case) -> None:
    """Print how well LiteRT's two sets of kernels agree with each other."""
    both = [r.outputs([case.test])[0].reshape(len(case.test), -1) for r in load_artifact(path, sim)]
    print(f"  the two LiteRT kernels agree with each other: {agreement(*both):.2f} %")


def print_walk(sim, runtime, images: np.ndarray) -> None:
    """Print identical shares per kind of operation, each fed the artifact's own input."""
    kinds = defaultdict(list)
    for step in walk(sim, [images], runtime.tensors([images])):
        kinds[step.op].append(step)
    parts = []
    for op, steps in kinds.items():
        elements = sum(s.elements for s in steps)
        share = 100 * sum(s.identical * s.elements for s in steps) / elements
        parts.append(f"{op} {share:.4f} % (max {max(s.max_steps for s in steps)})")
    text = ", ".join(parts)
    print(f"  walk, {runtime.name}: {text}")


def main(folder: str, *names: str) -> None:
    """Measure every model, or those named."""
    for name in names or CASES:
        measure(load(Path(folder), name))


if __name__ == "__main__":
    main(*sys.argv[1:])
