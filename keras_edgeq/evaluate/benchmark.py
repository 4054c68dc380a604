"""`benchmark`: what an artifact costs on its runtime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_edgeq.evaluate.artifact_run import ArtifactRun
from keras_edgeq.evaluate.benchmark_report import BenchmarkReport, OperationTime
from keras_edgeq.evaluate.latency import Latency, Machine, timed_runs
from keras_edgeq.evaluate.samples import Sizes, timed_batch
from keras_edgeq.progress import Bar
from keras_edgeq.runtime.child.process import MEMORY_BYTES, TIMEOUT_S, Limits
from keras_edgeq.sim.data import check_count

# An operation's mean is known well after fewer runs than a 99th percentile.
PROFILED_RUNS, PROFILED_SECONDS = 50, 5.0


def benchmark(
    artifact: str | Path,
    data: Any = None,
    *,
    threads: int = 1,
    warmup: int = 10,
    runs: int = 100,
    batch_size: int = 1,
    sizes: Sizes = None,
    kernels: str = "xnnpack",
    operations: bool = True,
    timeout_s: float = TIMEOUT_S,
    memory_bytes: int = MEMORY_BYTES,
    progress: bool = True,
) -> BenchmarkReport:
    """Measure what an artifact costs: latency, memory, bytes, and the time of each operation.

    The runtime runs in a process of its own, with the kernels that `verify` compares: those of
    ONNX Runtime are exact on every processor, which on some is not the fastest way. Latency is that
    of this machine and of what else it does, not that of a device.

    Args:
        artifact: a `.tflite` or `.onnx` file or the folder of a SavedModel, quantized or float.
        data: inputs in any form that `quantize` takes; their first batch is what runs. Without data
            the inputs are random, always the same: between -1 and 1, or over the range of an
            integer input; ids are 0 or 1.
        threads: CPU threads of the runtime.
        warmup: runs that do not count, after the first one.
        runs: runs that count.
        batch_size: samples per run; a file of a fixed batch gets that.
        sizes: of the inputs, samples first, where the file leaves more than the batch free:
            `(1, 64)` for one input, or by name, `{"ids": (1, 64)}`.
        kernels: what runs a `.tflite` file: `"xnnpack"`, or `"builtin"` for LiteRT's own.
        operations: whether to profile the operations, in up to 50 more runs in a second process.
        timeout_s: seconds that a run may take, and that loading may.
        memory_bytes: memory that the file may take, in addition to the runtime itself.
        progress: show a progress bar.

    Returns:
        The report. `operations` is empty where the runtime has no profiler that is known
        (TensorFlow, other versions of LiteRT), or where it fails on the file, as LiteRT's does on
        sizes that only a run tells; `no_operations` says why.

    Raises:
        EdgeqError: the artifact is missing, damaged, refused by its runtime or of another kind; the
            runtime is not installed; or a free size of an input is not given.
        CalibrationDataError: the data does not fit the artifact, or a count is not one.
        RuntimeFailedError: the runtime ended, failed, or took too long or too much memory.

    Example:
        >>> report = eq.export(sim, "out", ["tflite"], verify=False, progress=False)
        >>> found = eq.benchmark(report.files["tflite"], runs=20, progress=False)
        >>> found.runtime, found.runs, found.size_bytes == report.sizes["tflite"]
        ('LiteRT xnnpack', 20, True)
    """
    check_count("threads", threads)
    check_count("warmup", warmup, least=0)
    check_count("runs", runs)
    check_count("batch_size", batch_size)
    limits = Limits(timeout_s, memory_bytes)
    with ArtifactRun(artifact, kernels, threads, limits) as run:
        batch = timed_batch(run.signature, data, sizes, batch_size)
        report = _timed(run, batch, threads, warmup, runs, progress)
        report = replace(report, on_data=data is not None)
        return _with_operations(report, run, run.feed(batch)) if operations else report


def _timed(
    run: ArtifactRun, batch: list[np.ndarray], threads: int, warmup: int, runs: int, progress: bool
) -> BenchmarkReport:
    """Return the report without its operations."""
    machine, fed = Machine.now(), run.feed(batch)
    first = run.time(fed, 1)
    first_ns = float(first.taken_ns[0])
    bar = Bar("benchmark", warmup + runs, "run", progress)
    count = 0

    def done(more: int) -> None:
        nonlocal count
        count += more
        bar.to(count)

    try:
        if warmup:
            dropped, _ = timed_runs(run, fed, warmup, first_ns, done)
            first_ns = float(np.median(dropped))
        taken, memory = timed_runs(run, fed, runs, first_ns, done)
    finally:
        bar.close()
    shapes = zip(run.signature.input_names, fed, strict=True)
    return BenchmarkReport(
        artifact=run.file.path.name,
        runtime=run.runtime,
        runtime_version=run.version,
        threads=threads,
        warmup=warmup,
        runs=runs,
        input_shapes={name: part.shape for name, part in shapes},
        on_data=False,
        size_bytes=run.file.size_bytes,
        load_ms=1e3 * (run.loaded.load_s + first.prepare_s),
        first_inference_ms=1e-6 * float(first.taken_ns[0]),
        latency=Latency.of(taken),
        latencies_ms=tuple(1e-6 * float(value) for value in taken),
        load_memory_bytes=run.loaded.memory["file"],
        inference_memory_bytes=max(memory["file"], first.memory["file"]),
        process_memory_bytes=max(
            peak["process"] for peak in (run.loaded.memory, first.memory, memory)
        ),
        machine=machine,
    )


def _with_operations(
    report: BenchmarkReport, run: ArtifactRun, fed: list[np.ndarray]
) -> BenchmarkReport:
    affordable = int(PROFILED_SECONDS * 1e3 / max(report.latency.p50, 1e-3))
    count = max(1, min(PROFILED_RUNS, affordable))
    found, why = run.profile(fed, count)
    rows = tuple(OperationTime(**row) for row in found)
    return replace(report, operations=rows, no_operations=why if why or rows else "none ran")
