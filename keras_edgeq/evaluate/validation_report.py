"""`ValidationReport`: a metric of an artifact on its runtime."""

from __future__ import annotations

from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

from keras_edgeq.analysis.save_report import save_values
from keras_edgeq.table import aligned, brief, counted, html


@dataclass(frozen=True)
class ValidationReport:
    """A metric of an artifact on its runtime.

    Args:
        artifact: file name.
        runtime: what ran it, with its kernels.
        runtime_version: of it.
        metric: its name.
        value: of the metric.
        output: of the artifact, whose predictions were measured.
        samples: how many.
        non_finite: samples with NaN or infinity in their predictions.
        seconds: wall time.

    Example:
        >>> report = eq.export(sim, "out", ["tflite"], verify=False, progress=False)
        >>> found = eq.validate(report.files["tflite"], (x, y), "mse", progress=False)
        >>> found.samples == len(x), found.value >= 0.0
        (True, True)
    """

    artifact: str
    runtime: str
    runtime_version: str
    metric: str
    value: float
    output: str
    samples: int
    non_finite: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; those of a metric that is no number are null when they are saved."""
        return {"schema": 1, **asdict(self)}

    def save(self, path: str | Path) -> None:
        """Write the values.

        Args:
            path: of the file; its suffix says how: `.json` or `.csv`.

        Raises:
            ExportError: another suffix, or the file cannot be written.
        """
        save_values(path, self.to_json, lambda: [asdict(self), astuple(self)])

    def table(self) -> list[tuple[str, str]]:
        """Return each fact with its title, for people."""
        rows = [
            (self.metric, f"{self.value:.6g}"),
            ("output", self.output),
            ("samples", f"{self.samples:,}"),
            ("runtime", f"{self.runtime} {self.runtime_version}"),
            ("seconds", f"{self.seconds:.1f}"),
        ]
        if self.non_finite:
            rows.insert(1, ("NaN or infinite", counted(self.non_finite, "sample")))
        return rows

    def __repr__(self) -> str:
        return brief("ValidationReport", self.artifact, f"{self.metric} {self.value:.6g}")

    def __str__(self) -> str:
        return f"{self.artifact}:\n" + aligned([(f"  {name}", v) for name, v in self.table()])

    def _repr_html_(self) -> str:
        return html(self.artifact, [("what", "value"), *self.table()])
