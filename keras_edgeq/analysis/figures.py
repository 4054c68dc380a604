"""Sensitivities as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from keras_edgeq.analysis.drawing import (
    INK,
    colours,
    dot,
    legend_above,
    name_rows,
    new_figure,
    own_style,
    row_inches,
    swatch,
)
from keras_edgeq.measure.measures import MEASURES

if TYPE_CHECKING:
    from keras_edgeq.analysis.sensitivity_report import SensitivityReport

DECADES = 6  # what adds a millionth of the worst adds nothing that matters
RING = {"marker": "o", "mfc": "none", "ms": 3.5, "ls": ""}


def sensitivity_bars(report: SensitivityReport, axes: Any = None) -> Any:
    """Draw a bar per group and candidate: what that change alone adds to the loss.

    A group without a bar has no such kernel; a ring at the edge says that nothing was lost, or too
    little for the axis.

    Args:
        report: of `sensitivity`.
        axes: of matplotlib, to draw on; None makes a figure.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        EdgeqError: matplotlib is not installed.
    """
    with own_style():
        if axes is None:
            inches = len(report.groups) * row_inches(len(drawn_candidates(report)))
            axes = new_figure(8.0, max(inches, 0.8) + 1.1).add_subplot()
        _draw(report, axes)
    return axes.figure


def drawn_candidates(report: SensitivityReport) -> list[str]:
    """Return the candidates that say something: the baseline adds nothing to itself."""
    columns = zip(report.candidates, report.losses.T, strict=True)
    return [
        name for name, column in columns if name != report.baseline and np.any(column == column)
    ]


def _draw(report: SensitivityReport, axes: Any) -> None:
    measure, drawn = MEASURES[report.measure], drawn_candidates(report)
    columns = report.losses[:, [report.candidates.index(name) for name in drawn]]
    edge = _scale(axes, columns, measure.log)
    name_rows(axes, [group.name for group in report.groups])
    thick, colour = 0.8 / max(len(drawn), 1), colours(report.candidates)
    most = axes.get_xlim()[1] if measure.log else np.inf
    rings = False
    for i, (name, values) in enumerate(zip(drawn, columns.T, strict=True)):
        rows = np.arange(len(values)) + (i - (len(drawn) - 1) / 2) * thick
        bar = values > edge if measure.log else values == values
        lengths = np.minimum(values[bar], most) - edge
        axes.barh(rows[bar], lengths, 0.9 * thick, left=edge, color=colour[name], zorder=2)
        tiny = values <= edge if measure.log else values == 0
        if tiny.any():
            look = {**RING, "c": colour[name], "clip_on": False, "zorder": 3}
            axes.plot(np.full(tiny.sum(), edge), rows[tiny], **look)
            rings = True
    axes.set_xlabel(measure.added)
    handles = [swatch(colour[name]) for name in drawn]
    if rings:
        handles.append(dot(c=INK, **RING))
    labels = [*drawn, "none, or less" if measure.log else "none"]
    title = f"What each group alone adds to the loss in {report.baseline}"
    legend_above(axes, handles, labels[: len(handles)], title)


def _scale(axes: Any, values: NDArray[np.float64], log: bool) -> float:
    """Set the axis of the bars and return where they begin."""
    if not log:
        axes.axvline(0.0, color=INK, linewidth=0.8, zorder=3)
        return 0.0
    known = values[np.isfinite(values) & (values > 0)]
    high = np.ceil(np.log10(known.max())) if known.size else 0.0
    low = np.floor(np.log10(known.min()) - 0.2) if known.size else -1.0
    low = max(low, high - DECADES)
    axes.set_xscale("log")
    axes.set_xlim(10.0**low, 10.0**high)
    return float(10.0**low)
