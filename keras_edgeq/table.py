"""Plain tables for people to read: reports and the command line print them."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Sequence
from html import escape
from typing import Any


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of text as one string, columns padded to their widest cell.

    Example:
        >>> print(aligned([("layer", "bits"), ("conv1", "8")]))
        layer  bits
        conv1  8
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Return rows of values as the text of a CSV file; None is an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def brief(what: str, *facts: str) -> str:
    """Return a `repr` of one line: the kind of object, and its main properties."""
    return f"<{what}: {', '.join(filter(None, facts))}>"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: `1 layer`, `2 layers`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def span(low: Any, high: Any) -> str:
    """Return two numbers as a range, one where they are equal."""
    first, last = f"{low:.6g}", f"{high:.6g}"
    return first if first == last else f"{first} to {last}"


def html(title: str, rows: Sequence[Sequence[str]] = (), note: str = "") -> str:
    """Return a title, a table (titles of its columns first) and a note for a notebook.

    Colours are the notebook's own, light or dark. Columns of numbers stand to the right.
    """
    parts = [f"<p><b>{_lines(title)}</b></p>"]
    if rows:
        head, *body = rows
        texts = [i for i in range(len(head)) if not all(_is_number(row[i]) for row in body)]
        parts.append(html_table(head, body, texts))
    if note:
        parts.append(f"<p>{_lines(note)}</p>")
    return "\n".join(parts)


def html_table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    texts: Collection[int] = (0,),
    marked: Collection[int] = (),
) -> str:
    """Return a table of plain text.

    Args:
        head: titles of the columns.
        rows: of cells.
        texts: columns that hold words, aligned to the left.
        marked: rows to stand out.
    """
    left = ' class="text" style="text-align:left"'

    def line(tag: str, cells: Sequence[str]) -> str:
        kinds = [left if i in texts else "" for i in range(len(cells))]
        made = zip(kinds, cells, strict=True)
        return "".join(f"<{tag}{kind}>{escape(cell)}</{tag}>" for kind, cell in made)

    mark = [' class="mark"' if i in marked else "" for i in range(len(rows))]
    lines = [f"<tr{m}>{line('td', row)}</tr>" for m, row in zip(mark, rows, strict=True)]
    return (
        f'<div class="wide"><table><thead><tr>{line("th", head)}</tr></thead>\n<tbody>'
        + "\n".join(lines)
        + "</tbody></table></div>"
    )


def _lines(text: str) -> str:
    return escape(text).replace("\n", "<br>")


def _is_number(cell: str) -> bool:
    """Tell whether a cell reads as a number, with its unit if it has one; none at all is one."""
    first = cell.strip("<>~ ").replace(",", "").split(" ")[0].rstrip("%")
    try:
        float(first or 0)
    except ValueError:
        return first in ("-", "inf")
    return True
