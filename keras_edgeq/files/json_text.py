"""JSON: what others wrote, within bounds, and what of our own JSON has no number for."""

from __future__ import annotations

import json
import math
from typing import Any

MOST_BYTES = 64_000_000
# An object or a list of Python takes some 64 bytes, a number 32, however short it is in JSON.
MOST_PARTS, MOST_VALUES = 400_000, 2_000_000


def parse(text: str | bytes, **options: Any) -> Any:
    """Return the values of a JSON text, within 100 MB.

    Args:
        text: UTF-8 where it is bytes.
        options: as for `json.loads`.

    Raises:
        ValueError: no JSON, or more objects, lists or values than a model's configuration has.
    """
    content = text.encode() if isinstance(text, str) else text
    parts = content.count(b"{") + content.count(b"[")
    if len(content) > MOST_BYTES or parts > MOST_PARTS or content.count(b",") > MOST_VALUES:
        raise ValueError(f"{len(content)} bytes of JSON with {parts} objects and lists.")
    try:
        return json.loads(content, **options)
    except RecursionError:
        raise ValueError("JSON that is nested too deep.") from None


def finite(values: Any) -> Any:
    """Return JSON values with null for numbers that JSON does not have."""
    if isinstance(values, dict):
        return {key: finite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values
