"""A comparison as a picture, and as a page."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_edgeq.analysis.drawing import PALETTE, name_rows, new_figure, own_style, row_inches
from keras_edgeq.analysis.page import page, paragraph, picture
from keras_edgeq.table import html_table

if TYPE_CHECKING:
    from keras_edgeq.evaluate.comparison import Candidate, Comparison

HOW_TO_READ = (
    "One row per candidate. Agreement and SQNR are to the float model; bars of SQNR end at 60 dB, "
    "and an arrow stands for no difference. Latency is the median of one sample, on a scale of "
    "powers of ten."
)
MOST_DB = 60.0  # beyond it nothing can be seen; float files lie there


def comparison_bars(comparison: Comparison, axes: Any = None) -> Any:
    """Draw a panel of bars for each thing that was measured, a row per candidate.

    Args:
        comparison: of `compare`.
        axes: of matplotlib, as many as panels; None makes a figure.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        EdgeqError: matplotlib is not installed.
    """
    rows = comparison.candidates
    panels = [one for one in _panels(comparison) if any(value is not None for value in one[1])]
    with own_style():
        if axes is None:
            height = len(rows) * row_inches(2) + 1.0
            figure = new_figure(2.4 + 1.7 * len(panels), height)
            axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for at, (axis, panel) in enumerate(zip(axes, panels, strict=True)):
            name_rows(axis, _names(rows), labelled=at == 0)
            _draw(axis, *panel)
    return axes[0].figure


def comparison_page(comparison: Comparison) -> str:
    """Return a whole HTML page about a comparison."""
    head, *rows = comparison.table()
    parts = [
        paragraph(comparison.note()),
        f'<div class="wide">{html_table(head, rows, texts=(0, 1))}</div>',
        picture(comparison_bars(comparison), "The same, as bars", HOW_TO_READ),
    ]
    return page("Float model, sim and files beside each other", parts)


def _names(rows: tuple[Candidate, ...]) -> list[str]:
    """Return short names that differ: with the folder where two files are called alike."""
    paths = [PurePath(one.name) for one in rows]
    names = [path.name for path in paths]
    long = ["/".join(path.parts[-2:]) for path in paths]
    shown = [far if names.count(near) > 1 else near for near, far in zip(names, long, strict=True)]
    return [
        name if one.size_bytes is None else f"{name}, {one.runtime}"
        for name, one in zip(shown, rows, strict=True)
    ]


def _panels(found: Comparison) -> list[tuple[str, list[float | None], str]]:
    """Return title, values and form of a panel each; None is no bar."""
    rows = found.candidates
    return [
        (found.metric, [one.metric for one in rows], ".4g"),
        ("agreement, %", [one.agreement for one in rows], ".2f"),
        ("SQNR, dB", [one.sqnr_db for one in rows], ".1f"),
        (
            "size, kB",
            [None if b is None else b / 1e3 for b in (r.size_bytes for r in rows)],
            ",.0f",
        ),
        ("latency, ms", [one.latency and one.latency.p50 for one in rows], ".3g"),
    ]


def _draw(axis: Any, title: str, values: list[float | None], form: str) -> None:
    known = np.array([np.nan if value is None else value for value in values], np.float64)
    lengths = np.minimum(known, MOST_DB) if title.endswith("dB") else known
    is_time = title.endswith("ms")
    numbers = lengths[np.isfinite(lengths)]
    if is_time and len(numbers):
        axis.set_xscale("log")
        axis.set_xlim(0.5 * numbers.min(), 12.0 * numbers.max())
    elif len(numbers):
        low, high = min(0.0, numbers.min()), max(0.0, numbers.max())
        axis.set_xlim(low, low + 1.6 * max(high - low, 1e-9))
    left = axis.get_xlim()[0] if is_time else 0.0
    for row, (value, length) in enumerate(zip(known, lengths, strict=True)):
        if np.isnan(value):
            continue
        axis.barh(row, length - left, 0.62, left=left, color=PALETTE[0], zorder=2)
        text = "→ same" if np.isposinf(value) else f"{value:{form}}"
        axis.annotate(
            text,
            (max(length, left), row),
            (3, 0),
            textcoords="offset points",
            va="center",
            zorder=3,
        )
    axis.set_title(title)
    axis.tick_params(axis="x", which="both", labelbottom=False, length=0)
    axis.grid(visible=False)
