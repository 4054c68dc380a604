"""Save Keras models: the same bytes each time, and no crash where there is no room."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import tf_keras

from keras_edgeq.graph.os_errors import os_errors

H5_SUFFIXES = (".h5", ".hdf5")
FILE_SUFFIXES = (".keras", *H5_SUFFIXES)
METADATA, CONFIG = "metadata.json", "config.json"
SHARED = "shared_object_id"
NO_DATE = "1980-01-01@00:00:00"


def save_keras(model: tf_keras.Model, path: Path) -> None:
    """Save a model in the format of the suffix; any other path becomes a SavedModel folder.

    `.keras` and `.h5` files hold no dates and no addresses: one model gives one content.

    Raises:
        OSError: the place cannot be written.
    """
    with os_errors():
        if path.suffix in H5_SUFFIXES:
            path.write_bytes(_h5(model))
        elif path.suffix == ".keras":
            model.save(str(path))
            _make_canonical(path)
        else:
            model.save(str(path), save_format="tf")


def _h5(model: tf_keras.Model) -> bytes:
    """Return the file from memory: HDF5 ends the process where a disk is full."""
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        model.save(file, save_format="h5")
    return content.getvalue()


def _make_canonical(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts[METADATA] = json.dumps({**json.loads(parts[METADATA]), "date_saved": NO_DATE}).encode()
    parts[CONFIG] = json.dumps(_numbered_anew(json.loads(parts[CONFIG]), {})).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # of 1980


def _numbered_anew(part: Any, known: dict[int, int]) -> Any:
    """Return a config with objects numbered as they come; Keras gives them their addresses."""
    if isinstance(part, list):
        return [_numbered_anew(one, known) for one in part]
    if not isinstance(part, dict):
        return part
    return {
        key: known.setdefault(value, len(known))
        if key == SHARED and isinstance(value, int)
        else _numbered_anew(value, known)
        for key, value in part.items()
    }
