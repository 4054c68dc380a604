"""Attention, normalization and recurrence in integers: accuracy, files, latency.

    python benchmarks/sequences.py FOLDER [TASK ...] [--qat] [--table FILE]

Trains each network of `sequence_tasks.py` here, or reads its weights from FOLDER. Per precision:
the task's own score of the float model, the sim, and the files on LiteRT and ONNX Runtime; the
share of multiply-accumulates in integers; how many of the files' answers are the sim's; the largest
difference of one operation fed the file's own input, in steps; latency of the integer file beside
the float file on LiteRT, one sample and one thread, in turn, median of 200. With --qat, what
training in 4 bits gives instead. Needs scikit-learn. Allow half an hour on two cores.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from macs import integer_share
from sequence_tasks import TASKS, Arrays, Task, fit, trained
from table import emit, head

import keras_edgeq as eq
from keras_edgeq.runtime.artifact import LiteRt, OnnxRuntime
from keras_edgeq.runtime.walk import walk

CALIBRATION, ROUNDS, CHECKED = 256, 200, 64
# Column -> profile and precision.
FORMS = {
    "W8A8": ("litert_int8", "W8A8"),
    "w8a8_norm16": ("litert_int8", "w8a8_norm16"),
    "W8A16": ("litert_int8", "W8A16"),
    "W8": ("litert_int8", "W8"),
    "W4": ("litert_int8", "W4"),
    "ORT W8A8": ("onnxruntime_int8", "W8A8"),
}
HEAD = (
    "task", "precision", "float", "sim", "LiteRT", "ONNX Runtime", "MACs in integers",
    "LiteRT as sim", "ONNX as sim", "verdicts", "steps", "ms, float", "ms", "bytes, float", "bytes",
    "quantize, s", "TFLite, s", "ONNX, s",
)  # fmt: skip


def measure(name: str, model: Any, form: str, folder: Path) -> list[str]:
    """Return the cells of a row behind the task's name."""
    task, (profile, precision) = TASKS[name], FORMS[form]
    x, _, test, labels = task.data()
    calibration = [part[:CALIBRATION] for part in x]
    laps = [time.perf_counter()]
    sim = eq.quantize(model, _one(calibration), profile, precision=precision, progress=False)
    laps.append(time.perf_counter())
    files = {}
    for format in ("tflite", "onnx"):
        if format not in sim.record.profile.formats:
            laps.append(laps[-1])
            continue
        made = eq.export(sim, folder / form / format, [format], verify=False, progress=False)
        files[format] = Path(made.files[format])
        laps.append(time.perf_counter())
    few = [part[:CHECKED] for part in test]
    runs = [run for file in files.values() for run in eq.verify(sim, file, _one(few))]
    ours = sim.predict(_one(test), verbose=0)
    told = labels >= 0
    cells = [
        form,
        f"{_score(task, model, test, labels):.2f}",
        f"{_score(task, sim, test, labels):.2f}",
    ]
    agree, share, steps, times, sizes = {}, "", "", ("", ""), ("", "")
    for format in ("tflite", "onnx"):
        if format not in files:
            cells.append("")
            continue
        runtime = _runtime(sim, files[format])
        cells.append(f"{task.score(lambda a, r=runtime: r.outputs(a)[0], test, labels):.2f}")
        same = runtime.outputs(test)[0].argmax(-1) == ours.argmax(-1)
        agree[format] = f"{100.0 * np.mean(same[told]):.2f}"
    if "tflite" in files:
        content = files["tflite"].read_bytes()
        share = f"{100.0 * integer_share(content):.1f} %"
        seen = walk(sim, few, LiteRt(content, sim, "xnnpack").tensors(few))
        steps = str(max((step.max_steps for step in seen), default="float"))
        plain = float_file(model)
        times = tuple(f"{ms:.3f}" for ms in latency([plain, content], few))
        sizes = tuple(f"{len(c):,}" for c in (plain, content))
    verdicts = ", ".join(dict.fromkeys(f"{run.runtime} {run.verdict}" for run in runs))
    spent = [f"{seconds:.0f}" for seconds in np.diff(laps)]
    told_so = [agree.get("tflite", ""), agree.get("onnx", ""), verdicts, steps]
    return [*cells, share, *told_so, *times, *sizes, *spent]


def _score(task: Task, model: Any, test: Arrays, labels: np.ndarray) -> float:
    return task.score(lambda x: model.predict(_one(x), verbose=0), test, labels)


def _one(arrays: Arrays) -> Any:
    return arrays[0] if len(arrays) == 1 else arrays


def _runtime(sim: Any, file: Path) -> Any:
    if file.suffix == ".tflite":
        return LiteRt(file.read_bytes(), sim, "xnnpack")
    return OnnxRuntime(file.read_bytes(), sim)


def float_file(model: Any) -> bytes:
    """Return the model as LiteRT's converter writes it, for one sample."""
    specs = [
        tf.TensorSpec([1, *t.shape[1:]], t.dtype, name=t.node.layer.name) for t in model.inputs
    ]
    call = tf.function(lambda *x: model(list(x) if len(x) > 1 else x[0], training=False))
    with tempfile.TemporaryDirectory() as folder:
        module = tf.Module()
        module.model = model
        signature = call.get_concrete_function(*specs)
        tf.saved_model.save(module, folder, signatures={"serving_default": signature})
        return tf.lite.TFLiteConverter.from_saved_model(folder).convert()


def latency(files: list[bytes], samples: Arrays) -> list[float]:
    """Return the median milliseconds of each file on one sample, taken in turn."""
    loaded = []
    for content in files:
        model = Interpreter(model_content=content, num_threads=1)
        for detail in model.get_input_details():
            model.resize_tensor_input(detail["index"], [1, *detail["shape"][1:]])
        model.allocate_tensors()
        for detail in model.get_input_details():
            fits = [s for s in samples if s.shape[1:] == tuple(detail["shape"][1:])]
            model.set_tensor(detail["index"], fits[0][:1].astype(detail["dtype"]))
        loaded.append(model)
    spent = np.zeros((ROUNDS, len(loaded)))
    for turn in range(ROUNDS):
        for number, model in enumerate(loaded):
            start = time.perf_counter()
            model.invoke()
            spent[turn, number] = 1000.0 * (time.perf_counter() - start)
    return np.median(spent, 0).tolist()


def trained_in_4_bits(name: str, folder: Path) -> list[str]:
    """Return scores: float, float trained on, 4 bits before and after training as long."""
    task, model = TASKS[name], trained(name, folder)
    x, y, test, labels = task.data()
    sim = eq.quantize(
        model, _one([part[:CALIBRATION] for part in x]), precision="W4A8", progress=False
    )
    before = [_score(task, one, test, labels) for one in (model, sim)]
    for one in (model, sim):
        fit(one, x, y, max(task.epochs // 4, 3), 5e-4)
    after = [_score(task, one, test, labels) for one in (model, sim)]
    return [f"{score:.2f}" for score in (before[0], after[0], before[1], after[1])]


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="weights, written where they are missing")
    parser.add_argument("tasks", nargs="*", help=", ".join(TASKS))
    parser.add_argument("--forms", nargs="*", choices=FORMS, default=list(FORMS))
    parser.add_argument("--qat", action="store_true")
    parser.add_argument("--table", type=Path)
    asked = parser.parse_args()
    names = asked.tasks or [name for name in TASKS if TASKS[name].qat or not asked.qat]
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors")
    if asked.qat:
        emit(asked.table, head(("task", "float", "float, trained on", "W4A8", "W4A8, trained")))
    else:
        emit(asked.table, head(HEAD))
    for name in names:
        with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
            warnings.simplefilter("ignore")
            if asked.qat:
                rows = [trained_in_4_bits(name, asked.folder)]
            else:
                model = trained(name, asked.folder)
                rows = (measure(name, model, form, Path(folder)) for form in asked.forms)
            for cells in rows:
                emit(asked.table, "| " + " | ".join([name, *cells]) + " |")


if __name__ == "__main__":
    main()
