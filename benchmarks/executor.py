"""How many integers the NumPy executor has in common with LiteRT, op by op and end to end.

    python benchmarks/executor.py DATA_FOLDER [MODEL ...]

Each file is run by LiteRT's own kernels and by XNNPACK, two threads, and by the executor with the
arithmetic of each. Op by op: every operation is fed LiteRT's own inputs. End to end: the logits of
the test images. Prints a Markdown table.
"""

from __future__ import annotations

import os
import sys
import time
from collections import defaultdict
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from data import CASES, Case, load

import keras_edgeq as eq
from keras_edgeq.export.tflite.convert import to_tflite
from keras_edgeq.runtime.integer import IntegerModel
from keras_edgeq.runtime.litert import LiteRtModel
from keras_edgeq.runtime.tflite_file import TENSOR_TYPE, TfliteGraph, with_tensors

PAIRS = (("builtin", "fixed_point"), ("xnnpack", "xnnpack_float"), ("xnnpack", "fixed_point"))
# Few images for the grids: whether two programs compute the same does not depend on them.
CALIBRATED, WALKED = 16, 8
TESTED = {"MobileNetV1-0.75": 32, "ResNet-8": 372, "DS-CNN": 372}


def op_by_op(content: bytes, kernels: str, arithmetic: str, images: np.ndarray) -> dict[str, list]:
    """Return operation -> [equal integers, integers], each fed what LiteRT's was fed."""
    graph = TfliteGraph(content)
    made_by = {
        graph.name(i): op.name
        for op in graph.ops
        for i in op.outputs
        if graph.tensors[i].type in (TENSOR_TYPE.INT8, TENSOR_TYPE.FLOAT32)
    }
    runtime = LiteRtModel(with_tensors(content, made_by), kernels)
    names = list(runtime.inputs)
    theirs = runtime.tensors([images], names)
    ours = IntegerModel(content, arithmetic).tensors([images], names, theirs, theirs)
    counts = defaultdict(lambda: [0, 0])
    for name, value in ours.items():
        counts[made_by[name]][0] += int(np.count_nonzero(value == theirs[name]))
        counts[made_by[name]][1] += value.size
    return counts


def measure(case: Case) -> list[str]:
    """Return the rows of one model."""
    sim = eq.quantize(case.model, case.calibration[:CALIBRATED], "litert_int8", progress=False)
    content = to_tflite(sim).content
    images, rows = case.test[: TESTED[case.name]], []
    for kernels, arithmetic in PAIRS:
        ops = op_by_op(content, kernels, arithmetic, case.test[:WALKED])
        names = sim.input_names
        theirs = next(iter(LiteRtModel(content, kernels).run([images], names).values()))
        start = time.perf_counter()
        ours = next(iter(IntegerModel(content, arithmetic).run([images], names).values()))
        ms = 1000 * (time.perf_counter() - start) / len(images)
        parts = ", ".join(f"{op} {_percent(*count)}" for op, count in sorted(ops.items()))
        cells = (
            case.name,
            f"LiteRT {kernels}",
            arithmetic,
            parts,
            f"{_percent(int(np.count_nonzero(ours == theirs)), ours.size)} of {ours.size}",
            f"{ms:.1f}",
        )
        rows.append(f"| {' | '.join(cells)} |")
        print(rows[-1], flush=True)
    return rows


def _percent(equal: int, count: int) -> str:
    """Return a share that is 100 only where all are equal."""
    return "100 %" if equal == count else f"{100 * equal / count:.4f} %"


def main(folder: str, *names: str) -> None:
    """Measure every model, or those named."""
    head = ("model", "runtime", "executor", "op by op", "logits", "ms per image")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for name in names or CASES:
        measure(load(Path(folder), name))


if __name__ == "__main__":
    main(*sys.argv[1:])
