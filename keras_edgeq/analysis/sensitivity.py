"""`sensitivity`: what each layer loses at each precision."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_edgeq.analysis.sensitivity_report import SensitivityReport
from keras_edgeq.errors import EdgeqError
from keras_edgeq.measure.gradient import measure_gradient
from keras_edgeq.measure.groups import SearchSpace
from keras_edgeq.measure.output_loss import OutputLoss
from keras_edgeq.measure.precision_study import PrecisionStudy, Score
from keras_edgeq.nearest import did_you_mean
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.streams.store import MEMORY_BYTES

MEASURES = ("sqnr", "kl", "gradient")


def sensitivity(
    sim: QuantSim,
    data: Any,
    candidates: Sequence[str],
    *,
    baseline: str | None = None,
    measure: str | Score = "sqnr",
    rounding: str = "nearest",
    batch_size: int = 32,
    steps: int | None = None,
    memory_bytes: int = MEMORY_BYTES,
    resume: str | Path | None = None,
    jobs: int | None = None,
    progress: bool = True,
) -> SensitivityReport:
    """Measure what a model loses when one layer alone computes in another precision.

    A layer's inputs have its precision: a tensor made in more bits is rounded again in front of it.
    Sums, pools and concatenations follow their inputs. The network in front of a layer is computed
    once for all its candidates.

    Args:
        sim: a calibrated sim of `keras_edgeq.quantize`; it is not changed.
        data: inputs in any form `quantize` takes; labels are not used. 50 to 500 samples.
        candidates: names of precisions, such as `["W4A8", "W8A8"]`.
        baseline: precision of all other layers, `"FP32"` among them; None takes the most precise
            candidate.
        measure: `"sqnr"` (noise power over signal power of the outputs), `"kl"` (KL divergence
            of the classes, in nats), `"gradient"` (an estimate of the first, of all layers in a few
            backward passes, each counted as two passes), or a function of a sim that returns a
            score, higher is better. The named ones need no labels.
        rounding: `"nearest"`, or `"gptq"` to round the weights of each candidate as `gptq` does:
            they are fitted to every second batch and judged on the others.
        batch_size: for arrays and files.
        steps: read at most that many batches.
        memory_bytes: activations are kept in memory up to that size, and in files past it.
        resume: folder of earlier measurements: the same call goes on from there.
        jobs: number of processes that measure; 1 stays in this one. None takes what joblib's
            context says, such as the workers of a cluster under `joblib.parallel_config("dask")`;
            without one, several where they pay, which needs eight cores and minutes of work.
            Losses agree to about 1e-6: other threads add up in another order.
        progress: show progress bars.

    Raises:
        CalibrationDataError: the data is empty, does not fit the model or holds NaN; the sim has
            no statistics.
        ProfileError: the target has no such precision, or none of the layers a kernel for it.
        EdgeqError: the sim is not calibrated or its weights were rounded already, a score is not a
            number, `resume` holds another run, joblib is missing, or a worker failed.

    Example:
        >>> report = eq.analysis.sensitivity(sim, data, ["W4A8", "W8A8"], progress=False)
        >>> print(report)
        Loss (sqnr) of one group beside W8A8, ...
    """
    if not callable(measure) and measure not in MEASURES:
        raise EdgeqError(
            f"measure must be one of {MEASURES} or a function, not {measure!r}."
            + did_you_mean(measure, MEASURES)
        )
    begin = time.perf_counter()
    names = [*candidates] if baseline is None else [*candidates, baseline]
    asked = tuple(dict.fromkeys(names))
    space = SearchSpace(sim, asked)
    with PrecisionStudy(
        space, data, rounding, batch_size, steps, memory_bytes, resume, progress, jobs
    ) as study:
        base = baseline or study.finest
        report = measure_groups(study, base, measure)
    wanted = [asked.index(name) for name in dict.fromkeys(candidates)]
    return SensitivityReport(
        report.groups,
        tuple(asked[i] for i in wanted),
        report.measure,
        base,
        report.losses[:, wanted],
        report.base_loss,
        report.passes,
        time.perf_counter() - begin,
    )


def measure_groups(study: PrecisionStudy, baseline: str, measure: str | Score) -> SensitivityReport:
    """Measure every group at every candidate of a study beside a baseline."""
    begin = time.perf_counter()
    if measure == "gradient":
        losses, least = measure_gradient(study, baseline)
    else:
        losses, least = _one_by_one(study, baseline, measure)
    name = "score" if callable(measure) else measure
    passes, seconds = study.evaluator.passes, time.perf_counter() - begin
    groups = study.grids.groups
    return SensitivityReport(
        groups, study.candidates, name, baseline, losses, least, passes, seconds
    )


def _one_by_one(
    study: PrecisionStudy, baseline: str, measure: str | Score
) -> tuple[NDArray[np.float64], float]:
    """Return the losses of every group at every candidate, and that of the baseline."""
    groups = study.grids.groups
    base = study.grids.uniform(baseline)
    moves = [
        (row, column, {**base, group.name: name})
        for row, group in enumerate(groups)
        for column, name in enumerate(study.candidates)
        if name in group.candidates
    ]
    choices = [base, *(choice for _, _, choice in moves)]
    if callable(measure):
        values = [-study.score(choice, measure) for choice in choices]
    else:
        totals = study.evaluator.measure(choices, base, "sensitivity")
        values = [loss_of(total, measure) for total in totals]
    losses = np.full((len(groups), len(study.candidates)), np.nan)
    for (row, column, _), value in zip(moves, values[1:], strict=True):
        losses[row, column] = value - values[0]
    return losses, values[0]


def loss_of(total: OutputLoss, measure: str) -> float:
    """Return one measure of a loss; what gradients estimate is the noise."""
    return total.kl if measure == "kl" else total.sqnr
