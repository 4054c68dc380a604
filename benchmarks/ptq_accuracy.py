"""What each post-training technique gives and costs, by model and grid.

    python benchmarks/ptq_accuracy.py DATA_FOLDER [MODEL ...] [--grids w8,w4] [--table FILE]

Logits of models cut before the softmax, against the float model: drop of top-1 in points with its
paired standard error, agreement in %, SQNR in dB; for the sim, and for its TFLite file on LiteRT
with XNNPACK. "seconds" is the wall time of the techniques that a row names, behind `eq.quantize`,
whose own time is that of "nearest"; that of "equalize + nearest" is `eq.equalize` alone. "passes"
is the same in float forward passes over the calibration samples, timed in front of each row, and
"CPU passes" their processor times, to which it matters less what else the machine does. Rows that
FILE has already are left out, so a run that was cut short goes on where it stopped. Allow hours on
two cores, minutes for DS-CNN.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from data import CASES, Case, load
from table import emit, head

import keras_edgeq as eq
from keras_edgeq.numerics.metrics import agreement, sqnr_db, top1
from keras_edgeq.runtime.artifact import LiteRt

PER_RUN = 50
HEAD = (
    "model",
    "grid",
    "technique",
    "drop",
    "agreement",
    "SQNR",
    "drop, LiteRT",
    "agreement, LiteRT",
    "SQNR, LiteRT",
    "seconds",
    "passes",
    "CPU passes",
)
TECHNIQUES: dict[str, Callable[..., Any]] = {
    "correct_bias": eq.correct_bias,
    "seq_mse": eq.seq_mse,
    "gptq": eq.gptq,
    "adaround": eq.adaround,
    "adaround by block": partial(eq.adaround, unit="block"),
    "adaround to the end": partial(eq.adaround, early_stop=False),
}
PLAIN = ("nearest", "correct_bias", "gptq")
EQUALIZED = "equalize + "
KNOWN = tuple(before + name for before in ("", EQUALIZED) for name in ("nearest", *TECHNIQUES))


@dataclass(frozen=True)
class Grid:
    """What is asked of `eq.quantize`, and the techniques to measure on it."""

    profile: str
    precision: Mapping[str, str] | None
    techniques: tuple[str, ...]


GRIDS = {
    "w8": Grid("litert_int8", None, PLAIN),
    "w8_per_tensor": Grid(
        "litert_int8_per_tensor", None, ("nearest", *(EQUALIZED + x for x in PLAIN))
    ),
    "w4": Grid("litert_int8", {"*": "W4A8"}, (*PLAIN, "seq_mse", "adaround", "adaround by block")),
}


def top1_drop(floats: np.ndarray, ours: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return how many points of top-1 are lost, and the standard error of that.

    Both models see the same samples, so the error is that of the difference per sample: what both
    get right or wrong alike adds nothing to it.

    Args:
        floats: scores `[samples, classes]` of the float model.
        ours: those of the other model.
        labels: true classes `[samples]`.
    """
    lost = (top1(floats) == labels).astype(float) - (top1(ours) == labels)
    return 100.0 * lost.mean(), 100.0 * lost.std(ddof=1) / np.sqrt(len(lost))


class Cost(NamedTuple):
    """Seconds on the wall, and of the processors."""

    wall: float
    cpu: float


class Evaluation:
    """One model: its float outputs, and the sims of the table's rows."""

    def __init__(self, case: Case):
        self.case = case
        self.floats = _flat(case.model.predict(case.test, verbose=0))
        self._made: dict[Any, tuple[Any, Cost]] = {}

    def row(self, grid: str, name: str) -> str:
        """Return the cells of a row behind its name."""
        one_pass = self.float_pass()
        sim, costs = self.build(grid, name)
        wall, cpu = sum(cost.wall for cost in costs), sum(cost.cpu for cost in costs)
        cells = [*self.cells(_flat(sim.predict(self.case.test, verbose=0)))]
        cells += self.cells(self.litert(sim))
        times = (wall, wall / one_pass.wall, cpu / one_pass.cpu)
        return " | ".join([*cells, *(f"{value:.1f}" for value in times)])

    def build(self, grid: str, name: str) -> tuple[Any, list[Cost]]:
        """Return the sim of a row, and what its techniques cost."""
        case, technique = self.case, name.removeprefix(EQUALIZED)
        model, costs = case.model, []
        if technique != name:
            model, cost = self._once(
                "equalize", lambda: eq.equalize(case.model, case.calibration, progress=False)
            )
            costs.append(cost)
        sim, cost = self.quantized(grid, model)
        if technique != "nearest":
            apply = TECHNIQUES[technique]
            sim, cost = _timed(lambda: apply(sim, case.calibration, progress=False))
        if technique != "nearest" or not costs:
            costs.append(cost)
        return sim, costs

    def quantized(self, grid: str, model: Any) -> tuple[Any, Cost]:
        """Return the calibrated sim of a model."""
        asked, data = GRIDS[grid], self.case.calibration
        options: dict[str, Any] = {"precision": asked.precision, "progress": False}
        return self._once(
            (grid, id(model)), lambda: eq.quantize(model, data, asked.profile, **options)
        )

    def _once(self, key: Any, make: Callable[[], Any]) -> tuple[Any, Cost]:
        if key not in self._made:
            self._made[key] = _timed(make)
        return self._made[key]

    def float_pass(self) -> Cost:
        """Return what a float forward pass over the calibration samples costs, warmed up."""
        model, data = self.case.model, self.case.calibration
        return [_timed(lambda: model.predict(data, verbose=0))[1] for _ in range(2)][-1]

    def litert(self, sim: Any) -> np.ndarray:
        """Return the outputs of the exported file on LiteRT with XNNPACK."""
        with tempfile.TemporaryDirectory() as folder:
            report = eq.export(sim, folder, ["tflite"], progress=False)
            content = Path(report.files["tflite"]).read_bytes()
        runtime, test = LiteRt(content, sim, "xnnpack"), self.case.test
        parts = [test[i : i + PER_RUN] for i in range(0, len(test), PER_RUN)]
        return _flat(np.concatenate([runtime.outputs([part])[0] for part in parts]))

    def cells(self, ours: np.ndarray) -> list[str]:
        """Return drop, agreement and SQNR."""
        drop, error = top1_drop(self.floats, ours, self.case.labels)
        return [
            f"{drop:.2f} ± {error:.2f}",
            f"{agreement(self.floats, ours):.2f}",
            f"{sqnr_db(self.floats, ours):.2f}",
        ]


def _timed(call: Callable[[], Any]) -> tuple[Any, Cost]:
    start = time.perf_counter(), time.process_time()
    made = call()
    return made, Cost(time.perf_counter() - start[0], time.process_time() - start[1])


def _flat(outputs: np.ndarray) -> np.ndarray:
    return outputs.reshape(len(outputs), -1)


def measure(name: str, options: argparse.Namespace, text: str) -> None:
    """Add the rows of a model that the table lacks."""
    rows = [
        (grid, technique)
        for grid in options.grids
        for technique in options.techniques or GRIDS[grid].techniques
        if technique in KNOWN and f"| {name} | {grid} | {technique} |" not in text
    ]
    if not rows:
        return
    evaluation = Evaluation(load(options.folder, name))
    for grid, technique in rows:
        cells = evaluation.row(grid, technique)
        emit(options.table, f"| {name} | {grid} | {technique} | {cells} |")


def main() -> None:
    """Write the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DATA_FOLDER")
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(CASES))
    parser.add_argument("--grids", type=names, default=tuple(GRIDS), help=", ".join(GRIDS))
    parser.add_argument(
        "--techniques", type=names, default=(), help=f"instead of a grid's own: {', '.join(KNOWN)}"
    )
    parser.add_argument("--table", type=Path, help="file to write, and to go on with")
    options = parser.parse_args()
    choices = {"models": CASES, "grids": GRIDS, "techniques": KNOWN}
    for what, known in choices.items():
        if unknown := set(getattr(options, what)) - set(known):
            parser.error(f"no such {what}: {sorted(unknown)}; there are {', '.join(known)}")
    table = options.table
    text = table.read_text() if table and table.exists() else ""
    if not text:
        emit(table, head(HEAD))
    for name in options.models or CASES:
        measure(name, options, text)


def names(text: str) -> tuple[str, ...]:
    """Split at commas."""
    return tuple(text.split(","))


if __name__ == "__main__":
    main()
