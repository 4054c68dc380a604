"""Figures of matplotlib without its global state, as PNG files and as SVG inside a page."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keras_edgeq.errors import EdgeqError

# After Okabe and Ito, the blue lighter: they stand out on white and on black, and the colour-blind
# tell them apart.
PALETTE = ("#1a7fc1", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#999999")
INK, GRID, BAND, PAPER = "#24292f", "#d0d7de", "#f3f5f7", "#fefefe"
# What they are inside a page, which knows whether it is dark.
CSS_COLOURS = {INK: "currentColor", GRID: "var(--grid)", BAND: "var(--band)", PAPER: "var(--paper)"}
LONGEST_NAME = 40
MOST_PIXELS = 60_000  # higher than this libpng and viewers refuse
STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.facecolor": PAPER,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": PAPER,
    "text.color": INK,
    "text.parse_math": True,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.borderaxespad": 0.4,
    "svg.fonttype": "none",
}


@contextmanager
def own_style() -> Iterator[None]:
    """Let what is drawn or written inside look the same under all settings of the user.

    Raises:
        EdgeqError: matplotlib is not installed.
    """
    try:
        from matplotlib import style
    except ImportError as error:
        raise EdgeqError(
            f"Pictures need {error.name}, which is not installed: "
            'pip install "keras_edgeq[plot]". Saving as .json needs nothing.'
        ) from None
    with style.context(["default", STYLE]):
        yield


def new_figure(width: float, height: float) -> Any:
    """Return an empty `matplotlib.figure.Figure`, in inches; call it inside `own_style`."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
    return Figure(figsize=(width, height), layout=layout)


def write_png(figure: Any, path: Path) -> None:
    """Write a figure as a PNG file, 150 pixels per inch unless it is too high for that."""
    with own_style():
        dots = min(150.0, MOST_PIXELS / max(figure.get_size_inches()))
        figure.savefig(path, format="png", dpi=dots)


def svg(figure: Any, title: str) -> str:
    """Return a figure as an SVG element for an HTML page: text as text, colours of the page.

    Args:
        figure: drawn by the functions here.
        title: what a screen reader says; also keeps apart the ids of several pictures.
    """
    made = io.StringIO()
    with own_style(), warnings.catch_warnings():
        from matplotlib import rc_context

        # The page's reader has the glyphs; only measuring them here lacks some.
        warnings.filterwarnings("ignore", message="Glyph")
        with rc_context({"svg.hashsalt": title}):
            figure.savefig(made, format="svg", transparent=True, metadata={"Date": None})
    text = made.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text).replace("xlink:href=", "href=")
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", text)
    for colour, name in CSS_COLOURS.items():
        text = text.replace(colour, name)
    return text.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)


def colours(names: Sequence[str]) -> dict[str, str]:
    """Return a colour for each name, the same for the same order of names."""
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(names)}


def swatch(colour: str) -> Any:
    """Return a patch of a colour for a legend."""
    from matplotlib.patches import Patch

    return Patch(color=colour)


def dot(**look: Any) -> Any:
    """Return a marker for a legend; on the axes an empty one would count for the layout."""
    from matplotlib.lines import Line2D

    return Line2D([], [], **look)


def shortened(name: str, longest: int = LONGEST_NAME) -> str:
    """Return a name with its middle left out where it is too long for a picture."""
    if len(name) <= longest:
        return name
    head = longest // 3
    return f"{name[:head]}…{name[head + 1 - longest :]}"


def name_rows(axes: Any, names: Sequence[str], labelled: bool = True) -> None:
    """Lay out an axis with a row per name, the first on top, every second one on a band."""
    rows = range(len(names))
    labels = [shortened(name) for name in names] if labelled else [""] * len(names)
    axes.set_yticks(rows, labels=labels, parse_math=False)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0, pad=6)
    for row in rows[1::2]:
        axes.axhspan(row - 0.5, row + 0.5, color=BAND, linewidth=0, zorder=0)
    axes.grid(axis="x")


def row_inches(bars: int) -> float:
    """Return the height of a row that holds so many bars and a line of text."""
    return max(0.22, 0.1 * bars + 0.06)


def legend_above(axes: Any, handles: Sequence[Any], labels: Sequence[str], title: str) -> None:
    """Put a legend, and a title above it, over the axes, where no bar can be."""
    per_row = 4
    legend = axes.legend(
        handles,
        labels,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=min(per_row, max(1, len(labels))),
        handlelength=1.2,
        columnspacing=1.4,
    )
    # The title keeps its room; counted itself, a legend wider than the axes would squeeze them.
    legend.set_in_layout(False)
    axes.set_title(title, pad=8 + 15 * -(-len(labels) // per_row))
