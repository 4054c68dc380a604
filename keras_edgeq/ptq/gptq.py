"""`gptq`: round the weights of each layer so that its outputs change least."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_edgeq.numerics.closed_form import descend, round_forward
from keras_edgeq.ptq.layer_visit import LayerVisit, walk_layers
from keras_edgeq.ptq.nothing_done import warn_if_no_products
from keras_edgeq.ptq.session import PtqSession
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.streams.store import MEMORY_BYTES

# As in the paper; more where the data says that it knows less.
LEAST_DAMP = 0.01
# A scale moves by what a rounding can be wrong, not further.
GAINS = (0.5, 2.0)


def gptq(
    sim: QuantSim,
    data: Any,
    *,
    batch_size: int = 32,
    steps: int | None = None,
    memory_bytes: int = MEMORY_BYTES,
    cache_folder: str | Path | None = None,
    progress: bool = True,
) -> QuantSim:
    """Return a sim whose weights are rounded so that each layer's outputs change least.

    Layers are taken in graph order. The weights of each are fitted so that the layer, on its inputs
    in the sim so far, gives the outputs that the float layer gives on float inputs. They are fitted
    in real numbers first, then on the grid: each rounding error is moved onto the weights that are
    still free, and single weights are moved as long as that helps. Scales per channel and the bias
    are then refitted. Held-out halves of the data decide how far the fit may leave the given
    weights. This is done for Dense, Conv1D/2D, depthwise and transposed convolutions; other layers
    with weights keep them rounded to the nearest. `sim.record.rounded` names the layers.

    Afterwards the weights lie on their grid, and their scales are frozen; `reference` keeps the
    float weights. Activations are calibrated again on the same data.

    Args:
        sim: a calibrated sim of `keras_edgeq.quantize`; it is not changed.
        data: calibration inputs in any form `quantize` takes; labels are not used. 100 to 1 000
            samples.
        batch_size: for arrays and files.
        steps: read at most that many batches.
        memory_bytes: activations are kept in memory up to that size, and in files past it.
        cache_folder: where those files lie meanwhile; None takes the system's temporary folder.
        progress: show a progress bar.

    Raises:
        CalibrationDataError: the data is empty, does not fit the model or holds NaN.
        EdgeqError: the sim is not calibrated, or the disk is full.

    Warns:
        QuantizationWarning: no layer has integer weights that it could work on.

    Example:
        >>> sim = eq.quantize(model, data, precision="W4A8", progress=False)
        >>> better = eq.gptq(sim, data, progress=False)
        >>> dict(better.record.rounded)
        {'conv': 'gptq', 'head': 'gptq'}

    Reference:
        Frantar et al. 2022, "GPTQ", arXiv:2210.17323; coordinate descent: Behdin et al. 2023,
        arXiv:2309.01885. The asymmetric target follows Nagel et al. 2020, arXiv:2004.10568,
        equation 25.
    """
    with PtqSession(sim, data, batch_size, steps, memory_bytes, cache_folder, progress) as session:
        warn_if_no_products("gptq", sim)
        session.calibrate(float_weights=True)
        for visit in walk_layers(session, "gptq"):
            visit.measure()
            round_layer(visit)
            session.done(visit.layer, "gptq")
        session.calibrate()
    return session.work


def round_layer(visit: LayerVisit) -> NDArray:
    """Give a layer its integers, scales and bias from the equations of a visit.

    Returns:
        The columns in real numbers that fit best, which the integers stand for.
    """
    columns, problem = visit.float_columns, visit.equations.least_squares()
    wanted = problem.damped(columns, visit.equations.choose_damp(columns)).solve()
    shrunk = problem.damped(columns, np.maximum(visit.equations.shrinkage(), LEAST_DAMP))
    grid = visit.grid()
    rounded = round_forward(wanted, shrunk.gram, grid)
    rounded = descend(wanted, rounded, shrunk.gram, grid)
    if visit.free_scales:
        gain = np.clip(shrunk.gain(rounded), *GAINS)
        visit.assign_scale(gain)
        rounded = rounded * gain
    visit.assign(rounded, problem.bias(rounded))
    return wanted
