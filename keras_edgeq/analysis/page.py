"""One HTML file that needs nothing else: headings, tables and pictures, for dark and light."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

from keras_edgeq.analysis.drawing import svg

STYLE = """
:root { color-scheme: light dark; --ink: #24292f; --paper: #fff; --grid: #d0d7de;
  --band: #f3f5f7; --faint: #57606a; --mark: #fff4d6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #14181d; --grid: #3d444d;
  --band: #1c2229; --faint: #9aa4af; --mark: #3a3115; } }
body { margin: 2rem auto; max-width: 62rem; padding: 0 1rem; color: var(--ink);
  background: var(--paper); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .4rem; }
p.note, figcaption { color: var(--faint); }
figure { margin: 0; }
svg { max-width: 100%; height: auto; overflow: visible; }
.wide { overflow-x: auto; margin: 0 -.5rem; padding: 0 .5rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .87rem; }
th, td { padding: .2rem .8rem .2rem 0; text-align: right; border-bottom: 1px solid var(--grid);
  white-space: nowrap; }
th { vertical-align: bottom; white-space: normal; }
th.text, td.text { text-align: left; white-space: normal; }
td.text:first-child { min-width: 8rem; overflow-wrap: anywhere; }
tr.mark td { background: var(--mark); font-weight: 600; }
"""


def page(title: str, parts: Iterable[str], more: str = "") -> str:
    """Return a whole page of parts that are HTML already; the title is plain text.

    Args:
        title: of the page.
        parts: its body.
        more: what its head holds beside the style.
    """
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style>{more}"
    )
    body = "\n".join([f"<h1>{escape(title)}</h1>", *parts])
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def heading(text: str) -> str:
    """Return a heading between parts."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str, note: bool = False) -> str:
    """Return plain text as a paragraph; a note is fainter."""
    kind = ' class="note"' if note else ""
    return f"<p{kind}>{escape(text)}</p>"


def picture(figure: Any, title: str, caption: str) -> str:
    """Return a figure of matplotlib under its title, and above a few words on how to read it."""
    drawn = svg(figure, escape(title))
    return (
        f'{heading(title)}<figure><div class="wide">{drawn}</div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
