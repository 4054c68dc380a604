"""`validate`: a metric of an artifact on its runtime."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from keras_edgeq.errors import EdgeqError, QuantizationWarning, warn
from keras_edgeq.evaluate.artifact_run import ArtifactRun
from keras_edgeq.evaluate.metrics import Metric, as_array
from keras_edgeq.evaluate.validation_report import ValidationReport
from keras_edgeq.nearest import did_you_mean
from keras_edgeq.progress import Bar
from keras_edgeq.runtime.child.process import MEMORY_BYTES, TIMEOUT_S, Limits
from keras_edgeq.sim.data import Labelled, check_count, holds_all, labelled_batches
from keras_edgeq.sim.data_file import read_inputs


def validate(
    artifact: str | Path,
    data: Any,
    metric: Any,
    *,
    output: str | None = None,
    batch_size: int = 32,
    steps: int | None = None,
    threads: int = 1,
    kernels: str = "xnnpack",
    timeout_s: float = TIMEOUT_S,
    memory_bytes: int = MEMORY_BYTES,
    progress: bool = True,
) -> ValidationReport:
    """Measure a metric of an artifact's predictions, on its runtime in a process of its own.

    Args:
        artifact: a `.tflite` or `.onnx` file or the folder of a SavedModel, quantized or float.
        data: inputs with labels, in any form that `quantize` takes: `(x, y)`, an `.npz` file with
            the labels as `y`, a `tf.data.Dataset`, a generator or `Sequence` of such batches. A
            metric object is given weights of samples where the data has them, `(x, y, weights)`.
        metric: a function `(y_true, y_pred) -> number`, which is given all samples at once; a
            metric object of `tf_keras` or Keras 3, which is reset; or a name, such as
            `"accuracy"`, with the meaning that `compile` gives it.
        output: name of the output that is measured, where the artifact has several.
        batch_size: for arrays and files.
        steps: read at most that many batches.
        threads: CPU threads of the runtime.
        kernels: what runs a `.tflite` file: `"xnnpack"`, or `"builtin"` for LiteRT's own.
        timeout_s: seconds that a batch may take, and that loading may.
        memory_bytes: memory that the file may take, in addition to the runtime itself; and that
            the predictions may which are kept for a function.
        progress: show a progress bar.

    Returns:
        The report.

    Raises:
        EdgeqError: the artifact is missing, damaged, refused by its runtime or of another kind; the
            runtime is not installed; the metric is none or returns no number; no such output.
        CalibrationDataError: the data does not fit the artifact, or has no labels.
        RuntimeFailedError: the runtime ended, failed, or took too long or too much memory.

    Warns:
        QuantizationWarning: predictions are NaN or infinite, or the metric is NaN.

    Example:
        >>> report = eq.export(sim, "out", ["tflite"], verify=False, progress=False)
        >>> found = eq.validate(report.files["tflite"], (x, y), "mse", progress=False)
        >>> worst = lambda y_true, y_pred: np.abs(y_true - y_pred).max()
        >>> eq.validate(report.files["tflite"], (x, y), worst, progress=False).value > found.value
        True
    """
    start = time.perf_counter()
    check_count("threads", threads)
    measured, samples, broken = Metric(metric, memory_bytes), 0, 0
    with ArtifactRun(artifact, kernels, threads, Limits(timeout_s, memory_bytes)) as run:
        name = output_of([port.name for port in run.signature.outputs], output)
        source = read(data, run.signature, batch_size, steps, "validate", progress)
        for batch in source:
            made = run.predict(batch.inputs)[name]
            measured.add(as_array(batch.labels, name, measured.name), made, batch.weights)
            samples += len(made)
            broken += int(non_finite(made))
        value = measured.result()
    say_non_finite(run.file.path.name, broken, samples, measured.name, value)
    seconds = time.perf_counter() - start
    names = (run.file.path.name, run.runtime, run.version, measured.name)
    return ValidationReport(*names, value, name, samples, broken, seconds)


def read(
    data: Any, model: Any, batch_size: int, steps: int | None, name: str, progress: bool
) -> Iterator[Labelled]:
    """Yield batches with labels behind a bar, which is left out if their number is not known."""
    check_count("batch_size", batch_size)
    names = list(model.input_names)
    if isinstance(data, str | Path):
        data = read_inputs(Path(data), names, labels=True)
    total = _batch_count(data, names, batch_size)
    if steps is not None:
        total = steps if total is None else min(total, steps)
    bar = Bar(name, total or 1, "batch", progress and total is not None)
    try:
        source = labelled_batches(data, model, batch_size, steps)
        for number, batch in enumerate(source, 1):
            yield batch
            bar.to(number)
    finally:
        bar.close()


def output_of(names: Sequence[str], output: str | None) -> str:
    """Return the output that is measured.

    Raises:
        EdgeqError: there is no such output, or there are several and none was named.
    """
    if output is None and len(names) > 1:
        raise EdgeqError(f"There are outputs {list(names)}; say which is measured: output=.")
    if output is not None and output not in names:
        raise EdgeqError(
            f"There is no output {output!r}, but {list(names)}.{did_you_mean(output, names)}"
        )
    return output or names[0]


def non_finite(values: np.ndarray) -> int:
    """Return the number of samples that have NaN or infinity somewhere."""
    return int(np.sum(~np.isfinite(values.reshape(len(values), -1)).all(axis=1)))


def say_non_finite(what: str, broken: int, samples: int, metric: str, value: float) -> None:
    """Warn where predictions or the metric are no numbers."""
    if broken:
        warn(
            f"{what} predicts NaN or infinity for {broken:,} of {samples:,} samples.",
            QuantizationWarning,
        )
    elif not np.isfinite(value):
        warn(f"{metric} of {what} is {value}, of finite predictions.", QuantizationWarning)


def _batch_count(data: Any, names: list[str], batch_size: int) -> int | None:
    """Return the number of batches, None if it is not known."""
    if isinstance(data, tf.data.Dataset):
        count = int(data.cardinality())
        return count if count > 0 else None
    if holds_all(data, names):
        while isinstance(data, Mapping | list | tuple):
            data = next(iter(data.values() if isinstance(data, Mapping) else data))
        return -(-len(data) // batch_size) if np.ndim(data) else None
    return len(data) if isinstance(data, tf_keras.utils.Sequence | list) else None
