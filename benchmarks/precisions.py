"""How close a sim and its TFLite file come in each precision, and how large the file is.

    python benchmarks/precisions.py DATA_FOLDER [MODEL ...]

Logits of models cut before the softmax, per-channel weights, profile litert_int8. Top-1 agreement
in %, ties to the lowest index; "steps" is the mean difference in integer steps of the output, "off"
the largest difference of any one op fed the file's own input. About half an hour on two cores.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from data import CASES, Case, load

import keras_edgeq as eq
from keras_edgeq.numerics.metrics import agreement, sqnr_db, top1
from keras_edgeq.ops import weights_of
from keras_edgeq.runtime.artifact import LiteRt
from keras_edgeq.runtime.walk import walk

WALKED = 16
PRECISIONS = ("W8A8", "W8A16", "W4A8", "W4A16", "FP16")
IN_TURN = ("W8A8", "W8A16", "W4A8", "FP16", "W4A16")
# LiteRT's int16 kernels are plain loops: fewer samples for them.
WIDE = ("W8A16", "W4A16", "mixture")
WIDE_SAMPLES = 372
WEIGHTS = ("int4", "int8", "float16")
HEAD = (
    "| precision | top-1 | float | SQNR dB | samples | XNNPACK | steps | off "
    "| builtin | steps | off | weights | file |"
)
NOTE = "agreement of the sim with the float model, then of each set of kernels with the sim"


def precisions(case: Case) -> dict[str, dict[str, str]]:
    """Return each column's `precision` argument; a mixture gives the weighted layers turns."""
    weighted = [x.name for x in case.model.layers if weights_of(x) is not None]
    turns = {name: IN_TURN[i % len(IN_TURN)] for i, name in enumerate(weighted)}
    return {name: {"*": name} for name in PRECISIONS} | {"mixture": turns}


def measure(case: Case) -> None:
    """Print a table for one model."""
    print(f"\n## {case.name}: {len(case.calibration)} calibration samples\n")
    print(HEAD)
    print("|---" * (HEAD.count("|") - 1) + "|", flush=True)
    floats = _flat(case.model.predict(case.test, verbose=0))
    for name, precision in precisions(case).items():
        asked = None if name == "W8A8" else precision
        sim = eq.quantize(case.model, case.calibration, precision=asked, progress=False)
        ours = _flat(sim.predict(case.test, verbose=0))
        run_on = case.test[: WIDE_SAMPLES if name in WIDE else None]
        cells = [
            name,
            f"{100.0 * np.mean(top1(ours) == case.labels):.2f}",
            f"{agreement(floats, ours):.2f}",
            f"{sqnr_db(floats, ours):.1f}",
            str(len(run_on)),
        ]
        with tempfile.TemporaryDirectory() as folder:
            report = eq.export(sim, folder, ["tflite"], verify=run_on, progress=False)
            content = Path(report.files["tflite"]).read_bytes()
        for kernels, run in zip(("xnnpack", "builtin"), report.runs, strict=True):
            steps = "float" if run.mean_steps is None else f"{run.mean_steps:.3f}"
            cells += [f"{run.agreement:.2f}", steps, largest_step(case, sim, content, kernels)]
        weights = sum(report.constant_bytes.get(kind, 0) for kind in WEIGHTS)
        print("| " + " | ".join([*cells, f"{weights:,}", f"{len(content):,}"]) + " |", flush=True)


def largest_step(case: Case, sim, content: bytes, kernels: str) -> str:
    """Return how far one op is off at most, fed the file's own input."""
    images = [case.test[:WALKED]]
    seen = walk(sim, images, LiteRt(content, sim, kernels).tensors(images))
    return str(max(step.max_steps for step in seen)) if seen else "float"


def _flat(outputs: np.ndarray) -> np.ndarray:
    return outputs.reshape(len(outputs), -1)


def main(folder: str, *names: str) -> None:
    """Measure every model, or those named."""
    print(f"Columns: top-1 accuracy; {NOTE}; bytes.")
    for name in names or CASES:
        measure(load(Path(folder), name))


if __name__ == "__main__":
    main(*sys.argv[1:])
