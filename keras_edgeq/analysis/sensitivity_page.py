"""Sensitivities as a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from keras_edgeq.analysis.figures import sensitivity_bars
from keras_edgeq.analysis.page import heading, page, paragraph, picture
from keras_edgeq.measure.measures import MEASURES
from keras_edgeq.table import html_table

if TYPE_CHECKING:
    from keras_edgeq.analysis.sensitivity_report import SensitivityReport

HOW_TO_READ = (
    "One bar per candidate: what the model loses when this group alone leaves the baseline. "
    "Groups stand in the order of the graph. No bar: the target has no such kernel. "
    "A ring: nothing was lost, or less than the axis shows."
)


def sensitivity_page(report: SensitivityReport) -> str:
    """Return a whole HTML page about a report."""
    return page("Sensitivity of each group", sensitivity_parts(report))


def sensitivity_parts(report: SensitivityReport) -> list[str]:
    """Return what a page says about a report."""
    total = MEASURES[report.measure]
    base = total.text(report.base_loss)
    about = (
        f"{len(report.groups)} groups beside {report.baseline}, each measured alone at "
        f"{', '.join(report.candidates)}. The whole model at {report.baseline}: {total.total} "
        f"{base}. {report.passes:.1f} forward passes over the data, {report.seconds:.0f} s."
    )
    return [paragraph(about), sensitivity_picture(report), group_table(report)]


def sensitivity_picture(report: SensitivityReport) -> str:
    """Return the bars as a part of a page."""
    return picture(sensitivity_bars(report), "Sensitivity of each group", HOW_TO_READ)


def group_table(report: SensitivityReport, choice: Mapping[str, str] | None = None) -> str:
    """Return the groups under a heading, with the precision chosen for each where there is one."""
    chosen = [] if choice is None else ["chosen"]
    head = ["group", "operation", *chosen, *report.candidates]
    rows = [
        (
            group.name,
            group.op,
            *([] if choice is None else [choice.get(group.name, "-")]),
            *("-" if value != value else f"{value:.3g}" for value in losses),
        )
        for group, losses in zip(report.groups, report.losses, strict=True)
    ]
    title = heading(f"Groups: {MEASURES[report.measure].added}")
    return title + html_table(head, rows, texts=(0, 1, 2) if chosen else (0, 1))
