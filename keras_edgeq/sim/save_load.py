"""Keep a sim on disk: the model as Keras writes it, its calibration statistics beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import tf_keras

from keras_edgeq.errors import CalibrationDataError, EdgeqError, QuantizationWarning, warn
from keras_edgeq.files import sha256_of
from keras_edgeq.files.file_set import recover, staged
from keras_edgeq.graph.keras_file import FILE_SUFFIXES, save_keras
from keras_edgeq.prepare.load_guard import bounded_by_file
from keras_edgeq.prepare.model_file import READ_ERRORS, checked_config
from keras_edgeq.sim.derive import check_statistics
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.sim.reference import load_reference, write_reference
from keras_edgeq.sim.stats import CalibrationStats


def save_sim(sim: QuantSim, path: str | Path) -> None:
    """Save a sim and the statistics of its calibration: all files complete, or none.

    The model names the digests of the files beside it, so `load_sim` can tell them from others.

    Args:
        sim: what `keras_edgeq.quantize` returned, trained or not.
        path: ends in `.keras` or `.h5`; any other path becomes a SavedModel folder. The statistics
            of `sim.keras` are written to `sim.stats.npz` beside it; a sim without statistics
            removes that file. The float parameters of a sim whose weights `gptq` or `adaround`
            rounded are written to `sim.float.npz` in the same way.

    Raises:
        EdgeqError: `sim` is not a sim.
        ExportError: the place cannot be written.

    Example:
        >>> import tempfile, numpy as np, tf_keras, keras_edgeq as eq
        >>> model = tf_keras.Sequential([tf_keras.Input((4,)), tf_keras.layers.Dense(2)])
        >>> sim = eq.quantize(model, np.random.rand(32, 4), progress=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     eq.save_sim(sim, f"{folder}/sim.keras")
        ...     eq.load_sim(f"{folder}/sim.keras").stats.samples
        32
    """
    _check_sim(sim, "save_sim")
    path = Path(path)
    beside = {name: where(path).name for name, where in PARTS.items()}
    with staged(path.parent, path.name, stale=beside.values) as folder:
        if sim.stats is not None:
            sim.stats.write(folder / beside["stats"])
        if sim.reference is not None:
            write_reference(sim, folder / beside["float"])
        files = {name: folder / file for name, file in beside.items()}
        parts = {name: sha256_of(file) for name, file in files.items() if file.exists()}
        with _naming(sim, parts):
            save_keras(sim, folder / path.name)


@contextmanager
def _naming(sim: QuantSim, parts: Mapping[str, str] | None) -> Iterator[None]:
    """Let what is saved in the context name the parts that belong to it."""
    record = sim.record
    sim.keep(parts=parts)
    try:
        yield
    finally:
        sim.record = record


def load_sim(path: str | Path, *, safe_mode: bool = True, **options: Any) -> QuantSim:
    """Load a sim with its statistics; the layers of quantize need no `custom_objects`.

    `sim.stats` is None if no statistics lie beside the file. A save that was killed when all its
    files were complete is finished first.

    Args:
        path: a file or folder that `save_sim` or `sim.save` wrote.
        safe_mode: refuse a file that holds Python code (Lambda layers) or names things that are not
            known to only compute, and a SavedModel whose graph reaches files. False trusts the
            file.
        options: as for `tf_keras.models.load_model`: `custom_objects`, `compile`.

    Raises:
        EdgeqError: the file is missing or unreadable, holds code, or is not a sim; or the float
            parameters beside it belong to another sim, or to this one at another time.
        CalibrationDataError: the statistics beside it are damaged, or those of another sim.

    Warns:
        QuantizationWarning: a file that `save_sim` wrote beside the model is missing.

    Example:
        >>> eq.save_sim(sim, "sim.keras")
        >>> eq.load_sim("sim.keras").stats
        <CalibrationStats: 3 tensors, 64 samples>
    """
    path = Path(path)
    with suppress(OSError):  # where nothing can be written, parts that do not fit are refused below
        recover(path.parent, path.name)
    try:
        way_out = "Allow it with safe_mode=False or --allow-lambda" if safe_mode else None
        training = options.get("compile", True)
        checked_config(path, options.get("custom_objects"), way_out, training)
        if path.suffix == ".keras":
            options["safe_mode"] = safe_mode
        with bounded_by_file(path):
            sim = tf_keras.models.load_model(str(path), **options)
    except EdgeqError:
        raise
    except READ_ERRORS as error:
        # Keras answers an unknown class with "'str' object is not callable".
        hint = " Layers of your own go into custom_objects={name: class}."
        raise EdgeqError(
            f"Cannot load {path} as a sim: {error}{hint if isinstance(error, TypeError) else ''}"
        ) from error
    _check_sim(sim, str(path))
    _check_parts(sim, path)
    if stats_path(path).exists():
        sim.stats = CalibrationStats.load(stats_path(path))
        check_statistics(sim, sim.stats, str(stats_path(path)))
    if reference_path(path).exists():
        sim.reference = load_reference(sim, reference_path(path))
    return sim


def stats_path(path: Path) -> Path:
    """Return where the statistics of a saved sim lie."""
    return _beside(path, "stats")


def reference_path(path: Path) -> Path:
    """Return where the float parameters of a saved sim lie, if its weights were rounded."""
    return _beside(path, "float")


PARTS = {"stats": stats_path, "float": reference_path}


def _check_parts(sim: QuantSim, path: Path) -> None:
    """Refuse files beside a sim that `save_sim` did not write together with it."""
    parts = sim.record.parts
    if parts is None:
        return
    sim.keep(parts=None)
    for name, where in PARTS.items():
        file, wanted = where(path), parts.get(name)
        try:
            found = sha256_of(file) if file.exists() else None
        except OSError as error:
            raise EdgeqError(f"Cannot read {file}: {error.strerror}.") from None
        if found is None and wanted is not None:
            warn(
                f"{file} is missing: {path.name} was saved with it. {_LOST[name]} Put it back, or "
                "save the sim again to go on without it.",
                QuantizationWarning,
            )
        elif found != wanted:
            raise _STRANGERS[name](
                f"{file} belongs to another sim, or to another state of this one: it is not what "
                f"save_sim wrote with {path.name}. Put the right file there, or move this one away."
            )


_STRANGERS: dict[str, type[EdgeqError]] = {"stats": CalibrationDataError, "float": EdgeqError}
_LOST = {
    "stats": "Without the statistics no range can be chosen again.",
    "float": "Without the float parameters the rounded weights are the float model's.",
}


def _beside(path: Path, what: str) -> Path:
    stem = path.stem if path.suffix in FILE_SUFFIXES else path.name
    return path.with_name(f"{stem}.{what}.npz")


def _check_sim(sim: Any, where: str) -> None:
    if not isinstance(sim, QuantSim):
        raise EdgeqError(
            f"{where}: got {type(sim).__name__} {getattr(sim, 'name', '')!r}, which is not a sim. "
            "keras_edgeq.quantize(model, calibration) returns one."
        )
