"""What an earlier export wrote into a folder, as its report says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_edgeq.errors import ExportError
from keras_edgeq.files import read_json, sha256_of

REPORT = "report.json"
MOST_BYTES = 100_000_000


def former_files(folder: Path) -> list[str]:
    """Return the names of files that the last export into a folder wrote and nobody changed since.

    Reports of version 0.1.0 have no digests; there the size has to be the same.
    """
    try:
        report = read_json(folder / REPORT, MOST_BYTES, ExportError)
    except ExportError:  # there is none, or it is not a report
        return []
    files, sizes, digests = (_part(report, name) for name in ("files", "sizes", "sha256"))
    found = []
    for kind, name in files.items():
        if not isinstance(name, str) or name != Path(name).name or name in ("", ".", ".."):
            continue
        try:
            same = (
                sha256_of(folder / name) == digests[kind]
                if kind in digests
                else size_of(folder / name) == sizes.get(kind)
            )
        except OSError:  # gone, or no file
            continue
        if same:
            found.append(name)
    return found


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    if not path.is_dir():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _part(report: Any, name: str) -> Mapping[str, Any]:
    part = report.get(name) if isinstance(report, dict) else None
    return part if isinstance(part, dict) else {}
