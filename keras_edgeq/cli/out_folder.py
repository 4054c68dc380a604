"""The folder that a command writes into."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from keras_edgeq.errors import ExportError


@contextlib.contextmanager
def out_folder(path: str) -> Iterator[Path]:
    """Make a folder; one that was made here and is empty in the end is removed again.

    It is made at once: minutes of calibration are not for a place that cannot be written.
    """
    folder = Path(path)
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"Cannot write {folder}: {error.strerror}.") from error
    try:
        yield folder
    finally:
        for place in missing:
            with contextlib.suppress(OSError):  # not empty
                place.rmdir()
