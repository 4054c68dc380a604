"""Look at `.npy` and `.npz` files before NumPy allocates what they declare."""

from __future__ import annotations

import math
import zipfile
from tokenize import TokenError
from typing import IO

import numpy as np

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def check_arrays(file: IO[bytes], most_bytes: int | None = None) -> None:
    """Raise unless a file holds as much data as its arrays declare; it is rewound.

    Args:
        file: an open `.npy` or `.npz` file.
        most_bytes: what the arrays may take together when unpacked.

    Raises:
        ValueError: an array is larger than its data, or holds Python objects.
        zipfile.BadZipFile: a damaged archive.
    """
    is_archive = file.read(2) == b"PK"
    size = file.seek(0, 2)
    file.seek(0)
    if is_archive:
        with zipfile.ZipFile(file) as archive:
            total = sum(info.file_size for info in archive.infolist())
            if most_bytes is not None and total > most_bytes:
                raise ValueError(f"{total} bytes when unpacked; {most_bytes} are the most.")
            for info in archive.infolist():
                with archive.open(info) as member:
                    _check_array(member, info.file_size, info.filename)
    else:
        _check_array(file, size, "the array")
    file.seek(0)


def _check_array(stream: IO[bytes], size: int, name: str) -> None:
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"{name[:100]} has format version {version}; 1.0 and 2.0 are known.")
    try:
        shape, _, dtype = _HEADERS[version](stream)
    except (SyntaxError, TokenError) as error:
        raise ValueError(f"{name[:100]} has a damaged header: {error}") from None
    if dtype.hasobject:
        raise ValueError(f"{name[:100]} holds Python objects.")
    held, declared = size - stream.tell(), math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or declared > held:
        raise ValueError(f"{name[:100]} declares {declared} bytes and holds {held}.")
