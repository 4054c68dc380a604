"""Read an encodings file of any version into checked entries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keras_edgeq.errors import EncodingsError
from keras_edgeq.export.encodings import format_0_6, format_1_0, format_2_0
from keras_edgeq.export.encodings.entry import ACTIVATION, PARAM, SECTIONS, FileEntry, shown
from keras_edgeq.files import read_json

# The largest files, a 0.6.1 of a network with 100,000 channels, have 20 MB.
MAX_FILE_BYTES = 64_000_000
MAX_TENSORS = 100_000
READERS = {
    "0.4.0": format_0_6,
    "0.5.0": format_0_6,
    "0.6.0": format_0_6,
    "0.6.1": format_0_6,
    "1.0.0": format_1_0,
    "2.0.0": format_2_0,
    "2.1.0": format_2_0,
}


def read_entries(path: Path) -> tuple[str, list[FileEntry]]:
    """Return the version of a file and its entries, each of a tensor of its own.

    Raises:
        EncodingsError: the file cannot be read or is malformed.
    """
    data = _sectioned(read_json(path, MAX_FILE_BYTES, EncodingsError), path)
    version = data["version"]
    if not isinstance(version, str) or version not in READERS:
        raise EncodingsError(
            f"{path} has encodings version {shown(version)}; {', '.join(READERS)} are read."
        )
    tensors = sum(len(part) for part in data.values() if isinstance(part, list | dict))
    if tensors > MAX_TENSORS:
        raise EncodingsError(f"{path} has {tensors} entries; {MAX_TENSORS} are the most.")
    entries = list(READERS[version].entries(data, str(path)))
    seen = set()
    for entry in entries:
        if (entry.section, entry.name) in seen:
            raise EncodingsError(f"{path} names {shown(entry.name)} twice.")
        seen.add((entry.section, entry.name))
    return version, entries


def _sectioned(data: Any, path: Path) -> dict[str, Any]:
    """Return a document with version and sections, inferred where the file leaves them out."""
    if not isinstance(data, dict) or not data:
        raise EncodingsError(f"{path} is not an encodings file: not an object.")
    if "version" in data:
        return data
    if "encodings" in data:
        return {**data, "version": "2.0.0"}
    found = [data[section] for section in SECTIONS if section in data]
    if found:
        return {**data, "version": "1.0.0" if isinstance(found[0], list) else "0.6.1"}
    # AIMET's AdaRound writes the parameters alone, without a section around them.
    return {ACTIVATION: {}, PARAM: data, "version": "0.6.1"}
