"""What becomes of a graph that is exported and run by the real runtimes."""

from __future__ import annotations

import tempfile
import time
import warnings
from dataclasses import replace
from typing import Any

import keras_edgeq as eq
from keras_edgeq import errors
from tests.random_graphs.check import Outcome, place, quantized, refusal
from tests.random_graphs.graph import Graph, inputs_for

FORMATS = ("tflite", "onnx")
# Few samples hold few numbers, of which one in ten is soon off by chance.
SAMPLES = 64
# Verdict on a run -> outcome; a known rounding of kernels is none.
OUTCOMES = {
    "file": "disagrees",
    "runtime": "disagrees",
    "differs": "disagrees",
    "failed": "failed",
    "amplified": "amplified",
}


def check_export(graph: Graph, formats: tuple[str, ...] = FORMATS) -> Outcome:
    """Quantize a graph's model, export it to a folder that goes away, and verify the files.

    Returns:
        `"disagrees"` where an artifact is not what the sim said; `"failed"` where a runtime ended,
        hung or refused it; `"amplified"` where the model makes much of single steps, which is no
        fault; else as `check_graph`.
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
    for kind in dict.fromkeys(OUTCOMES.values()):
        found = [run for run in report.runs if OUTCOMES.get(run.verdict) == kind]
        if found:
            where = ", ".join(dict.fromkeys(f"{run.runtime} {_place(run)}" for run in found))
            return Outcome(kind, "; ".join(str(run) for run in found)[:900], where)
    return Outcome("ok")


def _place(run: Any) -> str:
    """Return what a verdict is for: an operation where it is one."""
    step = run.first_difference
    return run.verdict if step is None else f"{run.verdict} {step.op}"
