"""`Diagnosis`: where a sim loses accuracy, why, and what was tried against it."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_edgeq.analysis.save_report import save_as, write_json
from keras_edgeq.diagnose.finding import Finding
from keras_edgeq.diagnose.overlay import OVERLAY, overlay_of
from keras_edgeq.diagnose.page.report import report_page
from keras_edgeq.diagnose.rows import FloatLayer, GraphLayer, TensorDiagnosis, WeightDiagnosis
from keras_edgeq.errors import ExportError
from keras_edgeq.evaluate.comparison import Candidate
from keras_edgeq.runtime.run_report import RunReport
from keras_edgeq.spec.fidelity import OutputFidelity, finite_db
from keras_edgeq.table import aligned, brief, counted, html

if TYPE_CHECKING:
    from keras_edgeq.analysis.sensitivity_report import SensitivityReport
    from keras_edgeq.mixed_precision.search_result import SearchResult

SCHEMA = 1
# Columns of their own, or none.
NOT_IN_CSV = ("noise", "switch", "histogram", "histogram_ends")


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """Where a sim loses accuracy, why, and what was tried against it.

    Args:
        model: name of the sim.
        profile: name of its target.
        samples: number of samples that errors were measured on.
        outputs: the sim beside its float model, output by output, on the judged samples.
        score: the user's score of the sim; None without.
        float_score: of the float model, on its own layers.
        weight_bytes: bytes of the sim's weights, packed.
        float_bytes: bytes of the float model's weights.
        macs: multiply-accumulates of the model for one sample; 0 if a size is not known.
        tensors: the quantized tensors in graph order.
        weights: the layers with quantized weights in graph order.
        floats: layers that compute in float.
        graph: all layers in graph order.
        findings: what costs accuracy, the costliest first.
        runs: the artifacts that were run, if any.
        files: the float model's file and the sim's, if any: bytes, latency, and the sim's score.
        not_measured: quantizers whose switch was not measured, to keep within the passes.
        passes: work done without remedies, in forward passes of the float model over the data.
        seconds: wall time without remedies.
        remedy_seconds: wall time of remedies.

    Example:
        >>> found = eq.diagnose(sim, data, remedies=0, verify=False, progress=False)
        >>> [round(one.own_db) > 20 for one in found.tensors[:1]]
        [True]
    """

    model: str
    profile: str
    samples: int
    outputs: tuple[OutputFidelity, ...]
    score: float | None
    float_score: float | None
    weight_bytes: int
    float_bytes: int
    macs: int
    tensors: tuple[TensorDiagnosis, ...]
    weights: tuple[WeightDiagnosis, ...]
    floats: tuple[FloatLayer, ...]
    graph: tuple[GraphLayer, ...]
    findings: tuple[Finding, ...]
    runs: tuple[RunReport, ...]
    files: tuple[Candidate, ...]
    not_measured: tuple[str, ...]
    passes: float
    seconds: float
    remedy_seconds: float

    @property
    def sqnr_db(self) -> float:
        """SQNR of the sim's outputs, the mean over the outputs."""
        return float(np.mean([one.sqnr_db for one in self.outputs]))

    def to_json(self) -> dict[str, Any]:
        """Return JSON values.

        dB are None where nothing differs or nothing was measured, -1e9 where there is no signal.
        """
        made: dict[str, Any] = {"schema": SCHEMA}
        for name in ("model", "profile", "samples", "score", "float_score", "weight_bytes"):
            made[name] = getattr(self, name)
        for name in ("float_bytes", "macs", "passes", "seconds", "remedy_seconds"):
            made[name] = getattr(self, name)
        made["not_measured"] = list(self.not_measured)
        for name in ("outputs", "tensors", "floats", "graph", "files"):
            made[name] = [asdict(one) for one in getattr(self, name)]
        made["weights"] = [_weights_json(one) for one in self.weights]
        made["findings"] = [one.to_json() for one in self.findings]
        made["runs"] = [one.to_json() for one in self.runs]
        return finite_db(made)

    def save(
        self,
        path: str | Path,
        sensitivity: SensitivityReport | None = None,
        search: SearchResult | None = None,
    ) -> None:
        """Write a page with pictures, the tensors as a table, all values, or an overlay.

        Args:
            path: of the file; its suffix says which: `.html` (one file that fetches nothing),
                `.csv` (a row per tensor), `.json`, or `.overlay.json`: SQNR of each tensor as
                custom node data that Model Explorer colours the exported TFLite file with.
            sensitivity: of the same model, to be a section of the page.
            search: likewise, with its Pareto curve and its sensitivities.

        Raises:
            ExportError: another suffix, the file cannot be written, or sections are given for a
                file that is no page.
            EdgeqError: plotly is not installed, and the file is a page.
        """
        if Path(path).suffix != ".html" and (sensitivity or search) is not None:
            raise ExportError(
                f"Only a page has sections for a sensitivity or a search: save {Path(path).name!r} "
                "as .html, or save them in files of their own."
            )
        overlay = Path(path).name.endswith(OVERLAY)
        save_as(
            path,
            {
                ".csv": lambda new: new.write_text(self.to_csv(), encoding="utf-8"),
                ".html": lambda new: new.write_text(
                    report_page(self, sensitivity, search), encoding="utf-8"
                ),
                ".json": lambda new: write_json(
                    new, overlay_of(self.tensors) if overlay else self.to_json()
                ),
            },
        )

    def to_csv(self) -> str:
        """Return a row per quantized tensor, titles first."""
        text = io.StringIO()
        names = [one.name for one in fields(TensorDiagnosis) if one.name not in NOT_IN_CSV]
        causes = list(dict.fromkeys(cause for one in self.tensors for cause in one.noise))
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*names, "alone_db", "without_db", "share", *causes])
        for one in self.tensors:
            switch = (one.switch.alone_db, one.switch.without_db, one.switch.share)
            cells = [_cell(getattr(one, name)) for name in names]
            writer.writerow([*cells, *switch, *(one.noise.get(cause, 0.0) for cause in causes)])
        return text.getvalue()

    def table(self) -> list[tuple[str, ...]]:
        """Return a row per finding for people, titles first."""
        head = ("", "layer", "cause", "noise", "remedy", "gain", "bytes")
        rows = [
            (str(number), *finding.cells()) for number, finding in enumerate(self.findings, start=1)
        ]
        return [head, *rows]

    def _title(self) -> str:
        outputs = ", ".join(
            f"{one.output} {one.sqnr_db:.1f} dB"
            + ("" if one.agreement is None else f" ({one.agreement:.1f} % same)")
            for one in self.outputs
        )
        score = "" if self.score is None else f", score {self.score:.5g}"
        if self.score is not None and self.float_score is not None:
            score += f" (float {self.float_score:.5g})"
        return f"{self.model} on {self.profile}: {outputs}{score}, {self.samples} samples"

    def file_lines(self) -> list[str]:
        """Return a line about each file: bytes, latency, the score."""
        return [
            f"{one.name} on {one.runtime}: {one.failed or _file_text(one)}" for one in self.files
        ]

    def __repr__(self) -> str:
        return brief("Diagnosis", counted(len(self.findings), "finding"), self._title())

    def __str__(self) -> str:
        told = [self._title(), *self.file_lines()]
        if self.findings:
            told += [aligned(self.table()), ""]
            told += [f"{n}. {one}" for n, one in enumerate(self.findings, start=1)]
        else:
            told.append(
                "Nothing stands out: the noise is that of rounding, spread over all layers."
            )
        return "\n".join(told)

    def _repr_html_(self) -> str:
        return html(
            "\n".join([self._title(), *self.file_lines()]),
            self.table(),
            "\n".join(map(str, self.findings)),
        )


def _file_text(one: Candidate) -> str:
    facts = [] if one.size_bytes is None else [f"{one.size_bytes:,} bytes"]
    if one.latency is not None:
        facts.append(f"{one.latency.p50:.3g} ms")
    if one.latency_ratio is not None and one.latency_ratio != 1.0:
        facts.append(f"{one.latency_ratio:.2f} of the float file's time")
    if one.metric is not None:
        facts.append(f"score {one.metric:.5g}")
    return ", ".join(facts)


def _weights_json(one: WeightDiagnosis) -> dict[str, Any]:
    made = {item.name: getattr(one, item.name) for item in fields(one)}
    for name in ("low", "high", "equalized_low", "equalized_high"):
        made[name] = None if made[name] is None else made[name].tolist()
    return {**made, "noise": dict(one.noise), "switch": asdict(one.switch)}


def _cell(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, tuple) else value
