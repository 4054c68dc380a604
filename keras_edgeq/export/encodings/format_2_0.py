"""Version 2.0.0: one list for activations and parameters, in the terms of ONNX QuantizeLinear.

A float16 tensor has no entry. Version 2.1.0 differs in how it writes blocks, and is not written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from keras_edgeq.errors import EncodingsError
from keras_edgeq.export.encodings.blocks import READ, nested_fields
from keras_edgeq.export.encodings.entry import (
    MOST_BITS,
    FileEntry,
    TensorGrid,
    integers,
    scales,
    shown,
    text,
)

_DTYPE = re.compile(r"(u?)int([0-9]{1,2})")
_BLOCK_FIELDS = ("block_size", "per_block_int_scale", "per_channel_float_scale")


def sections(grids: Iterable[TensorGrid]) -> dict[str, Any]:
    """Return the part of a document that holds the grids."""
    return {"encodings": [_fields(g) for g in grids if not g.encoding.spec.is_half]}


def entries(document: dict, where: str) -> Iterator[FileEntry]:
    """Yield the checked entries of a document."""
    items = document.get("encodings")
    if not isinstance(items, list):
        raise EncodingsError(f"{where}: encodings is not a list.")
    for number, item in enumerate(items):
        yield _entry(item, f"{where}: encodings[{number}]")


def _fields(grid: TensorGrid) -> dict[str, Any]:
    spec, scale = grid.encoding.spec, grid.encoding.scale
    dtype = f"{'' if spec.signed else 'u'}int{spec.bits}"
    if spec.block_size:
        fields = nested_fields(grid.name, grid.encoding)
        return {"name": grid.name, "output_dtype": dtype, **fields}
    made: dict[str, Any] = {
        "name": grid.name,
        "output_dtype": dtype,
        "y_scale": [float(s) for s in scale.ravel()] if scale.ndim else float(scale),
    }
    points = [int(z) for z in grid.encoding.zero_point.ravel()]
    if any(points):
        made["y_zero_point"] = points if scale.ndim else points[0]
    if scale.ndim:
        if grid.axis is None:
            raise EncodingsError(
                f"{grid.name!r} has a scale for each combination of several axes; encodings 2.0.0 "
                "hold one axis. Version 1.0.0 holds it."
            )
        made["axis"] = grid.axis
    return made


def _entry(data: Any, where: str) -> FileEntry:
    name = text(data, "name", where)
    where = f"{where} ({shown(name)})"
    if "bw" in data or "bitwidth" in data:
        raise EncodingsError(f"{where} has a field of another version of encodings.")
    scale: Any = data.get("y_scale")
    nested = isinstance(scale, dict) or (
        isinstance(scale, list) and any(isinstance(part, list) for part in scale)
    )
    if nested or any(data.get(field) for field in _BLOCK_FIELDS):
        raise EncodingsError(f"{where} has a scale per block of weights. {READ}")
    match = _DTYPE.fullmatch(text(data, "output_dtype", where))
    if match is None or not 2 <= int(match[2]) <= MOST_BITS:
        raise EncodingsError(
            f"{where}: output_dtype is {shown(data['output_dtype'])}; int2 to int{MOST_BITS} and "
            "uint2 to uint32 are known."
        )
    signed, bits = not match[1], int(match[2])
    axis = data.get("axis")
    if axis is not None and type(axis) is not int:
        raise EncodingsError(f"{where}: axis is {shown(axis)}; it must be an integer.")
    scale = scales(scale if isinstance(scale, list) else [scale], where)
    point: Any = data.get("y_zero_point")
    point = [0] * len(scale) if point is None else point if isinstance(point, list) else [point]
    low = -(2 ** (bits - 1)) if signed else 0
    points = integers(point, len(scale), (low, low + 2**bits - 1), where)
    return FileEntry(name, None, bits, scale, np.asarray(low - points), signed=signed)
