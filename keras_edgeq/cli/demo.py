"""`keras-edgeq demo`: train, quantize, export and verify a small model on the spot."""

from __future__ import annotations

import tempfile
import time
from argparse import Namespace
from contextlib import ExitStack

import numpy as np
import tf_keras

import keras_edgeq as eq
from keras_edgeq.cli.command import Result, say
from keras_edgeq.cli.demo_model import Digits, build, digits, train
from keras_edgeq.cli.out_folder import out_folder
from keras_edgeq.cli.verify import disagreeing, status_of
from keras_edgeq.export.report import ExportReport
from keras_edgeq.numerics.metrics import top1
from keras_edgeq.runtime.artifact import load_artifact
from keras_edgeq.table import aligned

CALIBRATION_SAMPLES = 256


def run(args: Namespace) -> Result:
    """Return how the float model, its sim and the exported files do; status 1 if a file differs."""
    tell = (lambda message: None) if args.quiet else say
    data = digits()
    tf_keras.utils.set_random_seed(1)
    model = build()
    tell(f"training on {len(data.train_x)} digits ...")
    start = time.perf_counter()
    train(model, data)
    tell(f"trained in {time.perf_counter() - start:.0f} s; quantizing for litert_int8 ...")
    sim = eq.quantize(model, data.train_x[:CALIBRATION_SAMPLES], progress=False)
    with ExitStack() as stack:
        kept = None if args.out is None else stack.enter_context(out_folder(args.out))
        out = kept or stack.enter_context(tempfile.TemporaryDirectory(prefix="edgeq-demo-"))
        tell("exporting, and running the exported files ...")
        report = eq.export(sim, out, verify=data.test_x, progress=False)
        accuracies = _accuracies(model, sim, report, data)
    total = len(report.integer_layers) + len(report.float_layers)
    lines = [
        f"on {len(data.test_x)} test digits:",
        f"\n{_table(report, accuracies)}\n",
        f"{len(report.integer_layers)} of {total} layers compute in integers.",
        *map(str, report.runs),
        *([f"the files are in {args.out}"] if args.out else []),
    ]
    shares = {name: float(share) for name, share in accuracies.items()}
    values = {"accuracy": shares, **report.to_json()}
    return Result("\n".join(lines), values, disagreeing(report.runs), status_of(report.runs))


def _accuracies(
    model: tf_keras.Model, sim: tf_keras.Model, report: ExportReport, data: Digits
) -> dict[str, np.floating]:
    """Return the share of right answers, in %, of each row of the report's table."""
    found = {
        "float model": _accuracy(model.predict(data.test_x, verbose=0), data),
        "sim": _accuracy(sim.predict(data.test_x, verbose=0), data),
    }
    for path in (report.files["tflite"], report.files["onnx"]):
        for runtime in load_artifact(path, sim):
            found[runtime.name] = _accuracy(runtime.outputs([data.test_x])[0], data)
    return found


def _table(report: ExportReport, accuracies: dict[str, np.floating]) -> str:
    """Return the report's table with the accuracy of each row."""
    told = {name: f"{share:.2f} %" for name, share in accuracies.items()}
    head, *rows = report.rows()
    table = [(row[0], told.get(row[0], ""), *row[1:]) for row in rows]
    return aligned([("", "accuracy", *head[1:]), *table])


def _accuracy(scores: np.ndarray, data: Digits) -> np.floating:
    return 100.0 * np.mean(top1(scores) == data.test_y)
