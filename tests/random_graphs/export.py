"""What becomes of a graph that is exported and run by the real runtimes."""

from __future__ import annotations

import tempfile
import time
import warnings
from dataclasses import replace
from typing import Any

import numpy as np

import keras_edgeq as eq
from keras_edgeq import errors
from tests.random_graphs.check import Outcome, place, quantized, refusal
from tests.random_graphs.graph import Graph, inputs_for, outputs

FORMATS = ("tflite", "onnx")
# Few samples hold few numbers, of which one in ten is soon off by chance.
SAMPLES = 64
LEAST_IDENTICAL = 0.9
# Of the largest output: float layers of a file that do something else than those of Keras.
FAR = 0.3


def check_export(graph: Graph, formats: tuple[str, ...] = FORMATS) -> Outcome:
    """Quantize a graph's model, export it to a folder that goes away, and verify the files.

    Random models have no clear winners among their outputs, so `agreement` is not asked for.

    Returns:
        `"disagrees"` where an artifact is not what the sim said; `"one step"` where the first
        operation that differs is never more than one integer step off, but often; else as
        `check_graph`.
    """
    start = time.perf_counter()
    try:
        outcome = _exported(graph, formats)
    except (errors.ExportError, errors.UnsupportedModelError) as error:
        outcome = refusal(error)
    except errors.EdgeqError as error:  # of a file that was just written
        outcome = replace(refusal(error), kind="disagrees")
    except Exception as error:
        outcome = Outcome("raw", f"{type(error).__name__}: {error}"[:600], place(error))
    return replace(outcome, seconds=time.perf_counter() - start)


def _exported(graph: Graph, formats: tuple[str, ...]) -> Outcome:
    sim, _ = quantized(graph)
    data = inputs_for(graph, SAMPLES, seed=1)
    given = data[0] if len(data) == 1 else data
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Format .* was not exported")  # told by the report
        report = eq.export(sim, folder, formats, verify=given, progress=False)
    if report.failed:
        raise errors.ExportError(next(iter(report.failed.values())))
    largest = max(float(np.max(np.abs(a), initial=0.0)) for a in outputs(sim, data))
    judged = [(run, *_judged(run, largest)) for run in report.runs]
    for kind in ("disagrees", "one step"):
        found = [(run, where) for run, judgement, where in judged if judgement == kind]
        if found:
            where = ", ".join(dict.fromkeys(f"{run.runtime} {at}" for run, at in found))
            return Outcome(kind, "; ".join(str(run) for run, _ in found)[:900], where)
    return Outcome("ok")


def _judged(run: Any, largest: float) -> tuple[str, str]:
    """Return the outcome of one run, and the operation that differs."""
    step = run.first_difference
    if step is not None and step.differs(LEAST_IDENTICAL):
        return ("one step" if step.max_steps <= 1 else "disagrees"), step.op
    if not run.max_abs_difference <= FAR * largest:  # NaN is far too
        return "disagrees", "outputs"
    return "ok", ""
