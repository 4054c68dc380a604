"""Save a report in the form that the name of its file asks for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from keras_edgeq.analysis.drawing import write_png
from keras_edgeq.errors import ExportError
from keras_edgeq.files import write_whole
from keras_edgeq.files.json_text import finite
from keras_edgeq.table import csv_text

Rows = Callable[[], Iterable[Iterable[Any]]]


def save_report(
    path: str | Path,
    values: Callable[[], Any],
    figure: Callable[[], Any],
    page: Callable[[], str],
    rows: Rows | None = None,
) -> None:
    """Write a report whole or not at all.

    Args:
        path: of the file to write; `.html`, `.json`, `.png`, and `.csv` where there are rows.
        values: makes its JSON values.
        figure: draws it.
        page: makes its HTML.
        rows: makes its table of numbers, titles first.

    Raises:
        ExportError: another suffix, or the file cannot be written.
        EdgeqError: matplotlib is not installed.
    """
    writers: dict[str, Callable[[Path], object]] = {
        ".html": lambda new: new.write_text(page(), encoding="utf-8"),
        ".json": lambda new: write_json(new, values()),
        ".png": lambda new: write_png(figure(), new),
    }
    if rows is not None:
        writers[".csv"] = lambda new: write_csv(new, rows())
    save_as(path, writers)


def save_values(path: str | Path, values: Callable[[], Any], rows: Rows) -> None:
    """Write a report that has no picture, as `.json` or `.csv`; see `save_report`."""
    save_as(
        path,
        {
            ".csv": lambda new: write_csv(new, rows()),
            ".json": lambda new: write_json(new, values()),
        },
    )


def save_as(path: str | Path, writers: Mapping[str, Callable[[Path], object]]) -> None:
    """Write a report whole or not at all, with the writer of its suffix.

    Raises:
        ExportError: another suffix, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix not in writers:
        raise ExportError(
            f"Cannot save {path.name!r}: a report is saved as {', '.join(sorted(writers))}, "
            f"not {path.suffix or 'without a suffix'!r}."
        )
    write_whole(path, writers[path.suffix])


def write_json(path: Path, values: Any) -> None:
    """Write JSON values; null stands for numbers that JSON does not have."""
    text = json.dumps(finite(values), indent=1, allow_nan=False) + "\n"
    path.write_text(text, encoding="utf-8")


def write_csv(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Write a table, titles first."""
    path.write_text(csv_text(rows), encoding="utf-8")
