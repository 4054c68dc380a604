"""The stages of AutoQuant: when each is worth trying, and what it makes of a sim."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from keras_edgeq.autoquant.judge import Judged
from keras_edgeq.autoquant.mixture import mixtures
from keras_edgeq.autoquant.state import State
from keras_edgeq.diagnose.remedies import apply_remedy
from keras_edgeq.diagnose.remedy import Remedy
from keras_edgeq.ptq.adaround.adaround import adaround
from keras_edgeq.requantize import requantize
from keras_edgeq.sim.quant_sim import QuantSim

# Rules are tried for the tensors of the first findings.
MOST_TENSORS = 4
ITERATIONS = 2_000


@dataclass(frozen=True)
class Stage:
    """One stage.

    Args:
        name: shown.
        asks: remedies of findings that ask for it; none asks always.
        make: what it makes, with what that is worth: the first that is good enough is taken, else
            the best.
        is_base: whether its weights are not rounded, so that later stages begin with it.
    """

    name: str
    asks: tuple[str, ...]
    make: Callable[[State], Iterator[tuple[QuantSim, Judged]]]
    is_base: bool = False

    def reason_not(self, state: State) -> str:
        """Return why it is not tried; `""` if it is."""
        if self.name == TRAIN and state.train is None:
            return "no train= was given"
        if self.asks and not state.remedies(*self.asks):
            return "no finding asks for it"
        return ""


def _rules(state: State) -> Iterator[tuple[QuantSim, Judged]]:
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
    yield sim, judged


def _equalize(state: State) -> Iterator[tuple[QuantSim, Judged]]:
    names = dict.fromkeys(one.name for _, one in state.remedies("equalize", "absorb_bias"))
    sim = state.base
    for name in names:
        sim = apply_remedy(Remedy(name), sim, state.fit)
    yield sim, state.judge(sim)


def _technique(name: str) -> Callable[[State], Iterator[tuple[QuantSim, Judged]]]:
    def make(state: State) -> Iterator[tuple[QuantSim, Judged]]:
        sim = apply_remedy(Remedy(name), state.base, state.fit)
        yield sim, state.judge(sim)

    return make


def _adaround(state: State) -> Iterator[tuple[QuantSim, Judged]]:
    sim = adaround(
        state.base,
        state.fit,
        iterations=ITERATIONS,
        resume=state.folder("adaround"),
        progress=False,
    )
    yield sim, state.judge(sim)


def _train(state: State) -> Iterator[tuple[QuantSim, Judged]]:
    sim = requantize(state.base)
    assert state.train is not None
    made = state.train(sim)
    if made is not None and not isinstance(made, QuantSim):
        made = getattr(made, "model", None) or sim
    sim = sim if made is None else made
    yield sim, state.judge(sim)


TRAIN, MIXED = "training", "mixed precision"
STAGES = (
    Stage("range rules", ("range_rule",), _rules, is_base=True),
    Stage("equalize", ("equalize", "absorb_bias"), _equalize, is_base=True),
    Stage("correct_bias", ("correct_bias",), _technique("correct_bias")),
    Stage("gptq", ("gptq",), _technique("gptq")),
    Stage("adaround", ("gptq",), _adaround),
    Stage(MIXED, (), mixtures),
    Stage(TRAIN, (), _train),
)
