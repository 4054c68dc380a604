"""Plain tables for people to read: reports and the command line print them."""

from __future__ import annotations

from collections.abc import Sequence


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
