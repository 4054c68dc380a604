"""The page of a diagnosis: one file that fetches nothing."""

from __future__ import annotations

import json
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
from keras_edgeq.mixed_precision.search_page import search_parts

if TYPE_CHECKING:
    from keras_edgeq.analysis.sensitivity_report import SensitivityReport
    from keras_edgeq.diagnose.diagnosis import Diagnosis
    from keras_edgeq.mixed_precision.search_result import SearchResult

# The browser itself refuses what the page would fetch.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
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
    drawn = _drawn(found)
    parts = [
        paragraph(f"Target {found.profile}."),
        _section("Summary", summary(found)),
        _section("Findings", findings(found)),
        _section("Network", picture(found)),
        _section("Errors through the network", _plot("depth", drawn["depth"], DEPTH)),
        _section("Quantizers, switched one by one", _plot("switches", drawn["switches"], SWITCHES)),
        _choices("histograms", "Activations", [one.tensor for one in found.tensors if one.histogram],
                 drawn["histograms"], "What calibration saw, on a logarithmic axis, and the ends of the grid."),
        _choices("ranges", "Weights of each channel", [one.layer for one in found.weights],
                 drawn["ranges"], "Smallest to greatest weight of each output channel, and after equalize where that can be done."),
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


def _plot(name: str, drawn: Sequence[Figure], caption: str) -> str:
    if not drawn:
        return paragraph("None was measured.", note=True)
    told = escape(drawn[0]["text"])
    return (
        f'<figure><div class="plot" id="plot-{name}" data-plot="{name}" role="img" '
        f'aria-label="{told}" style="min-height:{drawn[0]["layout"]["height"]}px"></div>'
        f'<figcaption><span class="told" aria-live="polite">{told}</span> {escape(caption)}'
        "</figcaption></figure>"
    )


def _choices(
    name: str, title: str, names: Sequence[str], drawn: Sequence[Figure], caption: str
) -> str:
    """Return a plot of one of many, with a list to choose from; nothing if there are none."""
    if not drawn:
        return ""
    options = "".join(f'<option value="{i}">{escape(one)}</option>' for i, one in enumerate(names))
    chosen = f'<p><label>Show <select id="{name}" data-plot="{name}">{options}</select></label></p>'
    return _section(title, chosen + _plot(name, drawn, caption))
