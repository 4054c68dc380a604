"""`compare`: the float model, its sim and artifacts beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras

from keras_edgeq.errors import EdgeqError, QuantizationWarning, warn
from keras_edgeq.evaluate.artifact_run import ArtifactRun
from keras_edgeq.evaluate.comparison import Candidate, Comparison
from keras_edgeq.evaluate.latency import Machine
from keras_edgeq.evaluate.predict import Predict, input_order, predict_of
from keras_edgeq.evaluate.scores import Score
from keras_edgeq.evaluate.timed_file import TimedFile, costs, time_in_turn
from keras_edgeq.evaluate.validate import output_of, read, say_non_finite
from keras_edgeq.keras3 import as_tf_keras
from keras_edgeq.runtime.child.process import MEMORY_BYTES, TIMEOUT_S, Limits
from keras_edgeq.sim.data import check_count
from keras_edgeq.sim.quant_sim import QuantSim


def compare(
    model: tf_keras.Model,
    sim: QuantSim,
    *artifacts: str | Path,
    data: Any,
    metric: Any = None,
    output: str | None = None,
    batch_size: int = 32,
    steps: int | None = None,
    threads: int = 1,
    runs: int = 100,
    kernels: str = "xnnpack",
    timeout_s: float = TIMEOUT_S,
    memory_bytes: int = MEMORY_BYTES,
    progress: bool = True,
) -> Comparison:
    """Measure a float model, its sim and artifacts on the same data, side by side.

    Artifacts run on their runtimes in processes of their own. They are timed in turn, a few runs of
    each at a time, so that what else the machine does falls on all of them. Ratios are to the first
    float file among the artifacts that has the same runtime.

    Args:
        model: the float model, of `tf_keras` or Keras 3.
        sim: its sim.
        artifacts: `.tflite` and `.onnx` files and folders of SavedModels, quantized or float, with
            the inputs and outputs of the model.
        data: inputs in any form that `quantize` takes; with labels if there is a metric, in any
            form that `validate` takes.
        metric: as for `validate`; None measures agreement and SQNR only.
        output: name of the model's output for metric and agreement, where it has several.
        batch_size: for arrays and files.
        steps: read at most that many batches.
        threads: CPU threads of each runtime.
        runs: timed runs of each artifact.
        kernels: what runs a `.tflite` file: `"xnnpack"`, or `"builtin"` for LiteRT's own.
        timeout_s: seconds that a batch may take, and that loading may.
        memory_bytes: memory that each file may take, in addition to the runtime itself.
        progress: show a progress bar.

    Returns:
        The comparison.

    Raises:
        EdgeqError: an artifact is missing, damaged, refused by its runtime or of another kind, or
            has other inputs and outputs than the model; the metric is none or returns no number.
        CalibrationDataError: the data does not fit the model, or has no labels.
        RuntimeFailedError: a runtime ended or took too much while it loaded an artifact.

    Warns:
        QuantizationWarning: predictions are NaN or infinite, or a metric is NaN; or a runtime
            failed after it loaded a file: the other candidates are measured all the same.

    Example:
        >>> report = eq.export(sim, "out", ["tflite"], verify=False, progress=False)
        >>> path = report.files["tflite"]
        >>> found = eq.compare(
        ...     model, sim, path, data=(x, y), metric="mse", runs=10, progress=False
        ... )
        >>> found.candidates[0].metric <= found.candidates[2].metric
        True
    """
    check_count("threads", threads)
    check_count("runs", runs)
    model = as_tf_keras(model)
    name = "" if metric is None and len(model.outputs) > 1 and output is None else None
    if name is None:
        name = output_of(list(model.output_names), output)
    limits = Limits(timeout_s, memory_bytes)
    asked = (name, metric, memory_bytes)
    with ExitStack() as stack:
        runs_of = [
            stack.enter_context(ArtifactRun(path, kernels, threads, limits)) for path in artifacts
        ]
        files = [TimedFile(run) for run in runs_of]
        exact, predicts = _of_model(model), [predict_of(run, model) for run in runs_of]
        scores = [Score(*asked) for _ in range(2 + len(files))]
        if not all(score.is_split for score in scores):
            raise EdgeqError(
                f"The metric {scores[0].metric_name} keeps its state elsewhere than in variables, "
                "so one cannot be filled for each candidate. Give a function."
            )
        names, of_sim = list(model.output_names), _of_model(sim)
        first: list[np.ndarray] = []
        for batch in read(data, model, batch_size, steps, "compare", progress):
            first = first or [part[:1] for part in batch.inputs]
            wanted = exact(batch.inputs)
            scores[0].add(names, wanted, wanted, batch)
            scores[1].add(names, wanted, of_sim(batch.inputs), batch)
            for file, predict, score in zip(files, predicts, scores[2:], strict=True):
                with file.unless_failed() as works:
                    if works:
                        score.add(names, wanted, predict(batch.inputs), batch)
        machine = Machine.now()
        time_in_turn(files, lambda run: [first[i] for i in input_order(run, model)], runs)
        rows = [
            Candidate(name, "TensorFlow", **score.values())
            for name, score in zip(("float model", "sim"), scores, strict=False)
        ]
        for path, file, score, cost in zip(artifacts, files, scores[2:], costs(files), strict=True):
            values = {} if file.failed else score.values()
            rows.append(Candidate(str(path), file.run.runtime, **values, **cost))
    told = (scores[0].metric_name, scores[0].samples, runs, threads, machine)
    found = Comparison(tuple(rows), *told)
    _say_what_broke(found)
    return found


def _say_what_broke(found: Comparison) -> None:
    for row in found.candidates:
        if row.failed:
            warn(f"{row.name} is left out from where it failed: {row.failed}", QuantizationWarning)
        else:
            value = 0.0 if row.metric is None else row.metric
            say_non_finite(row.name, row.non_finite, found.samples, found.metric, value)


def _of_model(model: tf_keras.Model) -> Predict:
    def predict(batch: Sequence[np.ndarray]) -> list[np.ndarray]:
        made = model.predict_on_batch(list(batch) if len(batch) > 1 else batch[0])
        if isinstance(made, Mapping):
            return [np.asarray(made[name]) for name in model.output_names]
        return [np.asarray(part) for part in (made if isinstance(made, list | tuple) else [made])]

    return predict
