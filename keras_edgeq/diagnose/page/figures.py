"""Plots of a diagnosis in the JSON form of Plotly; the page gives them the colours of its mode."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_edgeq.analysis.drawing import PALETTE, shortened
from keras_edgeq.diagnose.page.cells import db, percent
from keras_edgeq.diagnose.rows import Switch, TensorDiagnosis, WeightDiagnosis

if TYPE_CHECKING:
    from keras_edgeq.diagnose.diagnosis import Diagnosis

BLUE, ORANGE, GREEN, RED = PALETTE[:4]
MOST_BARS = 30
DIGITS = 4
NAME = "%{text}<br>%{y:.1f} dB<extra>%{fullData.name}</extra>"
ROW_NAME = "%{text}<br>%{x:.1f} dB<extra>%{fullData.name}</extra>"

# A plot with what it says in words.
Figure = dict[str, Any]


def depth(found: Diagnosis) -> Figure:
    """Draw the errors of all tensors in graph order."""
    rows = range(len(found.tensors))
    lines = (("own error", "own_db", BLUE), ("inherited", "inherited_db", ORANGE))
    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": name,
            "x": [*rows],
            "y": _finite(getattr(one, field) for one in found.tensors),
            "text": _names(one.tensor for one in found.tensors),
            "customdata": [f"tensor-{i}" for i in rows],
            "hovertemplate": NAME,
            "marker": {"size": 6},
            "line": {"color": colour, "width": 1.5},
        }
        for name, field, colour in (*lines, ("whole error", "total_db", RED))
    ]
    worst = min(found.tensors, key=lambda one: _or(one.total_db, math.inf), default=None)
    text = "No quantized tensors."
    if worst is not None:
        text = (
            f"{len(found.tensors)} tensors in graph order. The noisiest is {worst.tensor}: "
            f"{db(worst.own_db)} dB of its own, {db(worst.total_db)} dB in all."
        )
    axes = {"xaxis": {"title": {"text": "tensor, in graph order"}}, "yaxis": _axis("SQNR, dB")}
    return {"data": traces, "layout": {**axes, "height": 360}, "text": text}


def quantizers(found: Diagnosis) -> list[tuple[str, str, Switch]]:
    """Return name, row and switch of each measured quantizer, what costs most first."""
    made = [
        (f"{one.layer} weights", f"weights-{i}", one.switch) for i, one in enumerate(found.weights)
    ]
    made += [
        (one.tensor, f"tensor-{i}", one.switch)
        for i, one in enumerate(found.tensors)
        if one.owner == one.tensor
    ]
    known = [one for one in made if not math.isnan(one[2].share)]
    return sorted(known, key=lambda one: -one[2].share)


def switches(found: Diagnosis) -> Figure:
    """Draw what quantizers do alone, and what the sim is without them."""
    every = quantizers(found)
    shown = every[:MOST_BARS]
    fields = (
        ("alone", "alone_db", BLUE, "circle"),
        ("sim without it", "without_db", RED, "diamond"),
    )
    traces = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": _finite(getattr(switch, field) for _, _, switch in shown),
            "y": [*range(len(shown))],
            "text": _names(one[0] for one in shown),
            "customdata": [one[1] for one in shown],
            "hovertemplate": ROW_NAME,
            "marker": {"color": colour, "symbol": symbol, "size": 10},
        }
        for name, field, colour, symbol in fields
    ]
    sim = found.sqnr_db
    shapes = [_line(sim)] if math.isfinite(sim) else []
    text = f"{len(every)} quantizers were switched. The sim has {db(sim)} dB (dashed)."
    if len(shown) < len(every):
        text += f" Shown are the {len(shown)} that cost most; the tables hold all."
    if shown:
        name, _, switch = shown[0]
        text += (
            f" Most goes without {name}: {db(switch.without_db)} dB; alone it leaves "
            f"{db(switch.alone_db)} dB."
        )
    ticks = {"tickmode": "array", "tickvals": [*range(len(shown))], "ticktext": _short(shown)}
    axis = {**ticks, "range": [len(shown) - 0.5, -0.5], "automargin": True, "zeroline": False}
    layout = {"xaxis": _axis("SQNR of the outputs, dB"), "yaxis": axis, "shapes": shapes}
    return {"data": traces, "layout": {**layout, "height": 110 + 24 * len(shown)}, "text": text}


def histogram(one: TensorDiagnosis) -> Figure:
    """Draw what calibration saw of a tensor, with the ends of its grid."""
    low, high = one.histogram_ends
    count = len(one.histogram)
    edges = np.linspace(low, high, count + 1)
    trace = {
        "type": "bar",
        "name": "seen",
        "x": _digits((edges[:-1] + edges[1:]) / 2),
        "y": [*map(int, one.histogram)],
        "width": _round((high - low) / count),
        "marker": {"color": BLUE},
        "hovertemplate": "%{x:.4g}: %{y}<extra></extra>",
    }
    ends = [_line(end, RED) for end in (one.grid_low, one.grid_high) if math.isfinite(end)]
    text = (
        f"{one.tensor}, {one.type_name}: {one.low:.4g} to {one.high:.4g} on the samples judged; "
        f"its grid reaches from {one.grid_low:.4g} to {one.grid_high:.4g} (dashed), "
        f"{percent(one.clipped)} % are clipped."
    )
    axes = {"xaxis": _axis("value"), "yaxis": {**_axis("count"), "type": "log", "dtick": 1}}
    return {
        "data": [trace],
        "layout": {**axes, "shapes": ends, "bargap": 0, "showlegend": False, "height": 320},
        "text": text,
    }


def ranges(one: WeightDiagnosis) -> Figure:
    """Draw a bar per output channel from its smallest to its greatest weight."""
    traces = [_range_bars("as they are", one.low, one.high, BLUE, "y")]
    text = (
        f"{one.layer}: {len(one.low)} channels, the largest reaches {one.unevenness:.3g} times as "
        f"far as the median; {'a scale per channel' if one.per_channel else 'one scale for all'}."
    )
    layout: dict[str, Any] = {"xaxis": _axis("output channel"), "yaxis": _axis("weights")}
    layout |= {"barmode": "overlay", "bargap": 0.15, "height": 340}
    if one.equalized_low is not None and one.equalized_high is not None:
        after = _range_bars("after equalize", one.equalized_low, one.equalized_high, GREEN, "y2")
        traces.append(after)
        reach = np.maximum(np.abs(one.equalized_low), np.abs(one.equalized_high))
        middle = float(np.median(reach))
        if middle > 0:
            text += f" After equalize (below) {float(reach.max()) / middle:.3g} times."
        layout["xaxis"]["anchor"] = "y2"
        layout["yaxis"]["domain"] = [0.54, 1.0]
        layout["yaxis2"] = {**_axis("equalized"), "domain": [0.0, 0.46]}
        layout["height"] = 440
    return {"data": traces, "layout": layout, "text": text}


def _range_bars(name: str, low: Any, high: Any, colour: str, axis: str) -> dict[str, Any]:
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    return {
        "type": "bar",
        "name": name,
        "x": [*range(len(low))],
        "base": _digits(low),
        "y": _digits(high - low),
        "customdata": np.stack([_digits(low), _digits(high)], axis=-1).tolist(),
        "hovertemplate": "channel %{x}: %{customdata[0]:.4g} to %{customdata[1]:.4g}"
        "<extra>%{fullData.name}</extra>",
        "marker": {"color": colour},
        "yaxis": axis,
    }


def _axis(title: str) -> dict[str, Any]:
    return {"title": {"text": title}, "automargin": True}


def _line(x: float, colour: str = "") -> dict[str, Any]:
    """Return a dashed line from top to bottom; without a colour it has that of the text."""
    line = {"dash": "dash", "width": 1.5, **({"color": colour} if colour else {})}
    return {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "line": line}


def _names(names: Iterable[str]) -> list[str]:
    """Return names as Plotly shows them: it reads some HTML."""
    return [escape(name) for name in names]


def _short(shown: Sequence[tuple[str, str, Switch]]) -> list[str]:
    return [escape(shortened(name, 22)) for name, _, _ in shown]


def _finite(values: Iterable[float]) -> list[float | None]:
    return [round(value, 2) if math.isfinite(value) else None for value in values]


def _digits(values: Any) -> list[float]:
    return [_round(float(value)) for value in values]


def _round(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _or(value: float, other: float) -> float:
    return other if math.isnan(value) else value
