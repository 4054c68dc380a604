"""`BenchmarkReport`: what an artifact costs on its runtime, on this machine."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

from keras_edgeq.analysis.save_report import save_values
from keras_edgeq.evaluate.latency import Latency, Machine
from keras_edgeq.table import aligned, brief, counted, html

MOST_ROWS = 20


@dataclass(frozen=True)
class OperationTime:
    """How long one operation takes.

    Args:
        name: of the operation, or of its result; XNNPACK gives its own operations no names, so it
            is the type and a number.
        type: of the operation, in the runtime's words.
        kernel: whose kernel runs it: an execution provider of ONNX Runtime, `"XNNPACK"`, or
            `"builtin"` for LiteRT's own.
        time_us: in one run, in microseconds, the mean over the profiled runs. LiteRT counts whole
            microseconds, of which short operations have none.
        calls: how often one run calls it; a loop calls its body often.
    """

    name: str
    type: str
    kernel: str
    time_us: float
    calls: float = 1.0


@dataclass(frozen=True)
class BenchmarkReport:
    """What an artifact costs on its runtime, on this machine.

    Args:
        artifact: file name.
        runtime: what ran it, with its kernels: `"LiteRT xnnpack"`, `"ONNX Runtime"`,
            `"TensorFlow"`.
        runtime_version: of it.
        threads: CPU threads.
        warmup: runs in front of those that count.
        runs: runs that count.
        input_shapes: input -> shape, samples first.
        on_data: False if the inputs were random.
        size_bytes: on disk.
        load_ms: until it could run: reading, optimizing, making its tensors, packing weights.
        first_inference_ms: the first run.
        latency: of the runs that count.
        latencies_ms: of each of them.
        load_memory_bytes: the most RAM that the file took while it was loaded, itself included.
        inference_memory_bytes: the same while it ran.
        process_memory_bytes: the most RAM of the whole process, with Python and the runtime.
        operations: by the runtime's own profiler, in runs of their own; in the order of execution.
        no_operations: why there are none.
        machine: its processors, and its load before the runs.

    Example:
        >>> report = eq.export(sim, "out", ["tflite"], verify=False, progress=False)
        >>> found = eq.benchmark(report.files["tflite"], runs=20, progress=False)
        >>> found.latency.min <= found.latency.p50 <= found.latency.p99
        True
        >>> found.save("benchmark.json")
    """

    artifact: str
    runtime: str
    runtime_version: str
    threads: int
    warmup: int
    runs: int
    input_shapes: dict[str, tuple[int, ...]]
    on_data: bool
    size_bytes: int
    load_ms: float
    first_inference_ms: float
    latency: Latency
    latencies_ms: tuple[float, ...]
    load_memory_bytes: int
    inference_memory_bytes: int
    process_memory_bytes: int
    machine: Machine
    operations: tuple[OperationTime, ...] = ()
    no_operations: str = ""

    @property
    def kernels(self) -> dict[str, tuple[int, float]]:
        """Whose kernels ran: name -> operations, and share of their time, 0 to 1."""
        counts = Counter(one.kernel for one in self.operations)
        total = sum(one.time_us for one in self.operations) or 1.0
        return {
            kernel: (
                count,
                sum(one.time_us for one in self.operations if one.kernel == kernel) / total,
            )
            for kernel, count in counts.items()
        }

    def slowest(self, count: int = 10) -> tuple[OperationTime, ...]:
        """Return the operations that take the most time, the slowest first."""
        return tuple(sorted(self.operations, key=lambda one: -one.time_us)[:count])

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        values = asdict(self)
        values["input_shapes"] = {name: list(s) for name, s in self.input_shapes.items()}
        values["latencies_ms"] = list(self.latencies_ms)
        values["operations"] = [asdict(one) for one in self.operations]
        values["kernels"] = {
            name: {"operations": count, "time_share": share}
            for name, (count, share) in self.kernels.items()
        }
        return {"schema": 1, **values}

    def save(self, path: str | Path) -> None:
        """Write the values as JSON, or the operations as CSV.

        Args:
            path: of the file; its suffix says which: `.json` or `.csv`.

        Raises:
            ExportError: another suffix, or the file cannot be written.
        """
        rows = [OperationTime.__dataclass_fields__, *map(astuple, self.operations)]
        save_values(path, self.to_json, lambda: rows)

    def table(self) -> list[tuple[str, ...]]:
        """Return a row per operation for people, the slowest first, titles first."""
        total = sum(one.time_us for one in self.operations) or 1.0
        rows = [
            (
                one.name,
                one.type,
                one.kernel,
                f"{one.time_us:.1f}",
                f"{100.0 * one.time_us / total:.1f} %",
                f"{one.calls:g}",
            )
            for one in self.slowest(len(self.operations))
        ]
        return [("operation", "type", "kernel", "µs", "share", "calls"), *rows]

    def facts(self) -> list[tuple[str, str]]:
        """Return what is known of the whole, each with its title."""
        shapes = ", ".join(f"{n} {'x'.join(map(str, s))}" for n, s in self.input_shapes.items())
        kernels = ", ".join(
            f"{name}: {counted(count, 'operation')}, {100.0 * share:.0f} % of the time"
            for name, (count, share) in self.kernels.items()
        )
        return [
            (
                "runtime",
                f"{self.runtime} {self.runtime_version}, {counted(self.threads, 'thread')}",
            ),
            ("machine", str(self.machine)),
            ("inputs", f"{shapes}, {'of the data' if self.on_data else 'random'}"),
            ("latency", f"{self.latency} of {counted(self.runs, 'run')}"),
            ("first run", f"{self.first_inference_ms:.3g} ms, after {self.load_ms:.3g} ms to load"),
            (
                "peak memory",
                f"{_mega(self.load_memory_bytes)} to load, {_mega(self.inference_memory_bytes)} "
                f"to run; {_mega(self.process_memory_bytes)} the process",
            ),
            ("file", f"{self.size_bytes:,} bytes"),
            ("kernels", kernels or f"not known: {self.no_operations}"),
        ]

    def __repr__(self) -> str:
        return brief("BenchmarkReport", self.artifact, self.runtime, str(self.latency))

    def __str__(self) -> str:
        lines = [f"{self.artifact}:", aligned([(f"  {k}", v) for k, v in self.facts()])]
        if self.operations:
            lines += ["", aligned(self.table()[: 1 + MOST_ROWS])]
            left = len(self.operations) - MOST_ROWS
            lines += [f"and {counted(left, 'faster operation')}"] if left > 0 else []
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        facts = "\n".join(f"{name}: {value}" for name, value in self.facts())
        return html(f"{self.artifact} on {self.runtime}", self.table(), facts)


def _mega(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
