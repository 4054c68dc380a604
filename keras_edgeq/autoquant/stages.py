"""The stages of AutoQuant: when each is worth trying, and what it makes of a sim."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_edgeq.autoquant.judge import Judge, Judged, Target
from keras_edgeq.diagnose.finding import Finding
from keras_edgeq.diagnose.remedies import apply_remedy
from keras_edgeq.diagnose.remedy import Remedy
from keras_edgeq.errors import EdgeqError, SearchError
from keras_edgeq.mixed_precision.search import search_mixed_precision
from keras_edgeq.profiles.precision import FLOAT
from keras_edgeq.profiles.target_profile import TargetProfile
from keras_edgeq.ptq.adaround.adaround import adaround
from keras_edgeq.requantize import requantize
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.streams.store import StoredBatches

# Findings that ask for a stage: faults, and what makes so much of the noise at the outputs.
LEAST_SHARE = 0.05
# Rules are tried for the tensors of the first findings.
MOST_TENSORS = 4
ITERATIONS = 2_000
# Shares of the drop that is left which a search is asked to keep, on its own samples.
MARGINS = (1.0, 0.5, 0.25)


@dataclass(eq=False)
class State:
    """What a run has reached.

    Args:
        fit: batches to fit to.
        judge: of the samples to choose by.
        target: what must be reached.
        score: of the user, for the search; None measures agreement.
        train: of the user.
        base: the best sim whose weights no technique has rounded.
        best: the best sim.
        judged: what it is worth.
        findings: of the diagnosis of `base`.
        folder: where a stage may keep what it has done.
    """

    fit: StoredBatches
    judge: Judge
    target: Target
    score: Callable[[Any], float] | None
    train: Callable[[QuantSim], Any] | None
    base: QuantSim
    best: QuantSim
    judged: Judged
    findings: Sequence[Finding] = ()
    folder: Callable[[str], Path | None] = field(default=lambda name: None)

    def remedies(self, *names: str) -> list[tuple[Finding, Remedy]]:
        """Return the remedies of such names that findings which matter ask for."""
        return [
            (finding, remedy)
            for finding in self.findings
            if finding.is_fault or finding.share >= LEAST_SHARE
            for remedy in finding.remedies
            if remedy.name in names
        ]


@dataclass(frozen=True)
class Stage:
    """One stage.

    Args:
        name: shown.
        asks: remedies of findings that ask for it; none asks always.
        make: what it makes, the candidates to judge, the last of which is the result if none of
            them is better.
        is_base: whether its weights are not rounded, so that later stages begin with it.
    """

    name: str
    asks: tuple[str, ...]
    make: Callable[[State], Iterator[QuantSim]]
    is_base: bool = False

    def reason_not(self, state: State) -> str:
        """Return why it is not tried; `""` if it is."""
        if self.name == TRAIN and state.train is None:
            return "no train= was given"
        if self.asks and not state.remedies(*self.asks):
            return "no finding asks for it"
        return ""


def _rules(state: State) -> Iterator[QuantSim]:
    """Try other range rules for the tensors that cost most, one after the other."""
    sim, judged = state.base, state.judge(state.base)
    tried: dict[str, list[Remedy]] = {}
    for finding, remedy in state.remedies("range_rule"):
        tried.setdefault(finding.tensor, []).append(remedy)
    for remedies in list(tried.values())[:MOST_TENSORS]:
        for remedy in remedies:
            made = apply_remedy(remedy, sim, None)
            found = state.judge(made)
            if found.sqnr_db > judged.sqnr_db:
                sim, judged = made, found
    yield sim


def _equalize(state: State) -> Iterator[QuantSim]:
    names = dict.fromkeys(one.name for _, one in state.remedies("equalize", "absorb_bias"))
    sim = state.base
    for name in names:
        sim = apply_remedy(Remedy(name), sim, state.fit)
    yield sim


def _technique(name: str) -> Callable[[State], Iterator[QuantSim]]:
    def make(state: State) -> Iterator[QuantSim]:
        yield apply_remedy(Remedy(name), state.base, state.fit)

    return make


def _adaround(state: State) -> Iterator[QuantSim]:
    yield adaround(
        state.base,
        state.fit,
        iterations=ITERATIONS,
        resume=state.folder("adaround"),
        progress=False,
    )


def _mixed(state: State) -> Iterator[QuantSim]:
    """Give more bits to the layers that need them: of weights, then of activations, then float."""
    why = ""
    for number, names in enumerate(candidate_sets(state.base.record.profile)):
        for margin in MARGINS:
            drop = max(margin * state.target.drop, 0.0)
            try:
                found = search_mixed_precision(
                    state.base,
                    state.fit,
                    names,
                    max_drop=drop,
                    score=state.score,
                    rounding="gptq",
                    resume=state.folder(f"search-{number}"),
                    jobs=1,
                    progress=False,
                )
            except SearchError as error:
                why = str(error)
                break
            yield found.model
    if why:
        raise EdgeqError(f"No mixture within the drop was found: {why}")


def _train(state: State) -> Iterator[QuantSim]:
    sim = requantize(state.base)
    assert state.train is not None
    made = state.train(sim)
    if made is not None and not isinstance(made, QuantSim):
        made = getattr(made, "model", None) or sim
    yield sim if made is None else made


TRAIN, MIXED = "training", "mixed precision"
STAGES = (
    Stage("range rules", ("range_rule",), _rules, is_base=True),
    Stage("equalize", ("equalize", "absorb_bias"), _equalize, is_base=True),
    Stage("correct_bias", ("correct_bias",), _technique("correct_bias")),
    Stage("gptq", ("gptq",), _technique("gptq")),
    Stage("adaround", ("gptq",), _adaround),
    Stage(MIXED, (), _mixed),
    Stage(TRAIN, (), _train),
)


def candidate_sets(profile: TargetProfile) -> list[tuple[str, ...]]:
    """Return sets of precisions to search, the cheapest first.

    Args:
        profile: of the target; its own precision is in each.
    """
    own = profile.own
    if own.weight is None or own.activation is None or own.activation.is_half:
        return []
    weights, activations = own.weight.bits, own.activation.bits
    more_weights, more = [], []
    for name in profile.precision_names[1:]:
        if name == FLOAT:
            continue
        one = profile.precision(name)
        if one.weight is None or one.activation is None or one.weight.is_half:
            continue
        if one.weight.bits > weights and one.activation.bits == activations:
            more_weights.append(name)
        elif one.weight.bits >= weights and one.activation.bits > activations:
            more.append(name)
    sets = [(own.name, *more_weights)] if more_weights else []
    if more:
        sets.append((own.name, *more_weights, *more))
    return [*sets, (own.name, *more_weights, *more, FLOAT)]
