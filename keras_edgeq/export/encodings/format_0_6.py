"""Version 0.6.1: tensors by name, a list of one entry per channel, booleans as text.

Versions 0.4.0 and 0.5.0 are the same with fewer fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from keras_edgeq.errors import EncodingsError
from keras_edgeq.export.encodings.entry import (
    SECTIONS,
    FileEntry,
    TensorGrid,
    flag,
    integers,
    scales,
    shown,
    width,
)
from keras_edgeq.spec.encoding import Encoding


def sections(grids: Iterable[TensorGrid]) -> dict[str, Any]:
    """Return the part of a document that holds the grids."""
    made: dict[str, Any] = {section: {} for section in SECTIONS}
    for grid in grids:
        if grid.encoding.spec.block_size:
            raise EncodingsError(
                f"{grid.name!r} has a scale per block of {grid.encoding.spec.block_size}, which "
                "encodings 0.6.1 do not hold. Versions 1.0.0 and 2.0.0 do."
            )
        made[grid.section][grid.name] = _channels(grid.encoding)
    return made


def entries(document: dict, where: str) -> Iterator[FileEntry]:
    """Yield the checked entries of a document."""
    for section in SECTIONS:
        tensors = document.get(section)
        if not isinstance(tensors, dict):
            raise EncodingsError(f"{where}: {section} is not an object of tensors by name.")
        for name, channels in tensors.items():
            yield _entry(name, section, channels, f"{where}: {section} ({shown(name)})")


def _channels(encoding: Encoding) -> list[dict[str, Any]]:
    spec = encoding.spec
    if spec.is_half:
        return [{"bitwidth": spec.bits, "dtype": "float"}]
    shift = 2 ** (spec.bits - 1) if spec.signed else 0
    made = []
    for scale, zero_point in zip(encoding.scale.ravel(), encoding.zero_point.ravel(), strict=True):
        offset = -(int(zero_point) + shift)
        made.append(
            {
                "bitwidth": spec.bits,
                "dtype": "int",
                "is_symmetric": str(bool(spec.symmetric)),
                "max": float(scale) * (2**spec.bits - 1 + offset),
                "min": float(scale) * offset,
                "offset": offset,
                "scale": float(scale),
            }
        )
    return made


def _entry(name: str, section: str, channels: Any, where: str) -> FileEntry:
    if not isinstance(channels, list) or not channels:
        raise EncodingsError(f"{where} is not a list of one entry per channel.")
    if not all(isinstance(channel, dict) for channel in channels):
        raise EncodingsError(f"{where} holds something that is not an object.")
    first = channels[0]
    dtype = first.get("dtype", "int")
    for key, value in (("bitwidth", None), ("dtype", "int"), ("is_symmetric", None)):
        if any(channel.get(key, value) != first.get(key, value) for channel in channels):
            raise EncodingsError(f"{where}: the channels differ in {key}.")
    bits = width(first, "bitwidth", where)
    if dtype == "float":
        if bits != 16:
            raise EncodingsError(f"{where}: float of {bits} bits; only 16 are known.")
        return FileEntry(name, section, bits)
    if dtype != "int":
        raise EncodingsError(f"{where}: dtype is {shown(dtype)}; it must be 'int' or 'float'.")
    scale = scales([channel.get("scale") for channel in channels], where)
    offset = [channel.get("offset") for channel in channels]
    offset = integers(offset, len(scale), (1 - 2**bits, 0), where)
    return FileEntry(
        name, section, bits, scale, np.asarray(offset), flag(first, "is_symmetric", where)
    )
