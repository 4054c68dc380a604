"""Keep a saved model from allocating more than its file can hold, and from reading other files."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import tensorflow as tf

from keras_edgeq.errors import UnsupportedModelError
from keras_edgeq.prepare.hdf5_guard import check_hdf5

# Seeds, counters and the like are not stored; deflated weights are rarely a tenth of their size.
SLACK_BYTES = 16_000_000
MOST_INFLATION = 20


def check_size(path: Path) -> int:
    """Return the bytes of a saved model when unpacked; nothing of it is unpacked.

    Raises:
        UnsupportedModelError: it is not a regular file, or unpacks to many times its size.
    """
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    if not path.is_file():  # a device or a pipe may never end
        raise UnsupportedModelError(f"{path} is not a regular file.")
    size = path.stat().st_size
    if not zipfile.is_zipfile(path):
        return size
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(info.file_size for info in archive.infolist())
    if unpacked > _most(size):
        raise UnsupportedModelError(
            f"{path} unpacks from {size} to {unpacked} bytes, which no model does; zip it again "
            "without compression if you trust it."
        )
    return unpacked


@contextmanager
def bounded_by_file(path: Path) -> Iterator[None]:
    """Refuse variables that the file has no values for, before they are allocated.

    Raises:
        UnsupportedModelError: the file unpacks, or its weights or variables grow, to many times
            its size; or its weights lie outside it.
    """
    left = check_size(path) * 2 + SLACK_BYTES
    _check_weights(path)

    def create(next_creator, **options):
        nonlocal left
        shape = tf.TensorShape(options.get("shape"))
        if not shape.is_fully_defined():
            shape = _shape_of(options.get("initial_value"))
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


def _shape_of(initial: Any) -> tf.TensorShape:
    """Return the shape of a variable's first value, which Keras 3 gives as a function only.

    That is called in a graph, where nothing is computed.
    """
    if not callable(initial):
        return tf.TensorShape(getattr(initial, "shape", None))
    with tf.Graph().as_default():
        try:
            return tf.convert_to_tensor(initial()).shape
        except Exception:  # whatever an initializer of the user's does in a graph
            return tf.TensorShape(None)


def _check_weights(path: Path) -> None:
    """Check the HDF5 files that a saved model is or holds."""
    if path.is_dir():
        return
    if not zipfile.is_zipfile(path):
        if h5py.is_hdf5(path):
            with h5py.File(path, "r") as file:
                check_hdf5(str(path), file, _most(path.stat().st_size))
        return
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.filename.endswith(".h5"):
                # What is stored as it is needs no copy; going back in what is deflated is slow.
                stored = info.compress_type == zipfile.ZIP_STORED
                with archive.open(info) as packed:
                    content = packed if stored else io.BytesIO(packed.read())
                    with h5py.File(content, "r") as file:
                        check_hdf5(f"{path}/{info.filename}", file, _most(info.file_size))


def _most(size: int) -> int:
    return MOST_INFLATION * size + SLACK_BYTES
