"""A report as the result of a command, and as a file where one is asked for."""

from __future__ import annotations

from typing import Any

from keras_edgeq.cli.command import Result
from keras_edgeq.files.json_text import finite


def saved(found: Any, path: str | None) -> Result:
    """Write a report where a path is given; `--quiet` then leaves nothing of its text."""
    if path:
        found.save(path)
    return Result(str(found), finite(found.to_json()), "" if path else str(found))
