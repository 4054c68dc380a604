"""What becomes of a graph that is exported and run by the real runtimes."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace

import keras_edgeq as eq
from keras_edgeq import errors
from tests.random_graphs.check import Outcome, place, quantized, refusal
from tests.random_graphs.graph import Graph, inputs_for

FORMATS = ("tflite", "onnx")
# Few samples hold few numbers, of which one in ten is soon off by chance.
SAMPLES = 64


def check_export(graph: Graph, formats: tuple[str, ...] = FORMATS) -> Outcome:
    """Quantize a graph's model, export it to a folder that goes away, and verify the files.

    Returns:
        `"disagrees"` where an artifact is not what the sim said; `"one step"` where the first
        operation that differs is never more than one integer step off, but often; else as
        `check_graph`.
    """
    start = time.perf_counter()
    try:
        outcome = _exported(graph, formats)
    except errors.EdgeqError as error:
        outcome = refusal(error)
    except Exception as error:
        outcome = Outcome("raw", f"{type(error).__name__}: {error}"[:600], place(error))
    return replace(outcome, seconds=time.perf_counter() - start)


def _exported(graph: Graph, formats: tuple[str, ...]) -> Outcome:
    sim, _ = quantized(graph)
    data = inputs_for(graph, SAMPLES, seed=1)
    given = data[0] if len(data) == 1 else data
    with tempfile.TemporaryDirectory() as folder:
        report = eq.export(sim, folder, formats, verify=given, progress=False)
    wrong = [run for run in report.runs if not run.agrees]
    if not wrong:
        return Outcome("ok")
    steps = [run.first_difference for run in wrong]
    near = all(step is not None and step.max_steps <= 1 for step in steps)
    ops = [
        f"{run.runtime} {step.op if step else 'outputs'}"
        for run, step in zip(wrong, steps, strict=True)
    ]
    kind, where = "one step" if near else "disagrees", ", ".join(dict.fromkeys(ops))
    return Outcome(kind, "; ".join(map(str, wrong))[:900], where)
