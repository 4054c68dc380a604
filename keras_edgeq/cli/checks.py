"""What can be known to be wrong before TensorFlow is imported, which takes seconds."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from keras_edgeq.errors import (
    CalibrationDataError,
    EdgeqError,
    ExportError,
    UnsupportedModelError,
)
from keras_edgeq.nearest import did_you_mean
from keras_edgeq.profiles import load_profile
from keras_edgeq.profiles.formats import checked_formats

ZIP, NUMPY, HDF5 = b"PK\x03\x04", b"\x93NUMPY", b"\x89HDF\r\n\x1a\n"
# HDF5 lets a block of the user's own stand in front, of these sizes.
HDF5_STARTS = (0, 512, 1024, 2048)


def check(args: Namespace) -> None:
    """Raise if an argument of a command cannot be right.

    Raises:
        EdgeqError: the first that is wrong, in the order in which they are typed.
    """
    for name, checks in CHECKS.items():
        value = getattr(args, name, None)
        if value is not None:
            checks(value, args)


def _model(path: str, args: Namespace) -> None:
    where = _existing(path, "model", UnsupportedModelError)
    if where.is_dir():
        if not (where / "saved_model.pb").exists():
            raise UnsupportedModelError(
                f"{path} is a folder, but not a SavedModel: it has no saved_model.pb."
            )
    elif not (_begins(where, ZIP) or any(_begins(where, HDF5, at) for at in HDF5_STARTS)):
        raise UnsupportedModelError(
            f"{path} is neither a .keras file, an .h5 file nor a SavedModel folder, or it is "
            "damaged. Save the model with tf_keras: model.save('model.keras')."
        )


def _sim(path: str, args: Namespace) -> None:
    try:
        _model(path, args)
    except UnsupportedModelError as error:
        raise EdgeqError(str(error).replace("No such model", "No such sim")) from None


def _sims(paths: list[str], args: Namespace) -> None:
    for path in paths:
        _sim(path, args)


def _max_drop(drop: float, args: Namespace) -> None:
    if not drop >= 0.0:
        raise EdgeqError(f"--max-drop is {drop:g}; it must be 0 or more.")


def _artifact(path: str, args: Namespace) -> None:
    _existing(path, "artifact", EdgeqError)


def _artifacts(paths: list[str], args: Namespace) -> None:
    for path in paths:
        _artifact(path, args)


def _data(path: str, args: Namespace) -> None:
    where = _existing(path, "file of inputs", CalibrationDataError)
    if where.is_dir() and "preprocess" in args:
        _images(path, args)
        return
    if where.is_dir() or not (_begins(where, ZIP) or _begins(where, NUMPY)):
        raise CalibrationDataError(
            f"{path} is not an .npy or .npz file; numpy.savez('inputs.npz', x=array) writes one."
        )


def _images(path: str, args: Namespace) -> None:
    if args.preprocess is None:
        raise CalibrationDataError(
            f"{path} is a folder of images: say with --preprocess MODULE:FUNCTION what training "
            "did to them. Ranges of images that were preprocessed in another way are wrong."
        )
    if getattr(args, "metric", None) is not None:
        raise EdgeqError("A folder of images has no labels for --metric; give --score.")


def _preprocess(named: str, args: Namespace) -> None:
    given = [getattr(args, name, None) for name in ("data", "calibration", "verify")]
    files = [path for path in given if path is not None]
    if not any(Path(path).is_dir() for path in files):
        held = " and ".join(f"{path} holds inputs as the model takes them" for path in files)
        raise EdgeqError(f"--preprocess is for folders of images; {held or 'none is given'}.")


def _metric(name: str, args: Namespace) -> None:
    if getattr(args, "score", None) is not None:
        raise EdgeqError("Give --metric or --score, not both.")


def _profile(name: str, args: Namespace) -> None:
    load_profile(name)


def _formats(formats: list[str], args: Namespace) -> None:
    checked_formats(formats, load_profile(args.profile))


def _precision(asked: list[tuple[str, str]], args: Namespace) -> None:
    for _, name in asked:
        load_profile(args.profile).of_kind(name, None)


def _input_range(ends: list[float], args: Namespace) -> None:
    low, high = ends
    if not low < high:
        raise EdgeqError(
            f"--input-range is LOW and HIGH, LOW the smaller one, not {low:g} {high:g}."
        )
    if args.calibration is not None:
        raise EdgeqError("--input-range is for quantizing without data: give it or --calibration.")


def _folder(path: str, args: Namespace) -> None:
    where = Path(path)
    if where.exists() and not where.is_dir():
        raise ExportError(f"Cannot write into {path}: it is a file, not a folder.")
    _writable(path, where if where.exists() else where.parent)


def _file(path: str, args: Namespace) -> None:
    if Path(path).is_dir():
        raise ExportError(f"Cannot write {path}: it is a folder.")
    _writable(path, Path(path).parent)


def _writable(path: str, folder: Path) -> None:
    """Raise unless something can be made in the nearest folder there is."""
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise ExportError(f"Cannot write {path}: {folder} is a file.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ExportError(f"Cannot write {path}: no permission in {folder}.")


def _existing(path: str, what: str, error: type[EdgeqError]) -> Path:
    """Return a path that exists and is a file or folder that can be read."""
    where = Path(path)
    try:
        exists = where.exists()
    except (OSError, ValueError):  # too long, or a null byte
        exists = False
    if not exists:
        raise error(f"No such {what}: {path}.{_beside(where)}")
    if not (where.is_dir() or where.is_file()):
        raise error(f"{path} is neither a file nor a folder.")  # a pipe may never end
    if not os.access(where, os.R_OK):
        raise error(f"Cannot read {path}: no permission.")
    return where


def _beside(path: Path) -> str:
    try:
        return did_you_mean(path.name, [other.name for other in path.parent.iterdir()])
    except (OSError, ValueError):
        return ""


def _begins(path: Path, magic: bytes, at: int = 0) -> bool:
    with path.open("rb") as file:
        file.seek(at)
        return file.read(len(magic)) == magic


CHECKS: dict[str, Callable] = {
    "model": _model,
    "sim": _sim,
    "sims": _sims,
    "max_drop": _max_drop,
    "artifact": _artifact,
    "artifacts": _artifacts,
    "profile": _profile,
    "show": _profile,
    "precision": _precision,
    "formats": _formats,
    "calibration": _data,
    "input_range": _input_range,
    "verify": _data,
    "data": _data,
    "preprocess": _preprocess,
    "metric": _metric,
    "out": _folder,
    "resume": _folder,
    "csv": _file,
    "save": _file,
}
