"""`SensitivityReport`: what each group of quantizers costs at each precision."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_edgeq.analysis.figures import sensitivity_bars
from keras_edgeq.analysis.save_report import save_report
from keras_edgeq.analysis.sensitivity_page import sensitivity_page
from keras_edgeq.measure.groups import Group
from keras_edgeq.table import aligned, brief, counted, html


@dataclass(frozen=True, eq=False)
class SensitivityReport:
    """How much a model loses when one group alone has another precision than the baseline.

    Args:
        groups: what changes together, in graph order.
        candidates: names of precisions, columns of the arrays.
        measure: `"sqnr"`, `"kl"`, `"gradient"` or `"score"`.
        baseline: precision of all other groups.
        losses: `[groups, candidates]`, what is lost beside the baseline, the less the better:
            added noise power over signal power (`sqnr`, `gradient`), nats (`kl`), points of
            the score (`score`). NaN where the target has no such kernel; 0 at the baseline.
        base_loss: the same of the whole model at the baseline, against the float model.
        passes: work done, in forward passes over the data.
        seconds: wall time.

    Example:
        >>> report = eq.analysis.sensitivity(sim, data, ["W4A8", "W8A8"], progress=False)
        >>> [name for name, loss in report.ranking("W4A8") if loss > 0.0]
        [...]
        >>> report.save("sensitivity.json")
    """

    groups: tuple[Group, ...]
    candidates: tuple[str, ...]
    measure: str
    baseline: str
    losses: NDArray[np.float64]
    base_loss: float
    passes: float
    seconds: float

    @property
    def sqnr_db(self) -> NDArray[np.float64]:
        """SQNR of the model with that group alone changed, in dB; of noise measures only."""
        noise = np.maximum(self.losses + self.base_loss, np.finfo(np.float64).tiny)
        return -10.0 * np.log10(noise)

    def ranking(self, candidate: str) -> list[tuple[str, float]]:
        """Return `(group, loss)` at one candidate, the most sensitive group first."""
        column = self.losses[:, self.candidates.index(candidate)]
        known = [(g.name, float(v)) for g, v in zip(self.groups, column, strict=True) if v == v]
        return sorted(known, key=lambda pair: -pair[1])

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "schema": 1,
            "measure": self.measure,
            "baseline": self.baseline,
            "candidates": list(self.candidates),
            "base_loss": self.base_loss,
            "groups": [
                {
                    "name": group.name,
                    "op": group.op,
                    "losses": {
                        name: float(value)
                        for name, value in zip(self.candidates, row, strict=True)
                        if value == value
                    },
                }
                for group, row in zip(self.groups, self.losses, strict=True)
            ],
            "passes": self.passes,
            "seconds": self.seconds,
        }

    def save(self, path: str | Path) -> None:
        """Write a page with a picture and a table, the picture, or the values.

        Args:
            path: of the file; its suffix says which: `.html`, `.png` or `.json`.

        Raises:
            ExportError: another suffix, or the file cannot be written.
            EdgeqError: matplotlib is not installed, and the file is no `.json`.
        """
        save_report(
            path, self.to_json, lambda: sensitivity_bars(self), lambda: sensitivity_page(self)
        )

    def table(self) -> list[tuple[str, ...]]:
        """Return a row per group for people, titles first."""
        head = ("group", "operation", *self.candidates)
        rows = [
            (group.name, group.op, *("-" if v != v else f"{v:.3g}" for v in row))
            for group, row in zip(self.groups, self.losses, strict=True)
        ]
        return [head, *rows]

    def _title(self) -> str:
        return (
            f"Loss ({self.measure}) of one group beside {self.baseline}, {self.passes:.1f} passes, "
            f"{self.seconds:.0f} s"
        )

    def __repr__(self) -> str:
        tried = " ".join(self.candidates)
        return brief(
            "SensitivityReport", f"{counted(len(self.groups), 'group')} at {tried}", self._title()
        )

    def __str__(self) -> str:
        return f"{self._title()}:\n{aligned(self.table())}"

    def _repr_html_(self) -> str:
        return html(self._title(), self.table())
