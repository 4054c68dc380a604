"""`search_mixed_precision`: the precision of each layer, within limits."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_edgeq.analysis.sensitivity import MEASURES
from keras_edgeq.errors import SearchError
from keras_edgeq.measure.groups import SearchSpace
from keras_edgeq.measure.precision_study import PrecisionStudy, Score
from keras_edgeq.mixed_precision.choice_finder import ChoiceFinder
from keras_edgeq.mixed_precision.cost import CostModel
from keras_edgeq.mixed_precision.limits import Limits
from keras_edgeq.mixed_precision.search_result import SearchResult
from keras_edgeq.nearest import did_you_mean
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.streams.store import MEMORY_BYTES


def search_mixed_precision(
    sim: QuantSim,
    data: Any,
    candidates: Sequence[str] = ("W4A8", "W8A8"),
    *,
    size: float | None = None,
    size_bytes: float | None = None,
    bitops: float | None = None,
    activation_memory: float | None = None,
    max_drop: float | None = None,
    score: Score | None = None,
    measure: str = "sqnr",
    rounding: str = "nearest",
    packed: bool = False,
    points: int = 12,
    effort: float = 0.6,
    batch_size: int = 32,
    steps: int | None = None,
    memory_bytes: int = MEMORY_BYTES,
    resume: str | Path | None = None,
    jobs: int | None = None,
    progress: bool = True,
) -> SearchResult:
    """Find the precision of each layer with which the model loses least within limits.

    Each layer is measured at each candidate, with all others at the most precise one. An integer
    program minimizes the sum of these losses. Since they do not quite add up, changes of single
    layers are then measured again beside the best choice, and so on. Nothing is traced again, and
    the network in front of a changed layer is computed once for many choices.

    Give one limit or more, or `max_drop`, which asks for the smallest model within it.

    Args:
        sim: a calibrated sim of `keras_edgeq.quantize` with its statistics; it is not changed.
            Its weights have not been rounded by a technique.
        data: inputs in any form `quantize` takes; labels are not used. 50 to 500 samples.
        candidates: names of precisions of the sim's profile, two or more.
        size: bytes of all weights as the artifact stores them, as a share of one byte per weight.
        size_bytes: the same in bytes.
        bitops: multiply-accumulates times bits of weights times bits of activations, as a share of
            those at 8 bits throughout.
        activation_memory: largest sum of bytes of activations that live at one time, one sample.
        max_drop: most that may be lost against the float model: of `score` where it is given, else
            percent of the top-1 decisions that may differ.
        score: function of a model that returns a number, higher is better: labels come in here.
            Without `max_drop` it decides between the best choices.
        measure: loss to minimize: `"sqnr"`, noise power over signal power of the outputs, or
            `"kl"`, KL divergence of the classes. `"gradient"` minimizes the first, but takes the
            losses of single layers from gradients.
        rounding: `"nearest"`, or `"gptq"`: the weights of each candidate are rounded as `gptq`
            does, fitted to every second batch, before they are judged on the others; those of the
            result are fitted to all.
        packed: count weights with the bits of their grids, as other tools do. Otherwise count them
            as stored: two to a byte up to 4 bits if the artifact has 4-bit weights, else whole
            bytes.
        points: largest number of choices on the Pareto curve.
        effort: limit of forward passes over the data, times groups times candidates.
        batch_size: for arrays and files.
        steps: read at most that many batches.
        memory_bytes: activations are kept in memory up to that size, and in files past it.
        resume: folder of earlier measurements: the same call goes on from there.
        jobs: number of processes that measure; 1 stays in this one. None takes what joblib's
            context says, such as the workers of a cluster under `joblib.parallel_config("dask")`;
            without one, several where they pay, which needs eight cores and minutes of work.
            Losses agree to about 1e-6: other threads add up in another order.
        progress: show progress bars.

    Returns:
        The model with the plan in `model.record.plan`, the Pareto curve and the sensitivities.

    Raises:
        SearchError: no limit is given, none of the choices keeps it, or scipy is missing; the
            message says what is possible.
        ProfileError: the target has no such precision, or none of the layers a kernel for it.
        CalibrationDataError: the data is empty, does not fit the model or holds NaN; the sim has
            no statistics.
        EdgeqError: the sim is not calibrated or its weights were rounded already, a score is not a
            number, `resume` holds another run, joblib is missing, or a worker failed.

    Example:
        >>> result = eq.search_mixed_precision(sim, data, size=0.9, progress=False)
        >>> result.best.size <= 0.9
        True
        >>> print(result)
        Found 1 × W4A8, 1 × W8A8: ...

    Reference:
        Yao et al. 2021, "HAWQ-V3", arXiv:2011.10680, section 3.4, for the integer program.
    """
    begin = time.perf_counter()
    limits = Limits(size, size_bytes, bitops, activation_memory)
    if not limits.given and max_drop is None:
        raise SearchError(
            "Say what the model may cost: size=, size_bytes=, bitops= or activation_memory=, or "
            "what it may lose: max_drop=."
        )
    if measure not in MEASURES:
        raise SearchError(
            f"measure must be one of {MEASURES}, not {measure!r}." + did_you_mean(measure, MEASURES)
        )
    # What cannot be had is said before any work is done.
    space = SearchSpace(sim, candidates)
    costs = CostModel(sim, space.groups, packed, candidates=space.candidates, graph=space.graph)
    rows = limits.rows(costs)
    with PrecisionStudy(
        space, data, rounding, batch_size, steps, memory_bytes, resume, progress, jobs
    ) as study:
        finder = ChoiceFinder(study, costs, rows, limits.cost, measure, effort, score)
        best = finder.within_limits() if max_drop is None else finder.within_drop(max_drop)
        curve = finder.curve(points)
        model = study.rounded_model(finder.choice(best))
        return SearchResult(
            model=model,
            best=finder.point(best),
            points=curve,
            sensitivity=finder.report,
            cost=limits.cost,
            evaluations=finder.evaluations,
            passes=study.evaluator.passes,
            seconds=time.perf_counter() - begin,
            searched=sim,
            rounding=rounding,
            compared=finder.compared,
        )
