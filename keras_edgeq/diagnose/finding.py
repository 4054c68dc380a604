"""`Finding`: one cause of lost accuracy, with its evidence and what was tried against it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from keras_edgeq.diagnose.remedies import apply_remedy
from keras_edgeq.diagnose.remedy import Remedy
from keras_edgeq.errors import EdgeqError
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.table import brief

# A remedy that wins so much of what a finding can win makes the dearer ones needless, unless the
# outputs are as bad as 8 bits never make them by themselves.
ENOUGH = 0.8
GOOD_DB = 24.0


@dataclass(frozen=True)
class Trial:
    """What a remedy gave on samples that it was not fitted to.

    Args:
        remedy: what was done.
        sqnr_db: SQNR of the outputs with it.
        gain_db: what it adds to that of the sim. A remedy that reads data calibrates the sim anew;
            it is measured beside the sim calibrated on the same samples.
        score: the user's score with it; None without.
        gain_score: what it adds to that of the sim, likewise.
        bytes: what the weights take more, packed.
        seconds: that it took.
        failed: why it could not be done, `""` if it could.
    """

    remedy: Remedy
    sqnr_db: float = float("nan")
    gain_db: float = float("nan")
    score: float | None = None
    gain_score: float | None = None
    bytes: int = 0
    seconds: float = 0.0
    failed: str = ""

    def wins(self, finding: Finding) -> bool:
        """Tell whether it makes dearer remedies needless."""
        if not finding.is_in_db:
            return not self.failed
        enough = ENOUGH * max(finding.possible_db, 0.1)
        return not self.failed and self.sqnr_db >= GOOD_DB and self.gain_db >= enough

    def __str__(self) -> str:
        if self.failed:
            return f"{self.remedy}: {self.failed}"
        score = "" if self.gain_score is None else f", score {self.gain_score:+.4g}"
        more = f", {self.bytes:+,} bytes" if self.bytes else ""
        return f"{self.remedy}: {self.gain_db:+.1f} dB{score}{more}, {self.seconds:.1f} s"


@dataclass(frozen=True)
class Finding:
    """One cause of lost accuracy.

    Args:
        layer: where.
        tensor: the tensor, or the kernel, that it is about; `""` for a layer in float.
        cause: one of `CAUSES` of `keras_edgeq.diagnose.findings`.
        evidence: what was seen, in one sentence with its numbers.
        share: how much of the noise at the outputs goes without it, 0 to 1; NaN if that says
            nothing.
        possible_db: SQNR of the outputs that would be won without it; NaN likewise.
        is_fault: whether it is more than the rounding that the bits bring with them.
        advice: what helps, in words.
        remedies: what to try, the cheapest first.
        trials: what was tried.

    Example:
        >>> found = eq.diagnose(sim, data, remedies=1, verify=False, progress=False)
        >>> for finding in found.findings[:1]:
        ...     assert finding.evidence and isinstance(finding.apply(sim, data), eq.QuantSim)
    """

    layer: str
    tensor: str
    cause: str
    evidence: str
    share: float
    possible_db: float
    is_fault: bool
    advice: str = ""
    remedies: tuple[Remedy, ...] = ()
    trials: tuple[Trial, ...] = ()

    @property
    def is_in_db(self) -> bool:
        """Whether the sim has the error, so that its outputs tell what helps.

        They do not where a layer computes in float, or where only the target's kernel overflows.
        """
        return self.possible_db == self.possible_db

    @property
    def best(self) -> Trial | None:
        """The first remedy whose gain is within a tenth of the greatest; None if none helped.

        Where the outputs do not tell what helps, the first that could be done: its gain in dB is
        what it costs there.
        """
        if not self.is_in_db:
            return next((trial for trial in self.trials if not trial.failed), None)
        helped = [trial for trial in self.trials if trial.gain_db > 0.0]
        most = max((trial.gain_db for trial in helped), default=0.0)
        return next((trial for trial in helped if trial.gain_db >= 0.9 * most), None)

    @property
    def remedy(self) -> Remedy | None:
        """The remedy that helped best; where none was tried, the cheapest."""
        if self.best is not None:
            return self.best.remedy
        return self.remedies[0] if self.remedies and not self.trials else None

    def apply(self, sim: QuantSim, data: Any = None) -> QuantSim:
        """Return a sim with the remedy; the given one is not changed.

        Args:
            sim: that was diagnosed, or one that another finding was applied to.
            data: calibration inputs in any form `quantize` takes; only some remedies read it.

        Raises:
            EdgeqError: no remedy is known or helped, or it cannot be done.
        """
        if self.remedy is None:
            tried = "; ".join(map(str, self.trials))
            raise EdgeqError(
                f"No remedy {'helped' if tried else 'is known'} against {self.cause} of "
                f"{self.layer!r}. {self.advice or tried}"
            )
        return apply_remedy(self.remedy, sim, data)

    def cells(self) -> tuple[str, ...]:
        """Return a row for people: layer, cause, share, remedy, gain, bytes."""
        share = "" if self.share != self.share else f"{100 * self.share:.0f} %"
        best = self.best
        where = self.tensor or self.layer
        if best is None:
            return (where, self.cause, share, str(self.remedy or "-"), "", "")
        gain = f"{best.gain_db:+.1f} dB"
        if best.gain_score is not None:
            gain += f", {best.gain_score:+.4g}"
        return (where, self.cause, share, str(best.remedy), gain, f"{best.bytes:+,}")

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, and NaN for what was not measured."""
        plain = {
            name: getattr(self, name)
            for name in ("layer", "tensor", "cause", "evidence", "is_fault", "advice")
        }
        return {
            **plain,
            "share": self.share,
            "possible_db": self.possible_db,
            "remedies": [_remedy_json(one) for one in self.remedies],
            "trials": [_trial_json(one) for one in self.trials],
        }

    def __repr__(self) -> str:
        return brief("Finding", self.cause, self.tensor or self.layer, str(self.remedy or ""))

    def __str__(self) -> str:
        told = [f"{self.tensor or self.layer}: {self.cause}. {self.evidence}"]
        if self.advice:
            told.append(f"   {self.advice}")
        if self.trials:
            told += [f"   {trial}" for trial in self.trials]
            if self.best is not None:
                told.append(f"   by hand: {self.best.remedy.code}")
        elif self.remedies:
            told.append(f"   to try: {', '.join(map(str, self.remedies))}")
        return "\n".join(told)


def _remedy_json(one: Remedy) -> dict[str, Any]:
    return {"name": one.name, "options": dict(one.options), "code": one.code}


def _trial_json(one: Trial) -> dict[str, Any]:
    made = {field.name: getattr(one, field.name) for field in fields(one)}
    return {**made, "remedy": _remedy_json(one.remedy)}
