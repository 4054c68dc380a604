"""AdaRound: learn for each weight whether it is rounded up or down."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from keras_edgeq.errors import EdgeqError
from keras_edgeq.ptq.adaround.blocks import block_units, single_units
from keras_edgeq.ptq.adaround.reconstruct import Settings
from keras_edgeq.ptq.adaround.unit_files import UnitFiles
from keras_edgeq.ptq.adaround.unit_walk import UnitReport, UnitWalk
from keras_edgeq.ptq.adaround.unit_work import Sampling
from keras_edgeq.ptq.layer_visit import has_free_scales, is_product
from keras_edgeq.ptq.nothing_done import warn_if_no_products
from keras_edgeq.ptq.session import PtqSession
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.streams.store import MEMORY_BYTES, StoredBatches
from keras_edgeq.streams.stream import Stream, float_call, rounded_call

UNITS = {"layer": single_units, "block": block_units}
# How far the loop begins at the given rounding (1) or at the float weight (0).
TRUST = {"gptq": 0.9, "nearest": 0.0}


def adaround(
    sim: QuantSim,
    data: Any,
    *,
    unit: str = "layer",
    iterations: int = 10_000,
    regularization: float = 0.01,
    beta: tuple[float, float] = (20.0, 2.0),
    warm_start: float = 0.2,
    learning_rate: float = 1e-3,
    batch_size: int = 32,
    steps: int | None = None,
    qdrop: float = 0.0,
    start: str = "gptq",
    early_stop: bool = True,
    memory_bytes: int = MEMORY_BYTES,
    cache_folder: str | Path | None = None,
    resume: str | Path | None = None,
    seed: int = 0,
    progress: bool = True,
    on_unit: Callable[[UnitReport], None] | None = None,
) -> QuantSim:
    """Return a sim whose weights are rounded so that each unit keeps its float output.

    Layers are taken in graph order. The input of each comes from the sim, with all earlier weights
    rounded and activations quantized. The output it is fitted to comes from the float model, behind
    the activation that follows. Biases are fitted after the rounding. At the end the activations
    are calibrated again. Layers that are not matrix products stay rounded to nearest. A shared
    layer is rounded for its first call. `sim.record.rounded` tells how each layer ended.

    Args:
        sim: a calibrated sim; it is not changed.
        data: representative inputs, as in `quantize`; 100 to 1000 samples.
        unit: `"layer"`, or `"block"` to round the layers of residual blocks, inverted residuals and
            depthwise separable convolutions together.
        iterations: the most per unit.
        regularization: weight of the penalty on weights between up and down.
        beta: exponent of the penalty, first and last.
        warm_start: share of the iterations without penalty.
        learning_rate: of Adam; ten times as much with `early_stop`.
        batch_size: samples per iteration, drawn again each time.
        steps: read at most that many batches.
        qdrop: probability with which an element of an activation inside a block is not quantized.
        start: `"gptq"` begins at the closed-form rounding, with scales and biases that fit it;
            `"nearest"` at the float weights.
        early_stop: end a unit once all its weights are decided, and shorten the schedule as far as
            the error allows. If False, every unit takes all iterations.
        memory_bytes: activations are kept in memory up to that size, and in files past it.
        cache_folder: where those files lie meanwhile; None takes the system's temporary folder.
        resume: folder for the units done so far; a second call with it goes on from there, and ends
            with the same result.
        seed: of the samples drawn.
        progress: show a progress bar.
        on_unit: called with the `UnitReport` of each unit.

    Raises:
        CalibrationDataError: the data is empty, does not fit the model or holds NaN.
        EdgeqError: the sim is not calibrated, an option is out of range, the disk is full, or
            `resume` belongs to another run.

    Warns:
        QuantizationWarning: no layer has integer weights that it could work on.

    Example:
        >>> sim = eq.quantize(model, data, precision="W4A8", progress=False)
        >>> better = eq.adaround(sim, data, iterations=50, progress=False)

    Reference:
        Nagel et al. 2020, arXiv:2004.10568 (AdaRound). Li et al. 2021, arXiv:2102.05426 (blocks).
        Wei et al. 2022, arXiv:2203.05740 (QDrop).
    """
    settings = Settings(
        iterations, regularization, beta, warm_start, learning_rate, early_stop, start, seed
    )
    _check(settings, unit, qdrop, batch_size)
    halves = memory_bytes // 2
    with PtqSession(sim, data, batch_size, steps, halves, cache_folder, progress) as session:
        options = (settings, unit, qdrop, batch_size, memory_bytes)
        files = UnitFiles(
            resume, "" if resume is None else _fingerprint(options, sim, session.source)
        )
        warn_if_no_products("adaround", sim)
        session.calibrate(float_weights=True)
        tell = on_unit or (lambda report: None)
        for layer in session.work.quantized_layers().values():
            if not is_product(layer):
                tell(UnitReport((layer.name,), 0, "not a matrix product"))
        walk = UnitWalk(
            Stream(session.exact, float_call, session.source, session.store),
            Stream(session.work, rounded_call, session.source, session.store),
            settings,
            Sampling(halves, batch_size, qdrop, TRUST[start]),
            lambda layer: has_free_scales(sim, layer),
        )
        for number, one in enumerate(session.bar(UNITS[unit](session.work), "adaround", "unit")):
            walk.advance(one)
            name = f"unit-{number:03d}"
            done = files.read(name)
            if done is None:
                report = walk.round(one, number)
                files.write(name, walk.values(one, report))
            else:
                report = walk.take(one, done)
            for layer in report.layers:
                session.done(session.work.quantized_layers()[layer], f"adaround, {report.how}")
            tell(report)
        session.calibrate()
    return session.work


def _fingerprint(options: tuple, sim: QuantSim, source: StoredBatches) -> str:
    digest = hashlib.sha256(repr(options).encode())
    for array in (*sim.get_weights(), *(part for batch in source for part in batch)):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _check(settings: Settings, unit: str, qdrop: float, batch_size: int) -> None:
    wrong = {
        f"unit={unit!r}; it must be 'layer' or 'block'": unit not in UNITS,
        f"start={settings.start!r}; it must be 'gptq' or 'nearest'": settings.start not in TRUST,
        f"iterations={settings.iterations}; it must be at least 1": settings.iterations < 1,
        f"warm_start={settings.warm_start}; it must be from 0 to below 1": not (
            0.0 <= settings.warm_start < 1.0
        ),
        f"qdrop={qdrop}; it must be a probability, 0 to 1": not 0.0 <= qdrop <= 1.0,
        f"batch_size={batch_size}; it must be at least 1": batch_size < 1,
        f"qdrop={qdrop} with unit='layer'; only blocks have activations inside": (
            qdrop > 0.0 and unit == "layer"
        ),
    }
    for message, is_wrong in wrong.items():
        if is_wrong:
            raise EdgeqError(f"adaround: {message}.")
