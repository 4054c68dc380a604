"""`RunReport`: how one artifact on one runtime compares with the sim."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from keras_edgeq.runtime.walk import Step
from keras_edgeq.spec.fidelity import OutputFidelity, finite_db
from keras_edgeq.table import brief, html

# See `optimizer_difference`. One product whose data is rounded to 8 bits moves outputs by more.
MOVED = 2e-4
CAUSES = {
    None: "",
    "kernel": ", the kernel's own rounding",
    "file": ", the file says something else than the sim",
    "runtime": ", the runtime does something else than its kernels are known to",
}
# Verdict -> what it says of a run; the first two are those of an artifact that agrees.
VERDICTS = {
    "same": "it computes what the sim computes",
    "kernel": "its kernels round otherwise, as is known of them",
    "amplified": "no operation is further off than it rounds, but the model amplifies that",
    "file": "the file says something else than the sim",
    "runtime": "the runtime computes something else than the file says",
    "differs": "it computes something else than the sim",
    "failed": "the runtime failed",
}
AGREEING = ("same", "kernel")
# Of outputs that are close: scattered ties in many layers make no more of each other.
MOST_MEAN_STEPS = 1.0
MOST_STEPS = 16.0
LEAST_AGREEMENT = 99.0


@dataclass(frozen=True)
class Drift:
    """How far outputs are from the sim's, in steps of 8 bits, of the output where it is most.

    Args:
        mean: mean difference.
        most: largest difference.
    """

    mean: float
    most: float

    def is_apart(self, agreement: float | None = None) -> bool:
        """Tell whether outputs are further apart than scattered ties make them; NaN is.

        Args:
            agreement: share of the same largest outputs, in %. Where it is high, the mean may be
                larger, but no single output.
        """
        near = self.mean <= MOST_MEAN_STEPS or (agreement or 0.0) >= LEAST_AGREEMENT
        return not (near and self.most <= MOST_STEPS)


@dataclass(frozen=True)
class RunReport:
    """How one artifact on one runtime compares with the sim.

    Args:
        artifact: file name.
        runtime: what ran it.
        samples: number of samples compared.
        on_data: False if only random input was available.
        agreement: share of samples with the same largest output, in %, of the first output with
            several values per sample; None if there is no such output. Ties go to the lowest index.
        identical: share of equal integers over all outputs that lie on a grid, 0 to 1.
        mean_steps: mean absolute difference of those, in steps of the output's scale.
        max_steps: largest of those.
        max_abs_difference: largest difference over all outputs, in their own unit; None if the
            run failed.
        first_difference: the first operation that the verdict is about: it computes something else
            on the same input. None if there is none, or if the artifact shows no inner tensors.
        bits: width of the outputs' grids, 8 if they have none.
        float_outputs: the artifact compared with the float model, output by output. Agreement with
            the sim does not imply agreement with the float model.
        optimizer_difference: mean difference that ONNX Runtime's optimizations make to the outputs,
            as a share of the largest; None on other runtimes.
        verdict: one of

            - `"same"`: no operation computes something else on the same input, and the outputs
              are close;
            - `"kernel"`: an operation's integers are often one step off (on 16 bits, a few), by a
              rounding that is known of the runtime's kernel; neither file nor runtime is wrong;
            - `"amplified"`: no operation does more than that, but behind it the outputs are
              apart;
            - `"file"`: the file says something else than the sim;
            - `"runtime"`: the runtime computes something else than the file says;
            - `"differs"`: something else than the sim's, and it cannot be told which of the two;
            - `"failed"`: the runtime ended, failed, or took too long or too much memory.
        failed: why it failed.
        drift: how far the outputs are from the sim's in all, in steps of 8 bits: of their grid, or
            of their range where they have none. None if the run failed.
        not_compared: quantized tensors that the converter moved or left out.
        steps: every tensor that was compared, in topological order; not in the JSON.

    Example:
        >>> report = eq.export(sim, "out", ["onnx"], progress=False)
        >>> report.runs[0].runtime, report.runs[0].agrees
        ('ONNX Runtime', True)
    """

    artifact: str
    runtime: str
    samples: int
    on_data: bool
    agreement: float | None = None
    identical: float | None = None
    mean_steps: float | None = None
    max_steps: int | None = None
    max_abs_difference: float | None = None
    first_difference: Step | None = None
    bits: int = 8
    float_outputs: tuple[OutputFidelity, ...] = ()
    optimizer_difference: float | None = None
    verdict: str = "same"
    failed: str | None = None
    drift: Drift | None = None
    not_compared: tuple[str, ...] = ()
    steps: tuple[Step, ...] = field(default=(), repr=False, compare=False)

    @property
    def agrees(self) -> bool:
        """Whether the artifact does what the sim said: its verdict is `"same"` or `"kernel"`."""
        return self.verdict in AGREEING

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; outputs that differ nowhere from float have None for dB."""
        values = asdict(replace(self, steps=()))
        del values["steps"]
        return {**finite_db(values), "agrees": self.agrees}

    def __repr__(self) -> str:
        return brief("RunReport", "agrees" if self.agrees else "disagrees", str(self))

    def _repr_html_(self) -> str:
        return html("agrees" if self.agrees else "DISAGREES", note=str(self))

    def __str__(self) -> str:
        if self.failed is not None:
            return f"{self.runtime} on {self.artifact}: FAILED, not verified: {self.failed}"
        parts = [f"{self.runtime} on {self.artifact}: {self.samples} samples"]
        if not self.on_data:
            parts[0] += " of random input, not verified on data"
        if self.agreement is not None:
            parts.append(f"agreement {self.agreement:.2f} %")
        if self.identical is not None:
            parts.append(
                f"{100 * self.identical:.2f} % identical, mean {self.mean_steps:.4f} steps"
            )
        else:
            parts.append(f"largest difference {self.max_abs_difference:.3g}")
        parts += [
            f"{one.output} {one.sqnr_db:.1f} dB from float"
            + ("" if one.agreement is None else f" ({one.agreement:.2f} % same)")
            for one in self.float_outputs
        ]
        if self.first_difference is not None:
            step = self.first_difference
            parts.append(
                f"first part at {step.tensor} ({step.op}: {100 * step.identical:.2f} % identical, "
                f"at most {step.max_steps} steps off{CAUSES[step.cause]})"
            )
        if (self.optimizer_difference or 0.0) > MOVED:
            parts.append(
                f"{self.runtime}'s optimizations move outputs in the mean by "
                f"{self.optimizer_difference:.1e} of the largest"
            )
        if self.not_compared:
            parts.append(f"{len(self.not_compared)} inner tensors have no counterpart to compare")
        if self.drift is not None and self.verdict not in AGREEING:
            parts.append(
                f"outputs {self.drift.mean:.2f} steps of 8 bits apart in the mean, "
                f"{self.drift.most:.1f} at most"
            )
        if self.verdict != "same":
            parts.append(f"{self.verdict}: {VERDICTS[self.verdict]}")
        return ", ".join(parts)


def failed_run(artifact: str, runtime: str, samples: int, on_data: bool, why: str) -> RunReport:
    """Return the report of a run that failed."""
    return RunReport(artifact, runtime, samples, on_data, verdict="failed", failed=why)
