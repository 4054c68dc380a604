"""Save Keras models: the same bytes each time, and no crash where there is no room."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import h5py
import tf_keras

from keras_edgeq.graph import keras_compat

H5_SUFFIXES = (".h5", ".hdf5")
FILE_SUFFIXES = (".keras", *H5_SUFFIXES)
METADATA = "metadata.json"
NO_DATE = "1980-01-01@00:00:00"


def save_keras(model: tf_keras.Model, path: Path) -> None:
    """Save a model in the format of the suffix; any other path becomes a SavedModel folder.

    Files hold no dates: one model gives one content.

    Raises:
        OSError: the place cannot be written.
    """
    with keras_compat.os_errors():
        if path.suffix in H5_SUFFIXES:
            path.write_bytes(_h5(model))
        elif path.suffix == ".keras":
            model.save(str(path))
            _forget_dates(path)
        else:
            model.save(str(path), save_format="tf")


def _h5(model: tf_keras.Model) -> bytes:
    """Return the file from memory: HDF5 ends the process where a disk is full."""
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        model.save(file, save_format="h5")
    return content.getvalue()


def _forget_dates(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts[METADATA] = json.dumps({**json.loads(parts[METADATA]), "date_saved": NO_DATE}).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # of 1980
