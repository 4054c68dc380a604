"""More bits for the layers that need them, as long as that pays on the runtime."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from keras_edgeq.autoquant.judge import Judged
from keras_edgeq.autoquant.state import State
from keras_edgeq.diagnose.artifact_runs import runnable
from keras_edgeq.errors import EdgeqError, QuantizationWarning, SearchError
from keras_edgeq.evaluate.benchmark import benchmark
from keras_edgeq.export.export import export
from keras_edgeq.mixed_precision.search import search_mixed_precision
from keras_edgeq.profiles.precision import FLOAT
from keras_edgeq.profiles.target_profile import TargetProfile
from keras_edgeq.sim.quant_sim import QuantSim

# Shares of the drop that a search is asked to keep, on its own samples, one after the other.
MARGINS = (1.0, 0.5, 0.25)
# Wide activations are left for float layers where their file takes so many times as long.
MOST_TIMES = 1.5
RUNS = 20


def mixtures(state: State) -> Iterator[tuple[QuantSim, Judged]]:
    """Yield judged sims with more bits where needed: the first that is good enough is the last.

    More bits of weights come first. Where they do not do, more bits of activations and float layers
    are both searched, and of two that are good enough the one of fewer bytes is taken, which has
    the wide activations, unless its file is that much slower here.

    Raises:
        EdgeqError: no search found a mixture within the drop.
    """
    weights, *wider = candidate_sets(state.base.record.profile)
    why: list[str] = []
    if len(weights) > 1:
        for sim, judged in _searched(state, weights, why):
            yield sim, judged
            if state.target.met(judged):
                return
    enough: list[tuple[QuantSim, Judged]] = []
    for names in wider:
        for sim, judged in _searched(state, names, why):
            if state.target.met(judged):
                enough.append((sim, judged))
                break
            yield sim, judged
    if enough:
        sims = [sim for sim, _ in enough]
        yield enough[0 if len(sims) == 1 else sims.index(quicker(*sims))]
    elif why:
        raise EdgeqError(f"No mixture within the drop was found: {why[-1]}")


def _searched(
    state: State, names: Sequence[str], why: list[str]
) -> Iterator[tuple[QuantSim, Judged]]:
    """Yield what searches give that keep less and less of the drop; note where there is nothing."""
    for margin in MARGINS:
        try:
            found = search_mixed_precision(
                state.base,
                state.fit,
                names,
                max_drop=max(margin * state.target.drop, 0.0),
                score=state.score,
                rounding="gptq",
                resume=state.folder(f"search-{'-'.join(names)}"),
                jobs=1,
                progress=False,
            )
        except SearchError as error:
            why.append(str(error))
            return
        yield found.model, state.judge(found.model)


def quicker(first: QuantSim, second: QuantSim) -> QuantSim:
    """Return the first of two sims, unless its file takes much longer than the other's here."""
    one, other = latency_ms(first), latency_ms(second)
    slow = one is not None and other is not None and one > MOST_TIMES * other
    return second if slow else first


def latency_ms(sim: QuantSim) -> float | None:
    """Return the median latency of a sim's file, None where nothing here runs it."""
    formats = runnable(sim.record.profile)
    if not formats:
        return None
    with tempfile.TemporaryDirectory(prefix="edgeq-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", QuantizationWarning)
        try:
            report = export(sim, folder, formats[:1], verify=False, progress=False)
            path = Path(str(report.files[formats[0]]))
            return benchmark(path, runs=RUNS, operations=False, progress=False).latency.p50
        except EdgeqError:
            return None


def candidate_sets(profile: TargetProfile) -> list[tuple[str, ...]]:
    """Return sets of precisions to search: more weights, more activations too, or float.

    Args:
        profile: of the target; its own precision is in each.
    """
    own = profile.own
    if own.weight is None or own.activation is None or own.activation.is_half:
        return [(own.name,)]
    weights, activations = own.weight.bits, own.activation.bits
    more_weights, more = [], []
    for name in profile.precision_names[1:]:
        one = profile.precision(name)
        if name == FLOAT or one.weight is None or one.activation is None or one.weight.is_half:
            continue
        if one.weight.bits > weights and one.activation.bits == activations:
            more_weights.append(name)
        elif one.weight.bits >= weights and one.activation.bits > activations:
            more.append(name)
    first = (own.name, *more_weights)
    return [first, *([(*first, *more)] if more else []), (*first, FLOAT)]
