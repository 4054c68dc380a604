"""Markdown tables that are written line by line, so that a run cut short keeps what it has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def head(names: Sequence[str]) -> str:
    """Return the first two lines of a table."""
    return "| " + " | ".join(names) + " |\n|" + "---|" * len(names)


def emit(table: Path | None, line: str) -> None:
    """Print a line of the table, and add it to the file."""
    print(line, flush=True)
    if table is not None:
        with table.open("a") as file:
            file.write(line + "\n")
