"""Numbers and names as the page shows them, and tables whose rows can be linked to and sorted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Html:
    """A piece of HTML; what is not one is text, and is escaped."""

    text: str


Cell = str | Html


def db(value: float) -> str:
    """Return decibels with one digit; nothing for NaN."""
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return "" if math.isnan(value) else f"{value:.1f}"


def percent(share: float) -> str:
    """Return a share in %; nothing for NaN."""
    return "" if math.isnan(share) else f"{100 * share:.3g}"


def number(value: float | None, form: str = ".4g") -> str:
    """Return a number; nothing for None and NaN."""
    return "" if value is None or math.isnan(value) else format(value, form)


def link(target: str, text: str, more: str = "") -> Html:
    """Return a link inside the page."""
    return Html(f'<a href="#{escape(target)}"{more}>{escape(text)}</a>')


def written(cell: Cell) -> str:
    """Return a cell as HTML."""
    return cell.text if isinstance(cell, Html) else escape(cell)


def table(
    caption: str,
    head: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    ids: Sequence[str] = (),
    texts: Sequence[int] = (0,),
) -> str:
    """Return a table that sorts where its script runs.

    Args:
        caption: what a screen reader says.
        head: titles of the columns.
        rows: cells.
        ids: of the rows, to link to.
        texts: columns of words, aligned to the left.
    """
    kinds = [' class="text"' if i in texts else "" for i in range(len(head))]
    titles = "".join(
        f'<th scope="col"{kind}>{escape(title)}</th>'
        for kind, title in zip(kinds, head, strict=True)
    )
    lines = []
    for i, row in enumerate(rows):
        name = f' id="{escape(ids[i])}"' if ids else ""
        cells = "".join(
            f"<td{kind}>{written(cell)}</td>" for kind, cell in zip(kinds, row, strict=True)
        )
        lines.append(f"<tr{name}>{cells}</tr>")
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f'<table class="sorts"><thead><tr>{titles}</tr></thead>\n<tbody>'
        + "\n".join(lines)
        + "</tbody></table></div>"
    )
