"""The Pareto curve of a search, and the bits it gave to each layer, as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_edgeq.analysis.drawing import (
    PALETTE,
    colours,
    legend_above,
    name_rows,
    new_figure,
    own_style,
    row_inches,
    swatch,
)
from keras_edgeq.analysis.figures import drawn_candidates, sensitivity_bars
from keras_edgeq.measure.measures import MEASURES
from keras_edgeq.mixed_precision.cost_scale import scale_of
from keras_edgeq.profiles.precision import Precision

if TYPE_CHECKING:
    from keras_edgeq.mixed_precision.search_result import SearchResult

WEIGHTS, ACTIVATIONS = "bits of weights", "bits of activations"
TICKS = (2, 4, 8, 16, 32)


def pareto_curve(result: SearchResult, axes: Any = None) -> Any:
    """Draw what the points of a search lose over what they cost.

    Args:
        result: of `search_mixed_precision`.
        axes: of matplotlib, to draw on; None makes a figure.

    Returns:
        The `matplotlib.figure.Figure`: filled dots were measured; hollow ones, on a dashed line,
        are what sums of single layers predict for all points; the star was chosen.

    Raises:
        EdgeqError: matplotlib is not installed.
    """
    with own_style():
        if axes is None:
            axes = new_figure(8.0, 4.2).add_subplot()
        _draw_curve(result, axes)
    return axes.figure


def _draw_curve(result: SearchResult, axes: Any) -> None:
    measure = MEASURES[result.sensitivity.measure]
    points = [*result.points, result.best]
    scale = scale_of(result.cost, [getattr(point, result.cost) for point in points])
    x = scale.factor * np.array([getattr(point, result.cost) for point in points], np.float64)
    predicted = measure.shown([point.predicted for point in points])
    measured = measure.shown([np.nan if p.loss is None else p.loss for p in points])
    order = np.argsort(x, kind="stable")
    handles, labels = [], []
    looks = {
        "measured": (measured, {"ls": "-", "mfc": PALETTE[0], "alpha": 1.0}),
        "predicted": (predicted, {"ls": "--", "mfc": "none", "alpha": 0.6}),
    }
    for name, (y, look) in looks.items():
        known = order[np.isfinite(y[order])]
        if len(known):
            look = {"c": PALETTE[0], "lw": 1.2, "marker": "o", "ms": 5, "zorder": 3, **look}
            handles += axes.plot(x[known], y[known], **look)
            labels.append(name)
    star = {"c": PALETTE[3], "ls": "", "marker": "*", "ms": 13, "zorder": 4}
    is_measured = result.best.loss is not None
    height = (measured if is_measured else predicted)[-1:]
    handles += axes.plot(x[-1:], height, mfc=PALETTE[3] if is_measured else "none", **star)
    cost = scale.text(getattr(result.best, result.cost))
    labels.append(f"chosen: {cost}, {result.told(result.best)}")
    axes.grid()
    axes.margins(0.04, 0.08)
    axes.set_xlabel(scale.title)
    axes.set_ylabel(f"{measure.total},{measure.unit}{'' if measure.in_db else ' (less is better)'}")
    legend_above(axes, handles, labels, "The curve that was found, measured and predicted")


def bits_per_layer(result: SearchResult, axes: Sequence[Any] | None = None) -> Any:
    """Draw the bits of the weights and of the activations of each group, coloured by precision.

    Args:
        result: of `search_mixed_precision`.
        axes: two of matplotlib, to draw on without the names of the groups; None makes a figure.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        EdgeqError: matplotlib is not installed.
    """
    groups = result.sensitivity.groups
    with own_style():
        bands = axes
        if bands is None:
            inches = max(len(groups) * row_inches(1), 0.8)
            bands = new_figure(8.0, inches + 1.1).subplots(1, 2)
        _draw_bits(result, bands, labelled=axes is None)
    return bands[0].figure


def _draw_bits(result: SearchResult, axes: Sequence[Any], labelled: bool) -> None:
    groups, profile = result.sensitivity.groups, result.model.record.profile
    used = [n for n in result.sensitivity.candidates if n in result.best.choice.values()]
    colour = colours(result.sensitivity.candidates)
    chosen = [result.best.choice[group.name] for group in groups]
    bits = np.array([bits_of(profile.precision(name)) for name in chosen])
    most = max(8, int(bits.max()))
    for side, (band, title) in enumerate(zip(axes, (WEIGHTS, ACTIVATIONS), strict=True)):
        band.set_xscale("log", base=2)
        band.set_xlim(1.0, 1.1 * most)
        ticks = [n for n in TICKS if n <= most]
        band.set_xticks(ticks, labels=map(str, ticks))
        band.minorticks_off()
        for name in used:
            rows = [i for i, own in enumerate(chosen) if own == name]
            band.barh(rows, bits[rows, side] - 1, 0.7, left=1, color=colour[name], zorder=2)
        name_rows(band, [group.name for group in groups], labelled and side == 0)
        band.set_xlabel(title)
    legend_above(axes[0], [swatch(colour[name]) for name in used], used, "Bits of each group")


def bits_of(precision: Precision) -> tuple[int, int]:
    """Return the bits of weights and of activations that a precision computes with."""
    return precision.weight_bits, precision.activation_bits


def search_figure(result: SearchResult) -> Any:
    """Draw the curve, and below it sensitivity and bits with a row for each group.

    Raises:
        EdgeqError: matplotlib is not installed.
    """
    report, record = result.sensitivity, result.model.record
    with own_style():
        inches = max(len(report.groups) * row_inches(len(drawn_candidates(report))), 0.8)
        figure = new_figure(12.0, inches + 5.6)
        top, bottom = figure.subfigures(2, 1, height_ratios=(4.2, inches + 1.1))
        title = f"Mixed precision for {result.model.name} on {record.profile.name}"
        figure.suptitle(title, x=0.01, ha="left", weight="bold", parse_math=False)
        pareto_curve(result, top.subplots())
        rows, *bands = bottom.subplots(1, 3, width_ratios=(6, 2, 2))
        sensitivity_bars(report, rows)
        bits_per_layer(result, bands)
    return figure
