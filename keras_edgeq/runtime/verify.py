"""Verify that an artifact does what the sim said, on data, output by output and op by op."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_edgeq.errors import EdgeqError
from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.layers import FakeQuant
from keras_edgeq.layers.layer_traits import op_type
from keras_edgeq.numerics.metrics import agreement, steps
from keras_edgeq.runtime.artifact import Runtime, load_artifact
from keras_edgeq.runtime.explain import explain, optimizer_difference
from keras_edgeq.runtime.walk import Step, first_difference, walk
from keras_edgeq.sim.beside_float import BesideFloat, beside_float
from keras_edgeq.sim.measure_fidelity import compare_outputs
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.spec.encoding import Encoding
from keras_edgeq.spec.fidelity import OutputFidelity, finite
from keras_edgeq.table import brief, html

WALK_SAMPLES = 16
LEAST_IDENTICAL = 0.9
LEAST_AGREEMENT = 99.0
# See `optimizer_difference`. One product whose data is rounded to 8 bits moves outputs by more.
MOVED = 2e-4
CAUSES = {
    None: "",
    "kernel": ", the kernel's own rounding",
    "file": ", the file says something else than the sim",
    "runtime": ", LiteRT does something else than its kernels are known to",
}


@dataclass(frozen=True)
class RunReport:
    """How one artifact on one runtime compares with the sim.

    Args:
        artifact: file name.
        runtime: what ran it.
        samples: number of samples compared.
        on_data: False where only random input was at hand.
        agreement: share of samples with the same largest output, in %; the first output with
            several values per sample counts, None where there is none. Ties go to the lowest index.
        identical: share of equal integers over all outputs that lie on a grid, 0 to 1.
        mean_steps: mean absolute difference of those, in steps of the output's scale.
        max_steps: largest of those.
        max_abs_difference: largest difference over all outputs, in their own unit.
        first_difference: the first operation that computes something else on the same input; None
            where none does, or where the artifact shows no inner tensors.
        bits: width of the outputs' grids, 8 where they have none.
        float_outputs: the artifact beside the float model, output by output. That an artifact
            agrees with the sim says nothing of that.
        optimizer_difference: mean difference that ONNX Runtime's optimizations make to the outputs,
            as a share of the largest; None on other runtimes.

    Example:
        >>> report = eq.export(sim, "out", ["onnx"], progress=False)
        >>> report.runs[0].runtime, report.runs[0].agrees
        ('ONNX Runtime', True)
    """

    artifact: str
    runtime: str
    samples: int
    on_data: bool
    agreement: float | None
    identical: float | None
    mean_steps: float | None
    max_steps: int | None
    max_abs_difference: float
    first_difference: Step | None
    bits: int = 8
    float_outputs: tuple[OutputFidelity, ...] = ()
    optimizer_difference: float | None = None

    @property
    def agrees(self) -> bool:
        """Whether the artifact does what the sim said.

        On the same input no operation is more than one step off, nor one step off for more than
        one value in ten (leaky ReLU kernels are for one in thirty), and on 16 bits none is more
        than four off; and at least 99 % of the samples have the same largest output, or where there
        is no such output, integers differ in the mean by one step of 8 bits at most. Float outputs
        without inner integers are not judged.
        """
        step = self.first_difference
        if step is not None and step.differs(LEAST_IDENTICAL):
            return False
        if self.agreement is not None:
            return self.agreement >= LEAST_AGREEMENT
        return self.mean_steps is None or self.mean_steps <= 2.0 ** (self.bits - 8)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; outputs that differ nowhere from float have None for dB."""
        return finite(asdict(self))

    def __repr__(self) -> str:
        return brief("RunReport", "agrees" if self.agrees else "disagrees", str(self))

    def _repr_html_(self) -> str:
        return html("agrees" if self.agrees else "DISAGREES", note=str(self))

    def __str__(self) -> str:
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
                f"first part at {step.tensor} ({step.op}: {100 * step.identical:.2f} % identical"
                f"{CAUSES[step.cause]})"
            )
        if (self.optimizer_difference or 0.0) > MOVED:
            parts.append(
                f"{self.runtime}'s optimizations move outputs in the mean by "
                f"{self.optimizer_difference:.1e} of the largest"
            )
        return ", ".join(parts)


def verify(
    sim: QuantSim, path: str | Path, data: Any = None, kernels: str | None = None
) -> tuple[RunReport, ...]:
    """Run an artifact on its real runtimes and compare it with the sim.

    Args:
        sim: the sim that the artifact was exported from.
        path: a `.tflite` or `.onnx` file or a SavedModel folder.
        data: inputs in any form that `quantize` takes for calibration. Without it the samples that
            the sim keeps are used, and without those random input, which proves little.
        kernels: what runs a `.tflite` file: `"litert"`, or `"integer"` for the integer executor,
            which needs no LiteRT; None takes LiteRT where it is installed, else the executor.

    Returns:
        One report per runtime: LiteRT with XNNPACK and with its own kernels (or the executor with
        the arithmetic of each), ONNX Runtime, TensorFlow for a SavedModel.

    Raises:
        EdgeqError: the artifact cannot be run.
        CalibrationDataError: the data does not fit the model.

    Example:
        >>> report = eq.export(sim, "out", ["tflite"], verify=False, progress=False)
        >>> [run.agrees for run in eq.verify(sim, report.files["tflite"], test_x)]
        [True, True]
    """
    if not Path(path).exists():
        raise EdgeqError(f"No such artifact: {path}.")
    return verify_beside(sim, Path(path), beside_float(sim, data), kernels)


def verify_beside(
    sim: QuantSim, path: Path, known: BesideFloat, kernels: str | None = None
) -> tuple[RunReport, ...]:
    """Do what `verify` does with the sim's and the float model's outputs at hand."""
    try:
        return tuple(
            _compare(sim, runtime, known, path.name)
            for runtime in load_artifact(path, sim, kernels)
        )
    except EdgeqError:
        raise
    except Exception as error:  # runtimes raise what they like on a damaged file
        raise EdgeqError(f"{path} cannot be run: {error}") from error


def _compare(sim: QuantSim, runtime: Runtime, known: BesideFloat, name: str) -> RunReport:
    read, ours = known.data, list(known.sims)
    theirs = _joined([runtime.outputs(batch) for batch in read])
    inner = [part[:WALK_SAMPLES] for part in read[0]]
    tensors = runtime.tensors(inner)
    walked = walk(sim, inner, tensors)
    least = runtime.least_identical
    wrong = first_difference(walked, min(LEAST_IDENTICAL, least))
    differing = wrong or first_difference(walked, least)
    if differing is not None:
        differing = explain(differing, sim, runtime, inner, tensors)
    grids = _output_grids(sim)
    bits = [grid.spec.bits for grid in grids if grid is not None]
    seen = steps(_integers(ours, grids), _integers(theirs, grids)) if bits else None
    several = [(a, b) for a, b in zip(ours, theirs, strict=True) if a.ndim == 2 and a.shape[1] > 1]
    gaps = [float(np.max(np.abs(a - b), initial=0.0)) for a, b in zip(ours, theirs, strict=True)]
    return RunReport(
        artifact=name,
        runtime=runtime.name,
        samples=sum(len(batch[0]) for batch in read),
        on_data=known.on_data,
        agreement=agreement(*several[0]) if several else None,
        identical=seen.identical_share if seen else None,
        mean_steps=seen.mean if seen else None,
        max_steps=int(seen.max) if seen else None,
        max_abs_difference=max(gaps),
        first_difference=differing,
        bits=max(bits, default=8),
        float_outputs=compare_outputs(sim.output_names, known.floats, theirs),
        optimizer_difference=optimizer_difference(runtime, inner),
    )


def _joined(parts: Sequence[list[np.ndarray]]) -> list[np.ndarray]:
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def _output_grids(sim: QuantSim) -> list[Encoding | None]:
    """Return each output's grid, None for a float output."""
    graph = LayerGraph(sim)
    return [_output_grid(graph, ref, sim) for ref in graph.outputs]


def _integers(outputs: list[np.ndarray], grids: list[Encoding | None]) -> np.ndarray:
    """Return all outputs that lie on a grid in steps of it, in one row."""
    pairs = zip(outputs, grids, strict=True)
    return np.concatenate([np.rint(a / grid.scale).ravel() for a, grid in pairs if grid])


def _output_grid(graph: LayerGraph, ref, sim: QuantSim) -> Encoding | None:
    node = graph.producer(ref)
    if isinstance(node.layer, FakeQuant):
        encoding = node.layer.encoding
        return None if encoding is None or encoding.spec.is_half else encoding
    moves = op_type(node.layer) in sim.record.profile.same_grid | {"Identity"}
    return _output_grid(graph, node.inputs[0], sim) if moves and node.inputs else None
