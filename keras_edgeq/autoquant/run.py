"""A run of AutoQuant: stage after stage, until one is good enough."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tf_keras

from keras_edgeq.autoquant.cache import StageCache
from keras_edgeq.autoquant.judge import Judge, Judged, Target
from keras_edgeq.autoquant.result import REUSED, StageResult
from keras_edgeq.autoquant.split import Split
from keras_edgeq.autoquant.stages import STAGES, Stage
from keras_edgeq.autoquant.state import State
from keras_edgeq.diagnose.diagnose import diagnose
from keras_edgeq.errors import EdgeqError
from keras_edgeq.measure.fingerprint import fingerprint
from keras_edgeq.profiles import TargetProfile
from keras_edgeq.progress import Bar
from keras_edgeq.quantize import quantize
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.sim.weight_bytes import weight_bytes

CALIBRATE = "calibrate"
# Samples that a diagnosis between stages measures on.
LOOKED_AT = 16


class Run:
    """The stages of one call, one after the other."""

    def __init__(
        self,
        model: tf_keras.Model,
        profile: TargetProfile,
        parts: Split,
        judge: Judge,
        target: Target,
        score: Any,
        train: Callable[[QuantSim], Any] | None,
        folder: str | Path | None,
        strict: bool,
    ):
        self.history: list[StageResult] = []
        self._strict, self._target = strict, target
        begin = time.perf_counter()
        judge(model)
        share = parts.choose.samples / (
            parts.fit.samples + parts.choose.samples + parts.test.samples
        )
        self._pass_seconds = (time.perf_counter() - begin) / share
        begin = time.perf_counter()
        sim = quantize(model, parts.fit.batches, profile, progress=False)
        judged = judge(sim)
        self._add(CALIBRATE, sim, judged, time.perf_counter() - begin, True)
        options = {"score": judge.name, "target": asdict(target), "trains": train is not None}
        name = fingerprint(sim, parts.fit.batches, options)[:16]
        self._cache = StageCache(None if folder is None else Path(folder) / name)
        self.state = State(
            fit=parts.fit.batches,
            judge=judge,
            target=target,
            score=None if score is None else judge.score,
            train=train,
            base=sim,
            best=sim,
            judged=judged,
            folder=self._cache.inner,
        )

    def go(self, begin: float, budget: float | None, progress: bool) -> None:
        """Try stages until one is good enough, or time is up."""
        bar = Bar("auto_quantize", len(STAGES), "stage", progress)
        diagnosed: QuantSim | None = None
        for number, stage in enumerate(STAGES):
            bar.to(number, name=f"auto_quantize: {stage.name}")
            if self._target.met(self.state.judged):
                break
            if budget is not None and time.perf_counter() - begin > budget:
                self.history.append(StageResult(stage.name, note="the budget was spent"))
                continue
            if stage.asks and diagnosed is not self.state.base:
                diagnosed = self.state.base
                self.state.findings = self._look(diagnosed)
            why = stage.reason_not(self.state)
            if why:
                self.history.append(StageResult(stage.name, note=why))
            else:
                self._try(stage)
        bar.close()

    def _look(self, sim: QuantSim) -> Any:
        options = {"samples": LOOKED_AT, "verify": False, "progress": False}
        return diagnose(sim, self.state.fit, remedies=0, **options).findings

    def _try(self, stage: Stage) -> None:
        begin = time.perf_counter()
        slug = stage.name.replace(" ", "-")
        known = self._cache.get(slug)
        if known is not None:
            sim, facts = known
            judged = Judged(*(float("nan") if facts[n] is None else float(facts[n])
                              for n in ("score", "error", "sqnr_db")))  # fmt: skip
            self._took(stage, sim, judged, float(facts["seconds"]), REUSED)
            return
        try:
            found = self._best_of(stage)
        except EdgeqError as error:
            if self._strict:
                raise
            self.history.append(StageResult(stage.name, note=f"failed: {error}"))
            return
        if found is None:
            self.history.append(StageResult(stage.name, note="it has nothing to try"))
            return
        sim, judged = found
        seconds = time.perf_counter() - begin
        self._cache.put(slug, sim, {**asdict(judged), "seconds": seconds})
        self._took(stage, sim, judged, seconds)

    def _best_of(self, stage: Stage) -> tuple[QuantSim, Judged] | None:
        """Return the first sim of a stage that is good enough, else its best."""
        best: tuple[QuantSim, Judged] | None = None
        for sim, judged in stage.make(self.state):
            if best is None or _better(judged, best[1]):
                best = sim, judged
            if self._target.met(judged):
                return sim, judged
        return best

    def _took(
        self, stage: Stage, sim: QuantSim, judged: Judged, seconds: float, note: str = ""
    ) -> None:
        kept = _better(judged, self.state.judged)
        self._add(stage.name, sim, judged, seconds, kept, note)
        if kept:
            self.state.best, self.state.judged = sim, judged
            if stage.is_base:
                self.state.base = sim

    def _add(
        self,
        name: str,
        sim: QuantSim,
        judged: Judged,
        seconds: float,
        kept: bool,
        note: str = "",
    ) -> None:
        self.history.append(
            StageResult(
                stage=name,
                score=judged.score,
                error=judged.error,
                sqnr_db=judged.sqnr_db,
                bytes=weight_bytes(sim),
                seconds=seconds,
                passes=seconds / max(self._pass_seconds, 1e-9),
                kept=kept,
                met=self._target.met(judged),
                note=note,
            )
        )


def _better(one: Judged, other: Judged) -> bool:
    """Tell which is better: by score, and where that is the same by SQNR."""
    return (one.score, one.sqnr_db) > (other.score, other.sqnr_db)
