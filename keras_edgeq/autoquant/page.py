"""The stages of AutoQuant as a picture, and as a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from keras_edgeq.analysis.drawing import (
    INK,
    PALETTE,
    name_rows,
    new_figure,
    own_style,
    row_inches,
)
from keras_edgeq.analysis.page import heading, page, paragraph, picture
from keras_edgeq.table import html_table

if TYPE_CHECKING:
    from keras_edgeq.autoquant.result import AutoQuantResult

HOW_TO_READ = (
    "The score of each stage on the samples to choose by, with its standard error; the dashed line "
    "is the target, the solid one the float model. Hollow marks were not better than before."
)


def score_bars(result: AutoQuantResult) -> Any:
    """Draw the score of each stage that was done beside the target and the float model.

    Raises:
        EdgeqError: matplotlib is not installed.
    """
    done = [one for one in result.history if one.score == one.score]
    with own_style():
        axes = new_figure(7.0, len(done) * row_inches(2) + 1.2).add_subplot()
        name_rows(axes, [one.stage for one in done])
        axes.axvline(result.least, color=INK, linewidth=1.0, linestyle="--", zorder=1)
        axes.axvline(result.float_score, color=INK, linewidth=1.0, zorder=1)
        for row, one in enumerate(done):
            colour = PALETTE[2] if one.met else PALETTE[0]
            spread = 0.0 if one.error != one.error else one.error
            look = {"color": colour, "mfc": colour if one.kept else "none", "zorder": 3}
            axes.errorbar([one.score], [row], xerr=[[spread], [spread]], fmt="o", ms=6, **look)
        scores = np.array([result.least, result.float_score, *(one.score for one in done)])
        room = 0.08 * max(float(np.ptp(scores)), 1e-9)
        axes.set_xlim(float(scores.min()) - room, float(scores.max()) + room)
        axes.set_xlabel(result.measure)
    return axes.figure


def result_page(result: AutoQuantResult) -> str:
    """Return a whole HTML page about a result: stages, picture, and the findings that are left."""
    head, *rows = result.table()
    parts = [
        *(paragraph(line) for line in result.notes()),
        f'<div class="wide">{html_table(head, rows, texts=(0, 6))}</div>',
        picture(score_bars(result), "Stages", HOW_TO_READ),
        heading("What is left, by the diagnosis"),
    ]
    found = result.diagnosis.table()
    if len(found) > 1:
        parts.append(f'<div class="wide">{html_table(found[0], found[1:], texts=(1, 2, 4))}</div>')
    else:
        parts.append(paragraph("Nothing stands out."))
    return page(f"AutoQuant of {result.sim.name}", parts)
