"""Messages between the process of the user and the child: a JSON head and raw arrays.

A message is two lengths, the head and the body. The head's `arrays` lists name, type and shape of
each array; the body holds their bytes one after the other. Nothing is unpickled or evaluated: what
a child sends may be the work of a damaged or hostile file.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

LENGTHS = struct.Struct("<QQ")
MOST_HEAD_BYTES = 2**24
MOST_AXES = 32
DTYPES = {
    name: np.dtype(name)
    for name in (
        "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
        "float16", "float32", "float64",
    )
}  # fmt: skip


class FrameError(Exception):
    """What came is not a message."""


def write_frame(
    stream: BinaryIO, head: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None
) -> None:
    """Write a message.

    Args:
        stream: binary.
        head: JSON values.
        arrays: by name, of the types in `DTYPES`.

    Raises:
        TypeError: an array of another type.
    """
    parts = {name: np.ascontiguousarray(value) for name, value in (arrays or {}).items()}
    for name, part in parts.items():
        if DTYPES.get(part.dtype.name) != part.dtype:
            raise TypeError(f"{name} has the type {part.dtype}, which is not sent.")
    # `np.ascontiguousarray` makes a vector of a scalar: shapes are those of what was given.
    shapes = {name: np.shape(value) for name, value in (arrays or {}).items()}
    listed = [[name, part.dtype.name, list(shapes[name])] for name, part in parts.items()]
    text = json.dumps({**head, "arrays": listed}).encode()
    stream.write(LENGTHS.pack(len(text), sum(part.nbytes for part in parts.values())))
    stream.write(text)
    for part in parts.values():
        if part.nbytes:
            stream.write(part.reshape(-1).view(np.uint8).data)
    stream.flush()


def read_frame(
    stream: BinaryIO, most_bytes: int | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read a message.

    Args:
        stream: binary.
        most_bytes: what its arrays may take.

    Raises:
        EOFError: the stream ended.
        FrameError: it is not a message, or a larger one.
    """
    head_bytes, body_bytes = LENGTHS.unpack(_read(stream, LENGTHS.size))
    if head_bytes > MOST_HEAD_BYTES:
        raise FrameError(f"a head of {head_bytes} bytes")
    if most_bytes is not None and body_bytes > most_bytes:
        raise FrameError(f"arrays of {body_bytes} bytes")
    try:
        head = json.loads(_read(stream, head_bytes))
        listed = [_form(entry) for entry in head.pop("arrays")]
        size = sum(dtype.itemsize * math.prod(shape) for _, dtype, shape in listed)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise FrameError(f"a head that is not readable: {error!r}"[:200]) from None
    if size != body_bytes:
        raise FrameError(f"{body_bytes} bytes for arrays of {size}")
    arrays = {}
    for name, dtype, shape in listed:
        array = np.empty(shape, dtype)
        if array.nbytes:
            _read_into(stream, array.reshape(-1).view(np.uint8).data)
        arrays[name] = array
    return head, arrays


def _form(entry: Any) -> tuple[str, np.dtype, tuple[int, ...]]:
    """Return name, type and shape as a head lists them."""
    name, dtype, shape = entry
    if not all(type(size) is int and size >= 0 for size in shape) or len(shape) > MOST_AXES:
        raise ValueError(f"the shape {shape}"[:100])
    return str(name), DTYPES[dtype], tuple(shape)


def _read(stream: BinaryIO, count: int) -> bytearray:
    data = bytearray(count)
    _read_into(stream, memoryview(data))
    return data


def _read_into(stream: BinaryIO, view: memoryview) -> None:
    done = 0
    while done < len(view):
        got = stream.readinto(view[done:])  # type: ignore[attr-defined]
        if not got:
            raise EOFError
        done += got
