"""`AutoQuantResult`: the sim, what was tried for it, and what each gave."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from keras_edgeq.analysis.save_report import save_report
from keras_edgeq.autoquant.judge import with_error
from keras_edgeq.autoquant.page import result_page, score_bars
from keras_edgeq.diagnose.diagnosis import Diagnosis
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.table import aligned, brief, html

REUSED = "read from the folder"


@dataclass(frozen=True)
class StageResult:
    """One stage, and what it gave.

    Args:
        stage: its name.
        score: on the samples to choose by; NaN if it was not done.
        error: standard error of the score; NaN where only the user's function knows its samples.
        sqnr_db: SQNR of the outputs there, in dB.
        bytes: of the weights, packed.
        seconds: that it took.
        passes: the same in forward passes of the float model over the data, by the clock.
        kept: whether the sim was better than all before.
        met: whether it reached the target.
        note: why it was not done, failed, or what was read from the folder.
    """

    stage: str
    score: float = float("nan")
    error: float = float("nan")
    sqnr_db: float = float("nan")
    bytes: int = 0
    seconds: float = 0.0
    passes: float = 0.0
    kept: bool = False
    met: bool = False
    note: str = ""

    def cells(self) -> tuple[str, ...]:
        """Return a row for people."""
        if self.score != self.score:
            return (self.stage, "", "", "", "", "", self.note)
        mark = "met" if self.met else "kept" if self.kept else "not better"
        return (
            self.stage,
            with_error(self.score, self.error),
            f"{self.sqnr_db:.1f}",
            f"{self.bytes:,}",
            f"{self.seconds:.1f}",
            f"{self.passes:.1f}",
            f"{mark}, {self.note}" if self.note else mark,
        )

    def __repr__(self) -> str:
        return brief(f"StageResult {self.stage!r}", *self.cells()[1:2], self.cells()[-1])


@dataclass(frozen=True, eq=False)
class AutoQuantResult:
    """The cheapest sim found that loses no more than it may, or the best.

    Args:
        sim: the sim.
        met: whether it reached the target, on the samples to choose by.
        history: the stages in their order.
        measure: name of the score.
        least: what had to be reached.
        float_score: of the float model, on the samples to choose by.
        score: of the sim on samples that no stage saw; see `seen`.
        error: standard error of it.
        float_test_score: of the float model on those.
        seen: whether the score at the end is of samples that stages were chosen by, because the
            user's function has only those.
        split: how many samples were fitted to, chosen by and judged by.
        advice: what would help next, where the target was not met.
        diagnosis: of the sim.
        seconds: wall time.

    Example:
        >>> result = eq.auto_quantize(model, data, max_drop=10.0, progress=False)
        >>> result.met, result.history[0].stage
        (True, 'calibrate')
        >>> result.save("auto.csv")
    """

    sim: QuantSim
    met: bool
    history: tuple[StageResult, ...]
    measure: str
    least: float
    float_score: float
    score: float
    error: float
    float_test_score: float
    seen: bool
    split: str
    advice: tuple[str, ...]
    diagnosis: Diagnosis
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, the diagnosis among them."""
        plain = {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if one.name not in ("sim", "history", "diagnosis", "advice")
        }
        history = [asdict(one) for one in self.history]
        more = {"history": history, "advice": list(self.advice)}
        return {"schema": 1, **plain, **more, "diagnosis": self.diagnosis.to_json()}

    def save(self, path: str | Path) -> None:
        """Write the stages as a page, a picture, values or a table.

        Args:
            path: of the file; its suffix says which: `.html`, `.png`, `.json`, or `.csv` with a row
                per stage. The doctor's own page is `result.diagnosis.save("diagnosis.html")`.

        Raises:
            ExportError: another suffix, or the file cannot be written.
            EdgeqError: matplotlib is not installed, and a picture is asked for.
        """
        names = [one.name for one in fields(StageResult)]
        rows = ([getattr(one, name) for name in names] for one in self.history)
        save_report(
            path,
            self.to_json,
            lambda: score_bars(self),
            lambda: result_page(self),
            lambda: [names, *rows],
        )

    def table(self) -> list[tuple[str, ...]]:
        """Return a row per stage for people, titles first."""
        head = ("stage", self.measure, "SQNR, dB", "bytes", "seconds", "float passes", "")
        return [head, *(one.cells() for one in self.history)]

    def notes(self) -> list[str]:
        """Return sentences about the target, the end and the split."""
        end = with_error(self.score, self.error)
        where = "the samples that stages were chosen by" if self.seen else "samples no stage saw"
        lines = [
            f"Target {'met' if self.met else 'not met'}: {self.measure} of at least "
            f"{self.least:.5g} (float {self.float_score:.5g}).",
            f"At the end {end} on {where} (float {self.float_test_score:.5g}).",
            f"{self.split}.",
            *self.diagnosis.file_lines(),
        ]
        return [*lines, *(f"To try: {one}" for one in self.advice)]

    def __repr__(self) -> str:
        met = "met" if self.met else "not met"
        score = f"{self.measure} {self.score:.5g}"
        return brief("AutoQuantResult", met, score, f"{self.seconds:.0f} s", self.sim.name)

    def __str__(self) -> str:
        return "\n".join([aligned(self.table()), *self.notes()])

    def _repr_html_(self) -> str:
        return html("AutoQuant", self.table(), "\n".join(self.notes()))
