"""Look at `.npy` and `.npz` files before NumPy allocates what they declare."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np

from keras_edgeq.files import open_file

# What reading a file as `.npz` raises when it is missing, damaged or something else.
READ_ERRORS = (
    OSError, ValueError, LookupError, TypeError, EOFError, AttributeError, RuntimeError,
    ArithmeticError, MemoryError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


@contextmanager
def open_arrays(path: str | Path, most_bytes: int | None = None) -> Iterator[Any]:
    """Open an `.npy` or `.npz` file after a look at what it declares, for what `np.load` returns.

    Args:
        path: of the file.
        most_bytes: as for `check_arrays`; by default of the file's own size.

    Raises:
        OSError, ValueError, zipfile.BadZipFile: the file is missing or damaged; the errors of
            reading its arrays are in `READ_ERRORS`.
    """
    with open_file(path) as file:  # np.load would leave a damaged archive open
        check_arrays(file, most_bytes)
        loaded = np.load(file, allow_pickle=False)
        yield loaded


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
