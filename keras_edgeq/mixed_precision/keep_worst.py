"""`keep_worst`: a wider precision for the layers that lose most, without a search."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from keras_edgeq.analysis.sensitivity import loss_of
from keras_edgeq.errors import SearchError
from keras_edgeq.measure.groups import SearchSpace, find_groups
from keras_edgeq.measure.precision_study import PrecisionStudy
from keras_edgeq.profiles.precision import FLOAT
from keras_edgeq.sim.judge import say
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.streams.store import MEMORY_BYTES


def keep_worst(
    sim: QuantSim,
    data: Any,
    percent: float = 10.0,
    precision: str = "W8A16",
    *,
    batch_size: int = 32,
    steps: int | None = None,
    memory_bytes: int = MEMORY_BYTES,
    resume: str | Path | None = None,
    progress: bool = True,
) -> QuantSim:
    """Return a sim whose most sensitive layers compute in a wider precision.

    Each layer is measured alone in the float model, at the precision it has. The given share of the
    layers that have a kernel of `precision`, rounded up, gets it. Layers without weights follow
    their inputs.

    Args:
        sim: a calibrated sim of `keras_edgeq.quantize` with its statistics; it is not changed.
        data: inputs in any form `quantize` takes; labels are not used. 50 to 500 samples.
        percent: share of the layers, above 0 and up to 100.
        precision: of these layers, such as `"W8A16"` or `"FP16"`.
        batch_size: for arrays and files.
        steps: read at most that many batches.
        memory_bytes: activations are kept in memory up to that size, and in files past it.
        resume: folder of earlier measurements: the same call goes on from there.
        progress: show a progress bar.

    Raises:
        SearchError: the share is out of range, or all layers that could have the precision do.
        ProfileError: the target has no such precision, or none of the layers a kernel for it.
        CalibrationDataError: the data is empty, does not fit the model or holds NaN; the sim has
            no statistics.

    Example:
        >>> better = eq.keep_worst(sim, data, percent=10, precision="W8A16", progress=False)
        >>> print(better.record.plan.diff(sim.record.plan).layers[0].before)
        W8A16

    Reference:
        "Lite mixed precision" of AIMET's documentation: the SQNR of each layer alone decides.
    """
    if not 0.0 < percent <= 100.0:
        raise SearchError(f"percent must be above 0 and at most 100, not {percent!r}.")
    kernels = sim.record.plan.kernels
    present = {g.name: kernels[g.name].precision for g in find_groups(sim, [precision, FLOAT])}
    space = SearchSpace(sim, [*present.values(), precision, FLOAT])
    with PrecisionStudy(
        space, data, "nearest", batch_size, steps, memory_bytes, resume, progress
    ) as study:
        groups = study.grids.groups
        floats = {group.name: FLOAT for group in groups}
        open_groups = [
            group.name
            for group in groups
            if precision in group.candidates and present[group.name] not in (precision, FLOAT)
        ]
        if not open_groups:
            raise SearchError(f"{sim.name!r} has no layer left that could get {precision}.")
        choices = [{**floats, name: present[name]} for name in open_groups]
        losses = study.evaluator.measure(choices, floats, "keep_worst")
    ranked = sorted(
        zip(open_groups, losses, strict=True), key=lambda pair: -loss_of(pair[1], "sqnr")
    )
    worst = ranked[: math.ceil(percent / 100.0 * len(ranked))]
    made = space.sim_of({**present, **{name: precision for name, _ in worst}})
    say(made)
    return made
