"""Tables of a diagnosis: layers, tensors with their grids, weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from keras_edgeq.diagnose.page.cells import Cell, Html, db, link, number, percent, table
from keras_edgeq.diagnose.page.network import worst
from keras_edgeq.diagnose.rows import TensorDiagnosis

if TYPE_CHECKING:
    from keras_edgeq.diagnose.diagnosis import Diagnosis


def layers(found: Diagnosis) -> str:
    """Return a row per layer, linked with the picture, its tensors and its weights."""
    head = ("layer", "operation", "own, dB", "total, dB", "MACs", "tensors", "weights", "float")
    errors = worst(found)
    tensors = {one.tensor: i for i, one in enumerate(found.tensors)}
    weights = {one.layer: i for i, one in enumerate(found.weights)}
    why = {one.layer: one.why for one in found.floats}
    rows: list[tuple[Cell, ...]] = []
    for i, one in enumerate(found.graph):
        own, total = errors.get(one.layer, (math.nan, math.nan))
        made = [link(f"tensor-{tensors[n]}", n).text for n in one.tensors if n in tensors]
        at = weights.get(one.layer)
        rows.append(
            (
                link(f"node-{i}", one.layer),
                one.op,
                db(own),
                db(total),
                f"{one.macs:,}" if one.macs else "",
                Html(", ".join(made)),
                "" if at is None else link(f"weights-{at}", found.weights[at].type_name),
                why.get(one.layer, ""),
            )
        )
    ids = [f"layer-{i}" for i in range(len(found.graph))]
    return table("Layers", head, rows, ids, texts=(0, 1, 5, 6, 7))


def tensors(found: Diagnosis) -> str:
    """Return a row per quantized tensor: its grid, its errors and what it does to the outputs."""
    head = (
        "tensor", "grid", "own, dB", "inherited, dB", "total, dB", "cosine", "mostly", "alone, dB",
        "without, dB", "noise, %", "seen from", "to", "grid from", "to", "step", "clipped, %",
        "channels",
    )  # fmt: skip
    place = {one.layer: i for i, one in enumerate(found.graph)}
    drawn = [one.tensor for one in found.tensors if one.histogram]
    rows: list[tuple[Cell, ...]] = []
    for one in found.tensors:
        name = Html(_named(one, place, drawn))
        rows.append(
            (
                name, one.type_name, db(one.own_db), db(one.inherited_db), db(one.total_db),
                number(one.cosine, ".5f"), _mostly(one), db(one.switch.alone_db),
                db(one.switch.without_db), percent(one.switch.share), number(one.low),
                number(one.high), number(one.grid_low), number(one.grid_high), number(one.step),
                percent(one.clipped), _odd(one),
            )
        )  # fmt: skip
    ids = [f"tensor-{i}" for i in range(len(found.tensors))]
    return table("Tensors and their grids", head, rows, ids, texts=(0, 1, 6, 16))


def weights(found: Diagnosis) -> str:
    """Return a row per layer with weights."""
    head = (
        "layer", "grid", "scales", "SQNR, dB", "alone, dB", "without, dB", "noise, %", "unevenness",
        "steps of the median channel", "raised scales", "accumulator", "its bound", "its limit",
    )  # fmt: skip
    place = {one.layer: i for i, one in enumerate(found.graph)}
    rows: list[tuple[Cell, ...]] = []
    for i, one in enumerate(found.weights):
        node = place.get(one.layer)
        name = one.layer if node is None else link(f"layer-{node}", one.layer).text
        shown = _chooser("ranges", i, "ranges")
        rows.append(
            (
                Html(f"{name} {shown}"), one.type_name,
                "per channel" if one.per_channel else "one", db(one.sqnr_db),
                db(one.switch.alone_db), db(one.switch.without_db), percent(one.switch.share),
                number(one.unevenness, ".3g"), number(one.steps, ".3g"), str(one.floored),
                *(number(value, ".3g") for value in
                  (one.accumulator, one.accumulator_bound, one.accumulator_limit)),
            )
        )  # fmt: skip
    ids = [f"weights-{i}" for i in range(len(found.weights))]
    return table("Weights", head, rows, ids, texts=(0, 1, 2))


def _named(one: TensorDiagnosis, place: dict[str, int], drawn: list[str]) -> str:
    node = place.get(one.layer)
    made = link(f"layer-{node}", one.tensor).text if node is not None else ""
    if one.tensor in drawn:
        made += " " + _chooser("histograms", drawn.index(one.tensor), "histogram")
    return made


def _chooser(plot: str, index: int, text: str) -> str:
    return link(plot, text, f' class="show" data-plot="{plot}" data-index="{index}"').text


def _mostly(one: TensorDiagnosis) -> str:
    """Return the cause that makes most of a tensor's own error."""
    whole = sum(value for value in one.noise.values() if math.isfinite(value))
    if not whole:
        return ""
    cause = max(one.noise, key=lambda name: one.noise[name])
    return f"{cause} {100 * one.noise[cause] / whole:.0f} %"


def _odd(one: TensorDiagnosis) -> str:
    counts = (("dead", one.dead), ("constant", one.constant), ("exploding", one.exploding))
    odd = [f"{len(channels)} {name}" for name, channels in counts if channels]
    return f"{', '.join(odd)} of {one.channels}" if odd else ""
