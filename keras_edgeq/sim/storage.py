"""Keep a sim on disk: the model as Keras writes it, its calibration statistics beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tf_keras

from keras_edgeq.errors import EdgeqError
from keras_edgeq.files import write_whole
from keras_edgeq.prepare.load_guard import bounded_by_file
from keras_edgeq.prepare.model_file import READ_ERRORS, refuse_code, saved_config
from keras_edgeq.sim.calibrate import check_statistics
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.sim.reference import load_reference, save_reference
from keras_edgeq.sim.stats import CalibrationStats

H5_SUFFIXES = (".h5", ".hdf5")
FILE_SUFFIXES = (".keras", *H5_SUFFIXES)


def save_sim(sim: QuantSim, path: str | Path) -> None:
    """Save a sim and the statistics of its calibration, each file whole or not at all.

    Args:
        sim: what `keras_edgeq.quantize` returned, trained or not.
        path: ends in `.keras` or `.h5`; any other path becomes a SavedModel folder. The statistics
            go beside it, `sim.keras` to `sim.stats.npz`; a sim without any removes that file. So do
            the float parameters of a sim whose weights `gptq` or `adaround` rounded, to
            `sim.float.npz`.

    Raises:
        EdgeqError: `sim` is no sim.
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
    options = {} if path.suffix in FILE_SUFFIXES else {"save_format": "tf"}
    write_whole(path, lambda target: sim.save(str(target), **options))
    if sim.stats is None:
        stats_path(path).unlink(missing_ok=True)
    else:
        sim.stats.save(stats_path(path))
    if sim.reference is None:
        reference_path(path).unlink(missing_ok=True)
    else:
        save_reference(sim, reference_path(path))


def load_sim(path: str | Path, *, safe_mode: bool = True, **options: Any) -> QuantSim:
    """Load a sim with its statistics; no `custom_objects` are needed for what quantize adds.

    `sim.stats` is None where no statistics lie beside the file.

    Args:
        path: what `save_sim` or `sim.save` wrote.
        safe_mode: refuse a file that holds Python code (Lambda layers). A SavedModel folder runs
            the TensorFlow graph in it besides: load those you trust.
        options: as for `tf_keras.models.load_model`: `custom_objects`, `compile`.

    Raises:
        EdgeqError: the file is missing or unreadable, holds code, or is no sim.
        CalibrationDataError: the statistics beside it are damaged, or those of another sim.

    Example:
        >>> eq.save_sim(sim, "sim.keras")
        >>> eq.load_sim("sim.keras").stats
        <CalibrationStats: 3 tensors, 64 samples>
    """
    path = Path(path)
    try:
        if safe_mode:
            refuse_code(
                path,
                "Allow it with safe_mode=False or --allow-lambda",
                options.get("custom_objects"),
            )
        else:
            saved_config(path)
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


def _beside(path: Path, what: str) -> Path:
    stem = path.stem if path.suffix in FILE_SUFFIXES else path.name
    return path.with_name(f"{stem}.{what}.npz")


def _check_sim(sim: Any, where: str) -> None:
    if not isinstance(sim, QuantSim):
        raise EdgeqError(
            f"{where}: got {type(sim).__name__} {getattr(sim, 'name', '')!r}, which is no sim; a "
            "sim is what keras_edgeq.quantize(model, calibration) returns."
        )
