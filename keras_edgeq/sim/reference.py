"""The float parameters of a sim whose weights were rounded for good."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_edgeq.errors import EdgeqError
from keras_edgeq.sim.freeze import copy_sim
from keras_edgeq.sim.npz import READ_ERRORS, open_arrays
from keras_edgeq.sim.quant_sim import QuantSim

# What float32 leaves of a product of a scale and an integer, in steps.
ON_GRID = 1e-2


def float_parameters(sim: QuantSim) -> dict[str, np.ndarray]:
    """Return the parameters of the quantized layers before any rounding, `"conv1/kernel"` -> array.

    Those in `sim.reference` where a technique rounded the weights; else what the sim has now, as
    also after training.
    """
    if sim.reference is not None and not _was_trained(sim):
        return dict(sim.reference)
    return {name: variable.numpy() for name, variable in _variables(sim).items()}


def float_form(sim: QuantSim) -> QuantSim:
    """Return a sim of the same graph whose layers hold the float parameters."""
    if sim.reference is None or _was_trained(sim):
        return sim
    copy = copy_sim(sim)
    variables = _variables(copy)
    for name, values in sim.reference.items():
        variables[name].assign(values)
    return copy


def write_reference(sim: QuantSim, path: Path) -> None:
    """Write the float parameters as `.npz`."""
    arrays: Mapping[str, Any] = sim.reference or {}
    with path.open("wb") as file:
        np.savez(file, **arrays)


def load_reference(sim: QuantSim, path: Path) -> dict[str, np.ndarray]:
    """Read what `write_reference` wrote.

    Raises:
        EdgeqError: the file is damaged, or belongs to another sim.
    """
    variables = _variables(sim)
    room = 100_000 + sum(4 * int(v.shape.num_elements()) + 1_000 for v in variables.values())
    try:
        with open_arrays(path, room) as data:
            arrays = {name: data[name] for name in data.files}
    except READ_ERRORS as error:
        raise EdgeqError(f"{path} holds no float parameters: {error}") from None
    for name, variable in variables.items():
        values = arrays.get(name)
        if values is None or values.shape != tuple(variable.shape):
            raise EdgeqError(f"{path} belongs to another sim: it has no {name} of that shape.")
        if values.dtype != np.float32 or not np.isfinite(values).all():
            raise EdgeqError(f"{path} is damaged: {name} holds no float32 numbers.")
    return {name: arrays[name] for name in variables}


def _was_trained(sim: QuantSim) -> bool:
    """Tell whether a kernel is neither the float one nor on its grid: it moved since."""
    assert sim.reference is not None  # asked before
    for name, layer in sim.quantized_layers().items():
        kernel = getattr(layer.layer, layer.kernel_name).numpy()
        if np.array_equal(kernel, sim.reference[f"{name}/{layer.kernel_name}"]):
            continue
        encoding = layer.quantizers[layer.kernel_name].encoding
        assert encoding is not None  # weights were rounded
        steps = kernel / encoding.unit(kernel.shape)
        if np.max(np.abs(steps - np.rint(steps)), initial=0.0) > ON_GRID:
            return True
    return False


def _variables(sim: QuantSim) -> dict:
    found = {}
    for name, layer in sim.quantized_layers().items():
        for param in (*layer.quantizers, "bias"):
            variable = getattr(layer.layer, param, None)
            if variable is not None:
                found[f"{name}/{param}"] = variable
    return found
