"""Inputs and labels in `.npy` and `.npz` files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from keras_edgeq.errors import CalibrationDataError
from keras_edgeq.sim.npz import READ_ERRORS, open_arrays

# Data that deflates to a hundredth is all but constant.
MOST_BYTES = 64_000_000
MOST_INFLATION = 100
# What labels are called.
LABELS = "y"


def read_inputs(path: Path, names: list[str], labels: bool = False) -> Any:
    """Return the array of a file, or its arrays by input.

    Args:
        path: of the file.
        names: of the inputs.
        labels: return `(inputs, labels)` where an `.npz` file has labels.

    Raises:
        CalibrationDataError: the file is missing, damaged or no such file, or has no such arrays.
    """
    try:
        with open_arrays(path, MOST_BYTES + MOST_INFLATION * path.stat().st_size) as loaded:
            if isinstance(loaded, np.ndarray):
                return loaded
            keys = _keys(path, loaded.files, names)
            inputs = {name: loaded[key] for name, key in keys.items()}
            has_labels = labels and LABELS in loaded.files and LABELS not in keys.values()
            return (inputs, loaded[LABELS]) if has_labels else inputs
    except CalibrationDataError:
        raise
    except READ_ERRORS as error:
        raise CalibrationDataError(f"Cannot read {path} as .npy or .npz: {error}") from None


def _keys(path: Path, keys: list[str], names: list[str]) -> dict[str, str]:
    """Return which array of an `.npz` file feeds which input."""
    if set(names) <= set(keys):
        return {name: name for name in names}
    if len(names) == 1 and ("x" in keys or len(keys) == 1):
        return {names[0]: "x" if "x" in keys else keys[0]}
    raise CalibrationDataError(
        f"{path} holds arrays {keys}; the model's inputs are {names}. Name the arrays so"
        + (" (or 'x')." if len(names) == 1 else ".")
    )
