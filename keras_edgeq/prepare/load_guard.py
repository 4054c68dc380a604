"""Keep a saved model from allocating more than its file can hold."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import tensorflow as tf

from keras_edgeq.errors import UnsupportedModelError

# Seeds, counters and the like are not stored; deflated weights are rarely a tenth of their size.
SLACK_BYTES = 16_000_000
MOST_INFLATION = 20


@contextmanager
def bounded_by_file(path: Path) -> Iterator[None]:
    """Refuse variables that the file has no values for, before they are allocated.

    Raises:
        UnsupportedModelError: the file unpacks, or its weights or variables grow, to many times
            its size.
    """
    left = _stored_bytes(path) * 2 + SLACK_BYTES

    def create(next_creator, **options):
        nonlocal left
        shape = tf.TensorShape(options.get("shape"))
        if shape.is_fully_defined():
            left -= math.prod(shape.as_list()) * 4
        if left < 0:
            raise UnsupportedModelError(
                f"{path} describes a variable of shape {tuple(shape)}, for which it has no values; "
                "it is damaged."
            )
        return next_creator(**options)

    with tf.variable_creator_scope(create):
        yield


def _stored_bytes(path: Path) -> int:
    """Return the bytes of a saved model when unpacked, and check what its weights declare."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    size = path.stat().st_size
    if not zipfile.is_zipfile(path):
        if h5py.is_hdf5(path):
            with h5py.File(path, "r") as file:
                _check_weights(path, file, size)
        return size
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(info.file_size for info in archive.infolist())
        if unpacked > MOST_INFLATION * size + SLACK_BYTES:
            raise UnsupportedModelError(
                f"{path} unpacks from {size} to {unpacked} bytes, which no model does; zip it "
                "again without compression if you trust it."
            )
        for info in archive.infolist():
            if info.filename.endswith(".h5"):
                with h5py.File(io.BytesIO(archive.read(info)), "r") as file:
                    _check_weights(path, file, info.file_size)
    return unpacked


def _check_weights(path: Path, file: h5py.File, size: int) -> None:
    declared = 0

    def add(_, item) -> None:
        nonlocal declared
        if isinstance(item, h5py.Dataset):
            declared += math.prod(item.shape or ()) * item.dtype.itemsize

    file.visititems(add)
    if declared > MOST_INFLATION * size + SLACK_BYTES:
        raise UnsupportedModelError(
            f"{path} declares weights of {declared} bytes and holds {size}; it is damaged."
        )
