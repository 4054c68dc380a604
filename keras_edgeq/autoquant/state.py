"""What a run of AutoQuant has reached, which its stages begin with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_edgeq.autoquant.judge import Judge, Judged, Target
from keras_edgeq.diagnose.finding import Finding
from keras_edgeq.diagnose.remedy import Remedy
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.streams.store import StoredBatches

# Findings that ask for a stage: faults, and what makes so much of the noise at the outputs.
LEAST_SHARE = 0.05


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
