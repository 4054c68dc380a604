"""`SearchResult`: the model a search found, and the Pareto curve it lies on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from keras_edgeq.analysis.save_report import save_report
from keras_edgeq.analysis.sensitivity_report import SensitivityReport
from keras_edgeq.errors import SearchError
from keras_edgeq.measure.groups import sim_of_choice
from keras_edgeq.measure.measures import MEASURES
from keras_edgeq.mixed_precision.cost_scale import scale_of
from keras_edgeq.mixed_precision.figures import search_figure
from keras_edgeq.mixed_precision.search_page import search_page
from keras_edgeq.plan.quant_plan import QuantPlan
from keras_edgeq.ptq.gptq import gptq
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.table import aligned, brief, html

MOST_ROWS = 12


@dataclass(frozen=True)
class Point:
    """A choice of precisions, what it costs and what it loses.

    Args:
        choice: group -> name of a precision.
        weight_bytes: bytes of all weights as the artifact stores them.
        size: the same as a share of the bytes of 8-bit weights.
        bitops: sum over the layers of multiply-accumulates times bits of weights times bits of
            activations.
        activation_memory: largest sum of bytes of activations that live at one time, of one sample.
        predicted: sum of the losses of single layers, in the report's measure.
        loss: measured loss, None if only the prediction is known.
        score: the user's score, None without one.
    """

    choice: Mapping[str, str]
    weight_bytes: int
    size: float
    bitops: float
    activation_memory: int
    predicted: float
    loss: float | None = None
    score: float | None = None

    @property
    def best_known(self) -> float:
        """The measured loss, or the predicted one."""
        return self.predicted if self.loss is None else self.loss

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, named as the arguments."""
        return {
            "choice": dict(self.choice),
            "weight_bytes": int(self.weight_bytes),
            "size": float(self.size),
            "bitops": float(self.bitops),
            "activation_memory": int(self.activation_memory),
            "predicted": float(self.predicted),
            "loss": None if self.loss is None else float(self.loss),
            "score": None if self.score is None else float(self.score),
        }


@dataclass(frozen=True, eq=False)
class SearchResult:
    """What `search_mixed_precision` found.

    Args:
        model: the sim of the best choice.
        best: that choice, its costs and its loss.
        points: the Pareto curve, the smallest first; ask for one with `model_at`.
        sensitivity: what the search began with.
        cost: the cost that the curve is over: `"size"`, `"bitops"` or `"activation_memory"`.
        evaluations: choices that were measured.
        passes: work done, in forward passes over the data.
        seconds: wall time.
        searched: the sim that was given, from which `model_at` makes others.
        rounding: how the weights of the model were rounded.
        compared: choices of simpler methods within the same limits, measured: `"integer program"`
            on the sensitivities alone, `"greedy"`, and precisions that all layers share.

    Example:
        >>> result = eq.search_mixed_precision(sim, data, size=0.9, progress=False)
        >>> smallest = result.model_at(result.points[0])
        >>> result.save("search.json")
    """

    model: QuantSim
    best: Point
    points: tuple[Point, ...]
    sensitivity: SensitivityReport
    cost: str
    evaluations: int
    passes: float
    seconds: float
    searched: QuantSim
    rounding: str = "nearest"
    compared: Mapping[str, Point] = field(default_factory=dict)

    def model_at(self, point: Point, data: Any = None, **options: Any) -> QuantSim:
        """Return the sim of another point of the curve.

        Args:
            point: one of `points`.
            data: inputs to round the weights on, in any form `keras_edgeq.quantize` takes; needed
                if `rounding` is `"gptq"`.
            options: of `keras_edgeq.gptq`.

        Raises:
            SearchError: data is needed and there is none.
        """
        if self.rounding == "gptq" and data is None:
            raise SearchError("The weights are rounded by gptq: give model_at(point, data=...).")
        made = sim_of_choice(self.searched, point.choice)
        return made if self.rounding == "nearest" else gptq(made, data, **options)

    @property
    def plan(self) -> QuantPlan:
        """The grids of the model that was found; a `QuantPlan` is plain data, JSON included."""
        return self.model.record.plan

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; `precision` and `plan` bring the choice to another sim."""
        record = self.model.record
        return {
            "schema": 1,
            "model": self.model.name,
            "profile": record.profile.name,
            "precision": dict(record.precision),
            "plan": record.plan.to_json(),
            "cost": self.cost,
            "best": self.best.to_json(),
            "points": [point.to_json() for point in self.points],
            "compared": {name: point.to_json() for name, point in self.compared.items()},
            "sensitivity": self.sensitivity.to_json(),
            "evaluations": self.evaluations,
            "passes": self.passes,
            "seconds": self.seconds,
        }

    def save(self, path: str | Path) -> None:
        """Write a page with pictures and tables, one picture of three panels, or the values.

        Args:
            path: of the file; its suffix says which: `.html`, `.png` or `.json`.

        Raises:
            ExportError: another suffix, or the file cannot be written.
            EdgeqError: matplotlib is not installed, and the file is no `.json`.
        """
        save_report(path, self.to_json, lambda: search_figure(self), lambda: search_page(self))

    @property
    def curve(self) -> tuple[Point, ...]:
        """The points with the chosen one among them, the cheapest first."""
        if any(self.is_best(point) for point in self.points):
            return self.points
        every = (*self.points, self.best)
        return tuple(sorted(every, key=lambda point: getattr(point, self.cost)))

    def mix(self, point: Point) -> str:
        """Return how many groups of a point have which precision, in words."""
        counted = Counter(point.choice.values())
        return ", ".join(f"{counted[n]} × {n}" for n in self.sensitivity.candidates if counted[n])

    def is_best(self, point: Point) -> bool:
        """Tell whether a point is the one that was chosen."""
        return dict(point.choice) == dict(self.best.choice)

    def told(self, point: Point) -> str:
        """Return what a point loses, and whether that was measured."""
        measure = MEASURES[self.sensitivity.measure]
        predicted = measure.text(point.predicted)
        if point.loss is None:
            return f"{predicted} predicted, not measured"
        return f"{measure.text(point.loss)} measured ({predicted} predicted)"

    def promise(self) -> str:
        """Return in a sentence how far predictions are off where they were measured, or nothing."""
        measure = MEASURES[self.sensitivity.measure]
        both = [point for point in self.curve if point.loss is not None]
        shown = measure.shown([[point.predicted, point.loss] for point in both])
        gaps = [a - b for a, b in np.reshape(shown, (-1, 2)) if np.isfinite(a - b)]
        if not gaps:
            return ""
        gap = float(np.median(gaps))
        more = "more" if gap >= 0 else "less"
        where = "the point" if len(gaps) == 1 else f"the {len(gaps)} points"
        return (
            f"Predictions add up what single layers lose; at {where} also measured, "
            f"they say {abs(gap):.2g}{measure.unit} {more} (median)."
        )

    def found(self) -> str:
        """Return what was found in a sentence."""
        best = self.best
        text = (
            f"{self.mix(best)}: {best.weight_bytes:,} bytes of weights, {100 * best.size:.1f} % of "
            f"8-bit weights; {MEASURES[self.sensitivity.measure].total} {self.told(best)}"
        )
        if self.cost != "size":
            cost = getattr(best, self.cost)
            text += f"; {scale_of(self.cost, [cost]).text(cost)}"
            text += "" if self.cost == "bitops" else " of activations at one time"
        return text + ("." if best.score is None else f"; score {best.score:.4g}.")

    def __str__(self) -> str:
        every = self.curve
        last = len(every) - 1
        picked = {i * last // (MOST_ROWS - 1) for i in range(MOST_ROWS)}
        shown = [
            point
            for i, point in enumerate(every)
            if last < MOST_ROWS or i in picked or self.is_best(point)
        ]
        head, rows = self.rows(shown)
        table = aligned([("", *head), *(("*" if best else "", *cells) for cells, best in rows)])
        more = f"\n({len(shown)} of {len(every)} points)" if len(shown) < len(every) else ""
        return (
            f"Found {self.found()}\n{self.evaluations} choices measured, {self.passes:.1f} passes, "
            f"{self.seconds:.0f} s. The curve, * is chosen, - was not measured:\n{table}{more}"
            + (f"\n{self.promise()}" if self.promise() else "")
        )

    def __repr__(self) -> str:
        return brief(f"SearchResult of {self.searched.name!r}", self.found().rstrip("."))

    def _repr_html_(self) -> str:
        head, rows = self.rows(self.curve)
        table = [("", *head), *(("chosen" if best else "", *cells) for cells, best in rows)]
        return html(f"Found {self.found()}", table, self.promise())

    def rows(self, points: Sequence[Point]) -> tuple[list[str], list[tuple[tuple[str, ...], bool]]]:
        """Return the titles and the cells of points as people read them, and which is chosen."""
        measure = MEASURES[self.sensitivity.measure]
        scored = any(point.score is not None for point in points)
        ops = scale_of("bitops", [point.bitops for point in self.points])
        memory = scale_of("activation_memory", [p.activation_memory for p in self.points])
        total = f"{measure.total},{measure.unit}"
        head = ["size, %", "weight bytes", ops.unit.strip(), f"activations,{memory.unit}"]
        head += [f"predicted {total}", f"measured {total}", *(["score"] if scored else []), "mix"]
        rows = [
            (
                (
                    f"{100 * point.size:.1f}",
                    f"{point.weight_bytes:,}",
                    f"{ops.factor * point.bitops:.4g}",
                    f"{memory.factor * point.activation_memory:.4g}",
                    measure.number(point.predicted),
                    measure.number(point.loss),
                    *([] if not scored else ["-" if point.score is None else f"{point.score:.4g}"]),
                    self.mix(point),
                ),
                self.is_best(point),
            )
            for point in points
        ]
        return head, rows
