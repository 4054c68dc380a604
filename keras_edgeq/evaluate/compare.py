"""`compare`: the float model, its sim and artifacts beside each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras

from keras_edgeq.errors import EdgeqError
from keras_edgeq.evaluate.artifact_run import ArtifactRun
from keras_edgeq.evaluate.comparison import Candidate, Comparison
from keras_edgeq.evaluate.float_files import is_float_file
from keras_edgeq.evaluate.latency import Latency, Machine, timed_runs
from keras_edgeq.evaluate.metrics import Metric, as_array
from keras_edgeq.evaluate.signature import Port
from keras_edgeq.evaluate.validate import non_finite, output_of, read, say_non_finite
from keras_edgeq.keras3 import as_tf_keras
from keras_edgeq.numerics.metrics import ratio_db, top1
from keras_edgeq.runtime.child.process import MEMORY_BYTES, TIMEOUT_S, Limits
from keras_edgeq.sim.data import Labelled, check_count
from keras_edgeq.sim.quant_sim import QuantSim

ROUNDS = 10
Predict = Callable[[Sequence[np.ndarray]], list[np.ndarray]]


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
        RuntimeFailedError: a runtime ended, failed, or took too long or too much memory.

    Warns:
        QuantizationWarning: predictions are NaN or infinite, or a metric is NaN.

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
    with ExitStack() as stack:
        opened = [
            (str(path), stack.enter_context(ArtifactRun(path, kernels, threads, limits)))
            for path in artifacts
        ]
        makers: list[tuple[str, str, Predict]] = [
            ("float model", "TensorFlow", _of_model(model)),
            ("sim", "TensorFlow", _of_model(sim)),
            *((path, run.runtime, _of_artifact(run, model)) for path, run in opened),
        ]
        scores = [_Score(name, metric, memory_bytes) for _ in makers]
        if metric is not None and not all(score.metric.is_split for score in scores):
            raise EdgeqError(
                f"The metric {scores[0].metric.name} keeps its state elsewhere than in variables, "
                "so one cannot be filled for each candidate. Give a function."
            )
        first: list[np.ndarray] = []
        for batch in read(data, model, batch_size, steps, "compare", progress):
            first = first or [part[:1] for part in batch.inputs]
            exact = makers[0][2](batch.inputs)
            for (what, _, predict), score in zip(makers, scores, strict=True):
                made = exact if what == "float model" else predict(batch.inputs)
                score.add(list(model.output_names), exact, made, batch)
        rows = [
            score.row(what, runtime)
            for (what, runtime, _), score in zip(makers, scores, strict=True)
        ]
        machine = Machine.now()
        taken = _interleaved([run for _, run in opened], model, first, runs)
        timed = _with_latency(rows[2:], [run for _, run in opened], taken)
    found = scores[0].metric.name if metric is not None else ""
    for row in (*rows[:2], *timed):
        value = 0.0 if row.metric is None else row.metric
        say_non_finite(row.name, row.non_finite, scores[0].samples, found, value)
    return Comparison((*rows[:2], *timed), found, scores[0].samples, runs, threads, machine)


@dataclass
class _Score:
    """What is summed over batches for one candidate."""

    output: str
    given: Any
    most_bytes: int
    samples: int = 0
    signal: Any = 0.0
    noise: Any = 0.0
    agrees: int | None = 0
    broken: int = 0
    metric: Metric = field(init=False)

    def __post_init__(self):
        if self.given is not None:
            self.metric = Metric(self.given, self.most_bytes)

    def add(
        self, names: list[str], exact: list[np.ndarray], made: list[np.ndarray], batch: Labelled
    ) -> None:
        pairs = zip(exact, made, strict=True)
        wide = [(np.asarray(e, np.float64), np.asarray(m, np.float64)) for e, m in pairs]
        self.signal += np.array([np.sum(e * e) for e, _ in wide])
        self.noise += np.array([np.sum((m - e) ** 2) for e, m in wide])
        self.samples += len(made[0])
        self.broken += max(non_finite(m) for m in made)
        at = names.index(self.output) if self.output else -1
        if at < 0 or exact[at].ndim != 2 or exact[at].shape[1] < 2:
            self.agrees = None
        elif self.agrees is not None:
            self.agrees += int(np.sum(top1(exact[at]) == top1(made[at])))
        if self.given is not None:
            labels = as_array(batch.labels, self.output, self.metric.name)
            self.metric.add(labels, made[at], batch.weights)

    def row(self, name: str, runtime: str) -> Candidate:
        ratios = [
            ratio_db(float(s), float(n)) if math.isfinite(n) else math.nan
            for s, n in zip(self.signal, self.noise, strict=True)
        ]
        return Candidate(
            name=name,
            runtime=runtime,
            metric=None if self.given is None else self.metric.result(),
            agreement=None if self.agrees is None else 100.0 * self.agrees / self.samples,
            sqnr_db=float(np.mean(ratios)),
            non_finite=self.broken,
        )


def _of_model(model: tf_keras.Model) -> Predict:
    def predict(batch: Sequence[np.ndarray]) -> list[np.ndarray]:
        made = model.predict_on_batch(list(batch) if len(batch) > 1 else batch[0])
        if isinstance(made, Mapping):
            return [np.asarray(made[name]) for name in model.output_names]
        return [np.asarray(part) for part in (made if isinstance(made, list | tuple) else [made])]

    return predict


def _of_artifact(run: ArtifactRun, model: tf_keras.Model) -> Predict:
    file = run.file.path.name
    order = _order(file, "input", run.signature.ports, model.input_names, model.inputs)
    back = _order(file, "output", run.signature.outputs, model.output_names, model.outputs)
    names = [port.name for port in run.signature.outputs]

    def predict(batch: Sequence[np.ndarray]) -> list[np.ndarray]:
        made = run.predict([batch[i] for i in order])
        placed = dict(zip(back, names, strict=True))
        outputs = [made[placed[i]] for i in range(len(names))]
        for value, symbol in zip(outputs, model.outputs, strict=True):
            if not symbol.shape.is_compatible_with(value.shape):
                raise EdgeqError(
                    f"{file} returns shape {value.shape} where the model returns {symbol.shape}."
                )
        return outputs

    return predict


def _order(
    file: str, what: str, ports: Sequence[Port], names: Sequence[str], symbols: Sequence[Any]
) -> list[int]:
    """Return for each port which of the model's inputs or outputs it is: by name, else by sizes."""
    own = [port.name for port in ports]
    if len(own) == len(names) == 1:
        return [0]
    if sorted(own) == sorted(names):
        return [list(names).index(name) for name in own]
    sizes = [tuple(symbol.shape[1:]) for symbol in symbols]
    found = [port.sizes[1:] for port in ports]
    if len(set(sizes)) == len(sizes) and sorted(map(str, sizes)) == sorted(map(str, found)):
        return [sizes.index(size) for size in found]
    raise EdgeqError(
        f"{file} has the {what}s {own}, the model {list(names)}; they cannot be told apart."
    )


def _interleaved(
    opened: Sequence[ArtifactRun], model: tf_keras.Model, first: list[np.ndarray], runs: int
) -> list[np.ndarray]:
    """Time artifacts in turn; return nanoseconds per sample of each run."""
    fed, begin, parts = [], [], [[] for _ in opened]
    for run in opened:
        order = _order(
            run.file.path.name, "input", run.signature.ports, model.input_names, model.inputs
        )
        fed.append(run.feed([first[i] for i in order]))
        begin.append(float(np.median(run.time(fed[-1], 2).taken_ns)))
    left = runs
    for rounds in range(min(ROUNDS, runs), 0, -1):
        count = -(-left // rounds)
        left -= count
        for at, run in enumerate(opened):
            taken, _ = timed_runs(run, fed[at], count, begin[at])
            parts[at].append(taken / len(fed[at][0]))
    return [np.concatenate(part) for part in parts]


def _with_latency(
    rows: Sequence[Candidate], opened: Sequence[ArtifactRun], taken: Sequence[np.ndarray]
) -> list[Candidate]:
    floats: dict[str, float] = {}
    for run, times in zip(opened, taken, strict=True):
        if is_float_file(run.file):
            floats.setdefault(run.runtime, float(np.median(times)))
    made = []
    for row, run, times in zip(rows, opened, taken, strict=True):
        base = floats.get(run.runtime)
        made.append(
            replace(
                row,
                size_bytes=run.file.size_bytes,
                latency=Latency.of(times),
                latency_ratio=float(np.median(times)) / base if base else None,
            )
        )
    return made
