"""The page of a diagnosis: one file that fetches nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from keras_edgeq.analysis.page import heading, page, paragraph
from keras_edgeq.analysis.sensitivity_page import sensitivity_parts
from keras_edgeq.diagnose.page import figures, tables
from keras_edgeq.diagnose.page.figures import Figure
from keras_edgeq.diagnose.page.library import own, plotly_js
from keras_edgeq.diagnose.page.network import picture
from keras_edgeq.diagnose.page.summary import findings, summary
from keras_edgeq.diagnose.rows import TensorDiagnosis, WeightDiagnosis
from keras_edgeq.mixed_precision.search_page import search_parts

if TYPE_CHECKING:
    from keras_edgeq.analysis.sensitivity_report import SensitivityReport
    from keras_edgeq.diagnose.diagnosis import Diagnosis
    from keras_edgeq.mixed_precision.search_result import SearchResult

# The browser itself refuses what the page would fetch.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)
SEEN = "What calibration saw, on a logarithmic axis, and the ends of the grid."
RANGES = (
    "Smallest to greatest weight of each output channel, and after equalize where that can be done."
)
DEPTH = "Click on a point to go to its row."
SWITCHES = (
    "SQNR of the outputs if only this quantizer rounds: the lower, the more it costs. And of the "
    "sim without it: the further right of the dashed line, the more is won there."
)


def report_page(
    found: Diagnosis,
    sensitivity: SensitivityReport | None = None,
    search: SearchResult | None = None,
) -> str:
    """Return a diagnosis as a whole HTML page.

    Args:
        found: the diagnosis.
        sensitivity: becomes a section.
        search: becomes a section, its sensitivities included.

    Raises:
        EdgeqError: plotly is not installed; matplotlib is not, and there are other sections.
    """
    library = plotly_js()
    histograms = [one for one in found.tensors if one.histogram]
    drawn = _drawn(found)
    parts = [
        paragraph(f"Target {found.profile}."),
        _section("Summary", summary(found)),
        _section("Findings", findings(found)),
        _section("Network", picture(found)),
        _section("Errors through the network", _plot("depth", drawn["depth"], DEPTH)),
        _section("Quantizers, one by one", _plot("switches", drawn["switches"], SWITCHES)),
        _choices("histograms", "Activations", histograms, drawn["histograms"], SEEN),
        _choices("ranges", "Weights of each channel", found.weights, drawn["ranges"], RANGES),
        _section("Layers", tables.layers(found)),
        _section("Tensors and their grids", tables.tensors(found)),
        _section("Weights", tables.weights(found)) if found.weights else "",
    ]  # fmt: skip
    if search is not None:
        parts += [heading("Search for mixed precision"), *search_parts(search)]
    if sensitivity is not None and (search is None or sensitivity is not search.sensitivity):
        parts += [heading("Groups at other precisions"), *sensitivity_parts(sensitivity)]
    parts += [
        f'<script type="application/json" id="figures">{_json(drawn)}</script>',
        f"<script>{library}</script>",
        f"<script>{own('report.js')}</script>",
    ]
    head = (
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<style>{own('report.css')}</style>"
    )
    return page(f"Diagnosis of {found.model}", parts, head)


def _drawn(found: Diagnosis) -> dict[str, list[Figure]]:
    return {
        "depth": [figures.depth(found)] if found.tensors else [],
        "switches": [figures.switches(found)] if figures.quantizers(found) else [],
        "histograms": [figures.histogram(one) for one in found.tensors if one.histogram],
        "ranges": [figures.ranges(one) for one in found.weights],
    }


def _json(values: object) -> str:
    """Return JSON that cannot end the script that it stands in."""
    text = json.dumps(values, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _section(title: str, body: str) -> str:
    return f"<section>{heading(title)}{body}</section>"


def _plot(name: str, drawn: Sequence[Figure], caption: str, first: int = 0) -> str:
    if not drawn:
        return paragraph("None was measured.", note=True)
    told, height = escape(drawn[first]["text"]), drawn[first]["layout"]["height"]
    return (
        f'<figure><div class="plot" id="plot-{name}" role="img" aria-label="{told}" '
        f'style="min-height:{height}px"></div><figcaption><span class="told" aria-live="polite">'
        f"{told}</span> {escape(caption)}</figcaption></figure>"
    )


def _choices(
    name: str,
    title: str,
    rows: Sequence[TensorDiagnosis | WeightDiagnosis],
    drawn: Sequence[Figure],
    caption: str,
) -> str:
    """Return a plot of one of many, first what costs most; nothing if there are none."""
    if not rows:
        return ""
    costs = [0.0 if math.isnan(one.switch.share) else one.switch.share for one in rows]
    first = costs.index(max(costs))
    options = "".join(
        f'<option value="{i}"{" selected" if i == first else ""}>{escape(_name(one))}</option>'
        for i, one in enumerate(rows)
    )
    chosen = f'<p><label>Show <select id="{name}" data-plot="{name}">{options}</select></label></p>'
    return _section(title, chosen + _plot(name, drawn, caption, first))


def _name(one: TensorDiagnosis | WeightDiagnosis) -> str:
    return one.tensor if isinstance(one, TensorDiagnosis) else one.layer
