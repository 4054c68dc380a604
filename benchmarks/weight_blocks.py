"""Weights of 4 bits in ONNX Runtime: a scale per channel beside one per block of 32 inputs.

    python benchmarks/weight_blocks.py FOLDER [TASK ...] [--table FILE]

Reads the networks of `sequence_tasks.py` from FOLDER, or trains them. Per precision: the task's own
score of the float model, the sim and the file in ONNX Runtime; the SQNR of the sim's outputs; bytes
of the file. Needs scikit-learn.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from sequence_tasks import TASKS, trained
from table import emit, head

import keras_edgeq as eq
from keras_edgeq.numerics.metrics import sqnr_db
from keras_edgeq.runtime.artifact import OnnxRuntime

CALIBRATION = 256
PRECISIONS = ("FP32", "W8", "W4", "W4g32")
HEAD = ("task", "precision", "float", "sim", "ONNX Runtime", "SQNR, dB", "bytes")


def measure(name: str, model: Any, precision: str, technique: str = "") -> list[str]:
    """Return a row of the table."""
    task = TASKS[name]
    x, _, test, labels = task.data()
    calibration = [part[:CALIBRATION] for part in x]
    calibration = calibration[0] if len(calibration) == 1 else calibration
    sim = eq.quantize(model, calibration, "onnxruntime_int8", precision=precision, progress=False)
    if technique:
        sim = getattr(eq, technique)(sim, calibration, progress=False)
    with tempfile.TemporaryDirectory() as folder:
        made = eq.export(sim, folder, ["onnx"], verify=False, progress=False)
        content = Path(made.files["onnx"]).read_bytes()
    runtime = OnnxRuntime(content, sim)

    def answers(network: Any) -> Any:
        return lambda arrays: network.predict(arrays[0] if len(arrays) == 1 else arrays, verbose=0)

    return [
        name,
        f"{precision}, {technique}" if technique else precision,
        f"{task.score(answers(model), test, labels):.2f}",
        f"{task.score(answers(sim), test, labels):.2f}",
        f"{task.score(lambda arrays: runtime.outputs(arrays)[0], test, labels):.2f}",
        f"{sqnr_db(answers(model)(test), answers(sim)(test)):.1f}",
        f"{len(content):,}",
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="weights, written where they are missing")
    parser.add_argument("tasks", nargs="*", default=["encoder"], help=", ".join(TASKS))
    parser.add_argument("--table", type=Path)
    asked = parser.parse_args()
    emit(asked.table, head(HEAD))
    for name in asked.tasks:
        model = trained(name, asked.folder)
        rows = [(one, "") for one in PRECISIONS] + [("W4", "gptq"), ("W4g32", "gptq")]
        for precision, technique in rows:
            cells = measure(name, model, precision, technique)
            emit(asked.table, "| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
