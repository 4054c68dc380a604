"""What it costs to run artifacts in a child process instead of inside the user's.

    python benchmarks/child_process.py DATA_FOLDER [MODEL ...]

Each file is loaded and run, inside of this process and in a child, on batches of 32 images; a line
has the median of `RUNS` rounds. `start` is from nothing until the first file is loaded, without the
time that loading takes inside: a process, its imports and the file on its way. Prints Markdown.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from data import CASES, Case, load

import keras_edgeq as eq
from keras_edgeq.export.onnx.qdq import to_onnx_qdq
from keras_edgeq.export.tflite.convert import to_tflite
from keras_edgeq.runtime.child.process import Child
from keras_edgeq.runtime.litert import LiteRtModel
from keras_edgeq.runtime.onnx_model import OnnxModel

CALIBRATED, BATCH, RUNS = 16, 32, 5
WAYS = (
    ("LiteRT xnnpack", "litert", LiteRtModel, {"kernels": "xnnpack"}),
    ("LiteRT builtin", "litert", LiteRtModel, {"kernels": "builtin"}),
    ("ONNX Runtime", "onnx", OnnxModel, {"optimize": True}),
)


def timed(what: Callable[[], Any]) -> tuple[float, Any]:
    """Return milliseconds and the result."""
    start = time.perf_counter()
    made = what()
    return 1000.0 * (time.perf_counter() - start), made


def measure(case: Case) -> None:
    """Print the rows of one model."""
    sim = eq.quantize(case.model, case.calibration[:CALIBRATED], "litert_int8", progress=False)
    contents = {"litert": to_tflite(sim).content, "onnx": to_onnx_qdq(sim).SerializeToString()}
    images, names = case.test[:BATCH], sim.input_names
    for title, kind, inside, options in WAYS:
        content = contents[kind]
        rows = []
        for _ in range(RUNS):
            load_ms, model = timed(lambda: inside(content, **options))  # noqa: B023
            run_ms, ours = timed(lambda: model.compute([images], names))  # noqa: B023
            with Child() as child:
                first_ms, _ = timed(lambda: child.load(kind, content, title, **options))  # noqa: B023
                again_ms, other = timed(lambda: child.load(kind, content, title, **options))  # noqa: B023
                child_ms, theirs = timed(lambda: other.compute([images], names))  # noqa: B023
            assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
            rows.append((first_ms - load_ms, load_ms, again_ms, run_ms, child_ms))
        cells = [f"{value:.1f}" for value in np.median(rows, axis=0)]
        size = f"{images.nbytes / 2**20:.2f}"
        print(f"| {' | '.join((case.name, title, size, *cells))} |", flush=True)


def main(folder: str, *names: str) -> None:
    """Measure every model, or those named."""
    head = (
        "model", "runtime", "MiB per batch", "start", "load inside", "load in the child",
        "batch inside", "batch in the child",
    )  # fmt: skip
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    before = os.getloadavg()[0]
    for name in names or CASES:
        measure(load(Path(folder), name))
    print(
        f"\nMilliseconds. Load of the machine: {before:.1f} before, {os.getloadavg()[0]:.1f} after."
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
