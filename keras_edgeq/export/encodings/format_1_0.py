"""Version 1.0.0: a list of entries per section, scales and offsets as lists."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from keras_edgeq.errors import EncodingsError
from keras_edgeq.export.encodings.blocks import READ, flat_fields
from keras_edgeq.export.encodings.entry import (
    SECTIONS,
    FileEntry,
    TensorGrid,
    flag,
    integers,
    scales,
    shown,
    text,
    width,
)
from keras_edgeq.spec.encoding import Encoding

TYPES = ("PER_TENSOR", "PER_CHANNEL")
BLOCKS = ("PER_BLOCK", "LPBQ", "VECTOR")


def sections(grids: Iterable[TensorGrid]) -> dict[str, Any]:
    """Return the part of a document that holds the grids."""
    made: dict[str, Any] = {section: [] for section in SECTIONS}
    for grid in grids:
        made[grid.section].append({"name": grid.name, **_fields(grid.encoding)})
    return made


def entries(document: dict, where: str) -> Iterator[FileEntry]:
    """Yield the checked entries of a document."""
    for section in SECTIONS:
        items = document.get(section)
        if not isinstance(items, list):
            raise EncodingsError(f"{where}: {section} is not a list.")
        for number, item in enumerate(items):
            yield _entry(item, section, f"{where}: {section}[{number}]")


def _fields(encoding: Encoding) -> dict[str, Any]:
    spec = encoding.spec
    if spec.is_half:
        return {"dtype": "FLOAT", "enc_type": "PER_TENSOR", "bw": spec.bits}
    if spec.block_size:
        return flat_fields(encoding)
    shift = 2 ** (spec.bits - 1) if spec.signed else 0
    return {
        "dtype": "INT",
        "enc_type": "PER_CHANNEL" if encoding.scale.ndim else "PER_TENSOR",
        "bw": spec.bits,
        "is_sym": bool(spec.symmetric),
        "scale": [float(s) for s in encoding.scale.ravel()],
        "offset": [-(int(z) + shift) for z in encoding.zero_point.ravel()],
    }


def _entry(data: Any, section: str, where: str) -> FileEntry:
    name = text(data, "name", where)
    where = f"{where} ({shown(name)})"
    dtype, kind = data.get("dtype"), data.get("enc_type", TYPES[0])
    if kind in BLOCKS:
        raise EncodingsError(f"{where}: enc_type is {kind}, a scale per block of weights. {READ}")
    if kind not in TYPES:
        raise EncodingsError(f"{where}: enc_type is {shown(kind)}; it must be one of {TYPES}.")
    bits = width(data, "bw", where)
    if dtype == "FLOAT":
        if bits != 16:
            raise EncodingsError(f"{where}: float of {bits} bits; only 16 are known.")
        return FileEntry(name, section, bits)
    if dtype != "INT":
        raise EncodingsError(f"{where}: dtype is {shown(dtype)}; it must be 'INT' or 'FLOAT'.")
    scale = scales(data.get("scale"), where)
    offset = integers(data.get("offset"), len(scale), (1 - 2**bits, 0), where)
    shift = data.get("zero_point_shift") or []
    if not isinstance(shift, list) or any(part != 0 for part in shift):
        raise EncodingsError(f"{where}: a zero_point_shift puts the zero between two integers.")
    return FileEntry(name, section, bits, scale, np.asarray(offset), flag(data, "is_sym", where))
