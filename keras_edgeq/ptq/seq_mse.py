"""`seq_mse`: choose weight ranges by what they do to each layer's outputs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_edgeq.numerics.closed_form import Grid
from keras_edgeq.ptq.layer_visit import LayerVisit, walk_layers
from keras_edgeq.ptq.normal_equations import LeastSquares
from keras_edgeq.ptq.nothing_done import warn_if_no_products
from keras_edgeq.ptq.session import PtqSession
from keras_edgeq.sim.fit import fit_weight
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.spec.encoding import Encoding
from keras_edgeq.streams.store import MEMORY_BYTES


def seq_mse(
    sim: QuantSim,
    data: Any,
    *,
    candidates: int = 20,
    batch_size: int = 32,
    steps: int | None = None,
    memory_bytes: int = MEMORY_BYTES,
    cache_folder: str | Path | None = None,
    progress: bool = True,
) -> QuantSim:
    """Return a sim whose weight ranges leave each layer's outputs the least squared error.

    Layers are taken in graph order. A layer's inputs are those of the sim so far; its outputs are
    compared with those of the float layer on float inputs, per output channel if the target has
    scales per channel. Each weight is still rounded to the nearest. Weights and biases stay as they
    are; the ranges are frozen. `gptq` chooses integers as well, and needs no such ranges.

    Args:
        sim: a calibrated sim; it is not changed.
        data: calibration inputs in any form `quantize` takes.
        candidates: ranges tried, evenly spaced up to the greatest weight.
        batch_size: for arrays and files.
        steps: read at most that many batches.
        memory_bytes: activations are kept in memory up to that size, and in files past it.
        cache_folder: where those files lie meanwhile; None takes the system's temporary folder.
        progress: show a progress bar.

    Raises:
        ValueError: no candidates.
        CalibrationDataError: the data is empty, does not fit the model or holds NaN.
        EdgeqError: the sim is not calibrated, or the disk is full.

    Warns:
        QuantizationWarning: no layer has integer weights that it could work on.

    Example:
        >>> better = eq.seq_mse(sim, data, progress=False)

    Reference:
        Sequential MSE of AIMET 2; the loss is summed up in normal equations here, so that a
        candidate costs no forward pass.
    """
    if candidates < 1:
        raise ValueError(f"candidates is {candidates}; it must be at least 1.")
    with PtqSession(sim, data, batch_size, steps, memory_bytes, cache_folder, progress) as session:
        warn_if_no_products("seq_mse", sim)
        session.calibrate(float_weights=True)
        for visit in walk_layers(session, "seq_mse"):
            visit.measure()
            start = _over_all(visit)
            visit.assign_scale(_best_gain(visit, start, candidates), start)
            session.freeze(visit.layer)
        session.calibrate()
        session.work.reference = sim.reference
    return session.work


def _over_all(visit: LayerVisit) -> Encoding:
    """Return the kernel's grid, with blocks that reach over all of their weights."""
    spec = visit.encoding.spec
    if not spec.block_size:
        return visit.encoding
    return fit_weight(replace(spec, rule="minmax"), visit.form.kernel(visit.float_columns))


def _best_gain(visit: LayerVisit, start: Encoding, candidates: int) -> NDArray:
    """Return what gives the scales of a grid the least error, `[groups, 1, outputs]`."""
    columns, grid = visit.float_columns, visit.grid(start)
    problem = visit.equations.least_squares(centered=False)
    per_channel = bool(start.spec.axes)
    widest = grid.scale
    if not start.spec.block_size:
        limits = np.maximum(columns / grid.high, columns / np.minimum(grid.low, -1e-9))
        widest = np.max(limits, axis=1, keepdims=True)
        if not per_channel:
            widest = np.full_like(widest, widest.max())
        # A channel of zeros has no range to choose.
        widest = np.where(widest > 0.0, widest, grid.scale)
    shares = np.arange(1, candidates + 1) / candidates
    errors = np.stack([_error(problem, columns, replace(grid, scale=widest * s)) for s in shares])
    if not per_channel:
        errors = np.broadcast_to(errors.sum((1, 2), keepdims=True), errors.shape)
    return (widest / grid.scale)[:, :1] * shares[np.argmin(errors, axis=0)][:, None, :]


def _error(problem: LeastSquares, columns: NDArray, grid: Grid) -> NDArray:
    return problem.loss(grid.nearest(columns))
