"""The network as a picture: a row per layer in graph order, its edges in lanes beside the names.

A lane is taken from a layer to the last one that reads it, so that no edge crosses a layer and
every name has its own row, in models of any depth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING

from keras_edgeq.diagnose.page.cells import db
from keras_edgeq.diagnose.rows import GraphLayer, TensorDiagnosis

if TYPE_CHECKING:
    from keras_edgeq.diagnose.diagnosis import Diagnosis

ROW, WIDEST, NARROWEST, MOST = 26, 18, 4, 100
# Upper ends of the colours, in dB; what is above the last has a colour of its own.
BINS = (10.0, 20.0, 30.0, 40.0, 50.0)


def lanes(graph: Sequence[GraphLayer]) -> list[int]:
    """Return the lane of each layer, from the left.

    Example:
        >>> chain = [GraphLayer("a", "Input", (), (), 0), GraphLayer("b", "Relu", ("a",), (), 0)]
        >>> lanes(chain)
        [0, 0]
    """
    place = {one.layer: i for i, one in enumerate(graph)}
    last = dict(place)
    for i, one in enumerate(graph):
        for name in one.reads:
            if name in last:
                last[name] = max(last[name], i)
    taken: dict[int, str] = {}
    made: list[int] = []
    for i, one in enumerate(graph):
        ending = [lane for lane, name in taken.items() if last[name] <= i]
        mine = [lane for lane in ending if taken[lane] in one.reads]
        for lane in ending:
            del taken[lane]
        free = next(n for n in range(len(taken) + 1) if n not in taken)
        made.append(min(mine, default=free))
        if last[one.layer] > i:
            taken[made[-1]] = one.layer
    return made


def worst(found: Diagnosis) -> dict[str, tuple[float, float]]:
    """Return layer -> own and total SQNR of its worst tensors, in dB."""
    made: dict[str, tuple[float, float]] = {}
    by_name = {one.tensor: one for one in found.tensors}
    for layer in found.graph:
        tensors = [by_name[name] for name in layer.tensors if name in by_name]
        if tensors:
            made[layer.layer] = (_least(tensors, "own_db"), _least(tensors, "total_db"))
    return made


def picture(found: Diagnosis) -> str:
    """Return the network under its legend: links to the rows of its layers."""
    graph, colours = found.graph, worst(found)
    at = lanes(graph)
    count = max(at, default=0) + 1
    step = max(NARROWEST, min(WIDEST, MOST // count))
    width = step * count + 8
    floats = {one.layer for one in found.floats}
    badges: dict[str, str] = {}
    for n, one in enumerate(found.findings, start=1):
        kind = "badge fault" if one.is_fault else "badge"
        badge = f'<a class="{kind}" href="#finding-{n}" aria-label="finding {n}">{n}</a>'
        badges[one.layer] = badges.get(one.layer, "") + badge
    nodes = [_node(i, one, at[i], step, colours) for i, one in enumerate(graph)]
    rows = [_row(i, one, colours, floats, badges) for i, one in enumerate(graph)]
    told = (
        f"The network: {len(graph)} layers from top to bottom, joined by what they read, coloured "
        "by signal to noise. The list beside it names each layer with its numbers."
    )
    return (
        f'{_legend()}<div class="net" tabindex="0" role="region" aria-label="Network">'
        f'<svg role="img" aria-label="{told}" width="{width}" height="{ROW * len(graph)}">'
        f"{_edges(graph, at, step)}{''.join(nodes)}</svg>"
        f'<ol style="margin-left:{width}px">{"".join(rows)}</ol></div>'
    )


def _least(tensors: Sequence[TensorDiagnosis], name: str) -> float:
    known = [value for one in tensors if not math.isnan(value := getattr(one, name))]
    return min(known, default=math.nan)


def _bin(value: float) -> str:
    if math.isnan(value):
        return "none"
    return str(sum(value >= end for end in BINS))


def _centre(row: int, lane: int, step: int) -> tuple[float, float]:
    return 8 + lane * step, row * ROW + ROW / 2


def _edges(graph: Sequence[GraphLayer], at: Sequence[int], step: int) -> str:
    place = {one.layer: i for i, one in enumerate(graph)}
    made = []
    for i, one in enumerate(graph):
        for name in one.reads:
            if (begin := place.get(name, i)) >= i:
                continue
            (x0, y0), (x1, y1) = _centre(begin, at[begin], step), _centre(i, at[i], step)
            bend = y1 - ROW
            made.append(f"M{x0},{y0}V{bend}C{x0},{y1 - 8} {x1},{bend + 8} {x1},{y1}")
    return f'<path class="edge" d="{"".join(made)}"/>'


def _node(
    i: int, one: GraphLayer, lane: int, step: int, colours: Mapping[str, tuple[float, float]]
) -> str:
    x, y = _centre(i, lane, step)
    half = min(6, max(3, step // 2))
    own, total = colours.get(one.layer, (math.nan, math.nan))
    return (
        f'<a href="#layer-{i}" tabindex="-1" aria-hidden="true"><title>{escape(one.layer)}</title>'
        f'<rect class="own-{_bin(own)} total-{_bin(total)}" x="{x - half}" y="{y - half}" '
        f'width="{2 * half}" height="{2 * half}" rx="2"/></a>'
    )


def _row(
    i: int,
    one: GraphLayer,
    colours: Mapping[str, tuple[float, float]],
    floats: set[str],
    badges: Mapping[str, str],
) -> str:
    told = "float" if one.layer in floats else ""
    if one.layer in colours:
        own, total = colours[one.layer]
        told = f'<b class="of-own">{_told(own)}</b><b class="of-total">{_told(total)}</b>'
    name, numbers = escape(one.layer), badges.get(one.layer, "")
    return (
        f'<li id="node-{i}"><a class="name" href="#layer-{i}" title="{name}">{name}</a>{numbers}'
        f'<span class="op">{escape(one.op)}</span><span class="db">{told}</span></li>'
    )


def _told(value: float) -> str:
    return "" if math.isnan(value) else f"{db(value)} dB"


def _legend() -> str:
    between = [f"{low:.0f}–{high:.0f}" for low, high in pairwise(BINS)]
    ranges = [f"below {BINS[0]:.0f}", *between, f"{BINS[-1]:.0f} and more"]
    keys = "".join(
        f'<span class="key"><i class="key-{i}"></i>{told}</span>' for i, told in enumerate(ranges)
    )
    return (
        '<fieldset class="choice"><legend>Coloured by signal to noise, in dB</legend>'
        '<label><input type="radio" name="by" id="by-own" checked> its own error</label> '
        '<label><input type="radio" name="by" id="by-total"> the whole error</label></fieldset>'
        f'<p class="keys">{keys}<span class="key"><i class="key-none"></i>no grid</span></p>'
    )
