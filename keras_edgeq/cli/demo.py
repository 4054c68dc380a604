"""`keras-edgeq demo`: train, quantize, export and verify a small model on the spot."""

from __future__ import annotations

import tempfile
import time
from argparse import Namespace
from contextlib import ExitStack

import numpy as np
import tf_keras

import keras_edgeq as eq
from keras_edgeq.cli.demo_model import Digits, build, digits, train
from keras_edgeq.export.report import ExportReport
from keras_edgeq.numerics.metrics import top1
from keras_edgeq.runtime.artifact import load_artifact
from keras_edgeq.table import aligned

CALIBRATION_SAMPLES = 256


def run(args: Namespace) -> int:
    """Print how the float model, its sim and the exported files do; 1 where a file differs."""
    data = digits()
    tf_keras.utils.set_random_seed(1)
    model = build()
    print(f"training on {len(data.train_x)} digits ...", flush=True)
    start = time.perf_counter()
    train(model, data)
    print(f"trained in {time.perf_counter() - start:.0f} s; quantizing for litert_int8 ...")
    sim = eq.quantize(model, data.train_x[:CALIBRATION_SAMPLES], progress=False)
    with ExitStack() as stack:
        out = args.out or stack.enter_context(tempfile.TemporaryDirectory(prefix="edgeq-demo-"))
        print("exporting, and running the exported files ...", flush=True)
        report = eq.export(sim, out, verify=data.test_x, progress=False)
        print(f"\non {len(data.test_x)} test digits:\n\n{_table(model, sim, report, data)}")
    total = len(report.integer_layers) + len(report.float_layers)
    print(f"\n{len(report.integer_layers)} of {total} layers compute in integers.")
    for run in report.runs:
        print(run)
    if args.out:
        print(f"the files are in {args.out}")
    return 0 if all(run.agrees for run in report.runs) else 1


def _table(model: tf_keras.Model, sim: tf_keras.Model, report: ExportReport, data: Digits) -> str:
    """Return the report's table with the accuracy of each row."""
    accuracies = {
        "float model": _accuracy(model.predict(data.test_x, verbose=0), data),
        "sim": _accuracy(sim.predict(data.test_x, verbose=0), data),
    }
    for path in (report.files["tflite"], report.files["onnx"]):
        for runtime in load_artifact(path, sim):
            accuracies[runtime.name] = _accuracy(runtime.outputs([data.test_x])[0], data)
    head, *rows = report.rows()
    table = [(row[0], accuracies.get(row[0], ""), *row[1:]) for row in rows]
    return aligned([("", "accuracy", *head[1:]), *table])


def _accuracy(scores: np.ndarray, data: Digits) -> str:
    return f"{100 * np.mean(top1(scores) == data.test_y):.2f} %"
