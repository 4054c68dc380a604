"""`ExportReport`: what was written, what stayed float and why, and how well it was verified."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_edgeq.runtime.run_report import RunReport
from keras_edgeq.spec.fidelity import Fidelity, OutputFidelity
from keras_edgeq.table import aligned, brief, html


@dataclass(frozen=True)
class ExportReport:
    """The result of an export.

    Args:
        profile: name of the target profile.
        files: artifact -> path.
        sizes: artifact -> bytes.
        sha256: artifact -> its digest; for a folder, that of the lines `digest  name` of all files.
        failed: format that could not be written -> why.
        integer_layers: layers that compute in integers.
        float_layers: layer -> why it stays float.
        float_ops: result in the TFLite file -> op that stayed float there, and why.
        constant_bytes: bytes of weights, biases and other constants in the TFLite file, by the type
            that holds them.
        floored: layer -> channels whose weight scale was raised for the int32 bias.
        runs: the verification, one entry per artifact and runtime.
        fidelity: the sim compared with its float model, on the same data; without verification, as
            it was when its grids were derived.
        float_bytes: bytes of the float model's weights.
        weight_bytes: bytes of the sim's weights, packed on their grids.
        warnings: what was lost, and what to do about it.

    Example:
        >>> report = eq.export(sim, "out", ["tflite"], progress=False)
        >>> report.float_layers, [run.agrees for run in report.runs]
        ({}, [True, True])
    """

    profile: str
    files: Mapping[str, Path]
    sizes: Mapping[str, int]
    integer_layers: tuple[str, ...]
    float_layers: Mapping[str, str]
    float_ops: Mapping[str, str] = field(default_factory=dict)
    constant_bytes: Mapping[str, int] = field(default_factory=dict)
    floored: Mapping[str, int] = field(default_factory=dict)
    runs: tuple[RunReport, ...] = ()
    fidelity: Fidelity | None = None
    float_bytes: int = 0
    weight_bytes: int = 0
    sha256: Mapping[str, str] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "schema": 1,
            "profile": self.profile,
            "files": {name: path.name for name, path in self.files.items()},
            "sizes": dict(self.sizes),
            "sha256": dict(self.sha256),
            "failed": dict(self.failed),
            "integer_layers": list(self.integer_layers),
            "float_layers": dict(self.float_layers),
            "float_ops": dict(self.float_ops),
            "constant_bytes": dict(self.constant_bytes),
            "floored": dict(self.floored),
            "runs": [run.to_json() for run in self.runs],
            "fidelity": None if self.fidelity is None else self.fidelity.to_json(),
            "float_bytes": self.float_bytes,
            "weight_bytes": self.weight_bytes,
            "warnings": list(self.warnings),
        }

    def rows(self) -> list[tuple[str, ...]]:
        """Return a table of float model, sim and files: SQNR and top-1 against float, bytes."""
        head = ("", "SQNR to float", "same top-1 as float", "same as sim", "bytes")
        rows = [head, ("float model", "", "", "", f"{self.float_bytes:,} of weights")]
        if self.fidelity is not None:
            size = f"{self.weight_bytes:,} of weights"
            rows += _beside_float("sim", self.fidelity.outputs, "", size)
        sizes = {path.name: self.sizes[kind] for kind, path in self.files.items()}
        for run in self.runs:
            share = "" if run.identical is None else f"{100 * run.identical:.2f} %"
            size = f"{sizes[run.artifact]:,}" if run.artifact in sizes else ""
            if run.failed is not None:
                rows.append((run.runtime, "failed", "", "", size))
            rows += _beside_float(run.runtime, run.float_outputs, share, size)
        return rows

    def __repr__(self) -> str:
        total = len(self.integer_layers) + len(self.float_layers)
        wrong = [run.artifact for run in self.runs if not run.agrees]
        outputs = () if self.fidelity is None else self.fidelity.outputs
        return brief(
            f"ExportReport for {self.profile}",
            " ".join(self.files),
            f"{len(self.integer_layers)} of {total} layers in integers",
            f"sim {min(one.sqnr_db for one in outputs):.1f} dB to float" if outputs else "",
            "" if not self.runs else f"wrong: {' '.join(wrong)}" if wrong else "all files agree",
        )

    def _repr_html_(self) -> str:
        files = [("file", "bytes")]
        files += [(str(path), f"{self.sizes[kind]:,}") for kind, path in self.files.items()]
        notes = [f"float: {name}: {why}" for name, why in self.float_layers.items()]
        notes += [f"float in TFLite: {name}: {why}" for name, why in self.float_ops.items()]
        notes += [str(run) for run in self.runs]
        notes += [f"WARNING: {message}" for message in self.warnings]
        return html(repr(self).strip("<>"), self.rows(), "\n".join(notes)) + html("", files)

    def __str__(self) -> str:
        lines = [f"Exported for {self.profile}:"]
        width = max((len(str(path)) for path in self.files.values()), default=0)
        lines += [
            f"  {path!s:<{width}}  {self.sizes[n]:>12,} bytes" for n, path in self.files.items()
        ]
        lines += [f"  FAILED {kind}: {why}" for kind, why in self.failed.items()]
        total = len(self.integer_layers) + len(self.float_layers)
        lines.append(f"{len(self.integer_layers)} of {total} layers compute in integers.")
        lines += [f"  float: {name}: {why}" for name, why in self.float_layers.items()]
        lines += [f"  float in TFLite: {name}: {why}" for name, why in self.float_ops.items()]
        if self.constant_bytes:
            parts = [f"{kind} {size:,}" for kind, size in self.constant_bytes.items()]
            lines.append(f"  bytes of constants in TFLite: {', '.join(parts)}")
        if self.floored:
            channels = sum(self.floored.values())
            lines.append(
                f"{channels} dead channels got a coarser weight scale so that their bias fits "
                f"int32: {', '.join(self.floored)}"
            )
        if self.fidelity is not None:
            what = "samples" if self.fidelity.on_data else "samples of random input"
            lines += [f"On {self.fidelity.samples} {what}:", aligned(self.rows())]
            worst = ", ".join(
                f"{one.tensor} {one.own_db:.1f}"
                for one in self.fidelity.worst()
                if one.own_db < 1e3
            )
            lines += [f"Largest errors of their own, in dB: {worst}"] if worst else []
        lines += [str(run) for run in self.runs]
        lines += [f"WARNING: {message}" for message in self.warnings]
        return "\n".join(lines)


def _beside_float(
    label: str, outputs: Sequence[OutputFidelity], share: str, size: str
) -> list[tuple[str, ...]]:
    """Return a row per output; with several, each is named."""
    rows = []
    for number, one in enumerate(outputs):
        name = label if len(outputs) == 1 else f"{label}: {one.output}"
        same = "" if one.agreement is None else f"{one.agreement:.2f} %"
        rest = (share, size) if not number else ("", "")
        rows.append((name, f"{one.sqnr_db:.1f} dB", same, *rest))
    return rows
