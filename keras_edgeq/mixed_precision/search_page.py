"""A search as a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_edgeq.analysis.page import heading, page, paragraph, picture
from keras_edgeq.analysis.sensitivity_page import group_table, sensitivity_picture
from keras_edgeq.mixed_precision.figures import bits_per_layer, pareto_curve
from keras_edgeq.table import html_table

if TYPE_CHECKING:
    from keras_edgeq.mixed_precision.search_result import SearchResult

CURVE = (
    "Every point is a choice of precisions that can be had as a model. Filled: measured. "
    "Hollow, dashed: predicted for the same points from the sensitivities, which do not quite add "
    "up; believe the filled ones. The star was chosen."
)
BITS = (
    "Bits of the weights and of what each group reads and makes, on a logarithmic axis; 16 and 32 "
    "are also those of half and float. Groups stand in the order of the graph."
)


def search_page(result: SearchResult) -> str:
    """Return a whole HTML page about a search."""
    return page(f"Mixed precision for {result.model.name}", search_parts(result))


def search_parts(result: SearchResult) -> list[str]:
    """Return what a page says about a search."""
    report, profile = result.sensitivity, result.model.record.profile
    about = f"Target {profile.name}, candidates {', '.join(report.candidates)}."
    work = (
        f"{result.evaluations} choices were measured in {result.passes:.1f} forward passes over "
        f"the data and {result.seconds:.0f} s, sensitivities included."
    )
    head, rows = result.rows(result.curve)
    curve = html_table(
        head,
        [cells for cells, _ in rows],
        texts=(len(head) - 1,),
        marked=[i for i, (_, best) in enumerate(rows) if best],
    )
    return [
        paragraph(about),
        paragraph(f"Found {result.found()}"),
        paragraph(work, note=True),
        paragraph(result.promise(), note=True),
        picture(pareto_curve(result), "Pareto curve", CURVE),
        picture(bits_per_layer(result), "Bits per layer", BITS),
        sensitivity_picture(report),
        group_table(report, result.best.choice),
        heading("Points of the curve"),
        curve,
    ]
