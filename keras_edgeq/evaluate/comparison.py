"""`Comparison`: the float model, its sim and artifacts beside each other."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from keras_edgeq.analysis.save_report import save_report
from keras_edgeq.evaluate.comparison_page import comparison_bars, comparison_page
from keras_edgeq.evaluate.latency import Latency, Machine
from keras_edgeq.table import aligned, brief, counted, html


@dataclass(frozen=True)
class Candidate:
    """One row of a comparison.

    Args:
        name: `"float model"`, `"sim"`, or the path of an artifact as it was given.
        runtime: what ran it: `"TensorFlow"` for models, else the runtime with its kernels.
        metric: its value; None where none was asked for.
        agreement: how often it has the same top-1 as the float model, in percent; None where the
            output is not `(samples, classes)`.
        sqnr_db: of all outputs to the float model's, in dB.
        size_bytes: on disk; None for models.
        latency: of one sample; None for models. A file of a fixed batch runs that, and the time is
            divided by it.
        latency_ratio: its median to that of the float file of the same runtime; None if none was
            given.
        non_finite: samples with NaN or infinity in their predictions.
        failed: why its runtime could not go on, and nothing of it was measured; `""` if it could.
    """

    name: str
    runtime: str
    metric: float | None = None
    agreement: float | None = None
    sqnr_db: float = float("nan")
    size_bytes: int | None = None
    latency: Latency | None = None
    latency_ratio: float | None = None
    non_finite: int = 0
    failed: str = ""

    def __repr__(self) -> str:
        size = "" if self.size_bytes is None else f"{self.size_bytes:,} bytes"
        latency = "" if self.latency is None else f"{self.latency.p50:.3g} ms"
        close = "" if self.sqnr_db != self.sqnr_db else f"{self.sqnr_db:.1f} dB"
        facts = (self.runtime, close, size, latency, self.failed)
        return brief(f"Candidate {Path(self.name).name!r}", *facts)


@dataclass(frozen=True)
class Comparison:
    """The float model, its sim and artifacts beside each other.

    Args:
        candidates: the float model, the sim, and the artifacts as they were given.
        metric: its name, `""` if none was asked for.
        samples: how many were predicted.
        runs: timed runs of each artifact, interleaved with those of the others.
        threads: CPU threads of each runtime.
        machine: its processors, and its load before the timed runs.

    Example:
        >>> report = eq.export(sim, "out", ["tflite"], verify=False, progress=False)
        >>> found = eq.compare(
        ...     model, sim, report.files["tflite"], data=data, runs=10, progress=False
        ... )
        >>> [one.runtime for one in found.candidates]
        ['TensorFlow', 'TensorFlow', 'LiteRT xnnpack']
        >>> found.save("comparison.csv")
    """

    candidates: tuple[Candidate, ...]
    metric: str
    samples: int
    runs: int
    threads: int
    machine: Machine

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; numbers that JSON does not have are null when they are saved."""
        return {"schema": 1, **asdict(self), "candidates": [asdict(c) for c in self.candidates]}

    def save(self, path: str | Path) -> None:
        """Write the table and a picture as a page, the picture alone, or the values.

        Args:
            path: of the file; its suffix says how: `.html`, `.png`, `.json`, or `.csv` with a row
                per candidate.

        Raises:
            ExportError: another suffix, or the file cannot be written.
            EdgeqError: matplotlib is not installed, and a picture is asked for.
        """
        names = [field.name for field in fields(Candidate)]
        names[names.index("latency")] = "latency_p50_ms"
        rows = [
            [part.p50 if isinstance(part, Latency) else part for part in _cells(one)]
            for one in self.candidates
        ]
        save_report(
            path,
            self.to_json,
            lambda: comparison_bars(self),
            lambda: comparison_page(self),
            lambda: [names, *rows],
        )

    def table(self) -> list[tuple[str, ...]]:
        """Return a row per candidate for people, titles first."""
        head = (
            "candidate", "runtime", self.metric or "metric", "agreement", "SQNR, dB", "bytes",
            "ms", "to float",
        )  # fmt: skip
        rows = [
            (
                one.name,
                one.runtime,
                _text(one.metric, ".6g"),
                _text(one.agreement, ".2f", " %"),
                _text(one.sqnr_db, ".1f"),
                _text(one.size_bytes, ","),
                _text(one.latency and one.latency.p50, ".3g"),
                _text(one.latency_ratio, ".2f", " x"),
            )
            for one in self.candidates
        ]
        empty = {i for i, column in enumerate(zip(*rows, strict=True)) if set(column) == {"-"}}
        return [tuple(c for i, c in enumerate(row) if i not in empty) for row in (head, *rows)]

    def note(self) -> str:
        """Return what was measured on, and what failed, for people."""
        broken = [one for one in self.candidates if one.non_finite]
        lines = [f"{one.name}: NaN or infinity in {one.non_finite:,}" for one in broken]
        lines += [f"{one.name}: {one.failed}" for one in self.candidates if one.failed]
        timed = f"; medians of {counted(self.runs, 'run')} of one sample in turn"
        has_times = any(one.latency for one in self.candidates)
        threads = f", {counted(self.threads, 'thread')}, {self.machine}"
        about = f"{counted(self.samples, 'sample')}{timed + threads if has_times else ''}"
        return "\n".join([about, *lines])

    def __repr__(self) -> str:
        names = ", ".join(Path(one.name).name for one in self.candidates)
        return brief("Comparison", counted(self.samples, "sample"), names)

    def __str__(self) -> str:
        return f"{aligned(self.table())}\n{self.note()}"

    def _repr_html_(self) -> str:
        return html("Comparison", self.table(), self.note())


def _cells(candidate: Candidate) -> list[Any]:
    return [getattr(candidate, field.name) for field in fields(Candidate)]


def _text(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None or value != value else f"{value:{form}}{unit}"
