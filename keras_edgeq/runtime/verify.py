"""Verify that an artifact does what the sim said, on data, output by output and op by op."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_edgeq.errors import EdgeqError, RuntimeFailedError
from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.layers import FakeQuant
from keras_edgeq.numerics.metrics import agreement, steps
from keras_edgeq.ops import op_type
from keras_edgeq.runtime.artifact import OnnxRuntime, Runtime, check_form, ways_to_run
from keras_edgeq.runtime.child.process import MEMORY_BYTES, TIMEOUT_S, Child, Limits
from keras_edgeq.runtime.explain import explain, optimizer_difference
from keras_edgeq.runtime.run_report import AGREEING, MOVED, Drift, RunReport, failed_run
from keras_edgeq.runtime.walk import Step, walk_to_outputs
from keras_edgeq.sim.beside_float import BesideFloat, beside_float
from keras_edgeq.sim.measure_fidelity import compare_outputs
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.spec.encoding import Encoding

WALK_SAMPLES = 16
LEAST_IDENTICAL = 0.9
# Stands for what is not a number among integers of a grid.
NO_NUMBER = 2**40


def verify(
    sim: QuantSim,
    path: str | Path,
    data: Any = None,
    kernels: str | None = None,
    *,
    timeout_s: float = TIMEOUT_S,
    memory_bytes: int = MEMORY_BYTES,
) -> tuple[RunReport, ...]:
    """Run an artifact on its real runtimes and compare it with the sim.

    LiteRT and ONNX Runtime run in a child process: one that ends, hangs or takes too much memory
    becomes a report that says so. A SavedModel runs on the TensorFlow of this process.

    Args:
        sim: the sim that the artifact was exported from.
        path: a `.tflite` or `.onnx` file or a SavedModel folder.
        data: inputs in any form that `quantize` takes for calibration. Without data, the samples
            that the sim keeps are used; if it keeps none, random input, which proves little.
        kernels: what runs a `.tflite` file: `"litert"`, or `"integer"` for the integer executor,
            which needs no LiteRT. None takes LiteRT if it is installed, else the executor.
        timeout_s: seconds that a runtime may take to load the file, and for each batch. The largest
            image networks need about ten for 32 images on one slow core.
        memory_bytes: memory that the file may take in the child, in addition to the runtime itself.

    Returns:
        One report per runtime: LiteRT with XNNPACK and with its own kernels (or the executor with
        the arithmetic of each), ONNX Runtime, TensorFlow for a SavedModel. `verdict` says how it
        did.

    Raises:
        EdgeqError: the artifact is missing, damaged, refused by a runtime, of another kind or from
            another sim.
        CalibrationDataError: the data does not fit the model.

    Example:
        >>> report = eq.export(sim, "out", ["tflite"], verify=False, progress=False)
        >>> [run.verdict for run in eq.verify(sim, report.files["tflite"], test_x)]
        ['same', 'same']
    """
    limits = Limits(timeout_s, memory_bytes)
    if not Path(path).exists():
        raise EdgeqError(f"No such artifact: {path}.")
    with Child(limits) as child:
        return _verified(sim, Path(path), beside_float(sim, data), child, kernels)


def verify_beside(
    sim: QuantSim, path: Path, known: BesideFloat, child: Child
) -> tuple[RunReport, ...]:
    """Do what `verify` does for a file that was just written, and reuse what is known of the sim.

    What `verify` raises is a report of a failed run here: other files are still to be verified.
    """
    try:
        return _verified(sim, path, known, child)
    except EdgeqError as error:
        samples = sum(len(batch[0]) for batch in known.data)
        return (failed_run(path.name, _runtime_of(path), samples, known.on_data, str(error)),)


def _runtime_of(path: Path) -> str:
    return {".tflite": "LiteRT", ".onnx": "ONNX Runtime"}.get(path.suffix, "SavedModel")


def _verified(
    sim: QuantSim, path: Path, known: BesideFloat, child: Child, kernels: str | None = None
) -> tuple[RunReport, ...]:
    samples = sum(len(batch[0]) for batch in known.data)
    reports = []
    for name, load in ways_to_run(path, sim, kernels, child):
        try:
            runtime = load()
            check_form(path, runtime.form(), sim)
            reports.append(_compare(sim, runtime, known, path.name))
        except RuntimeFailedError as error:
            reports.append(failed_run(path.name, name, samples, known.on_data, str(error)))
        except EdgeqError:
            raise
        except Exception as error:  # what a damaged file leads to, in this process too
            raise EdgeqError(f"{path} cannot be run: {error}") from error
    return tuple(reports)


def _compare(sim: QuantSim, runtime: Runtime, known: BesideFloat, name: str) -> RunReport:
    ours = list(known.sims)
    theirs = _joined([runtime.outputs(batch) for batch in known.data])
    grids = _output_grids(sim)
    bits = [grid.spec.bits for grid in grids if grid is not None]
    seen = steps(_integers(ours, grids), _integers(theirs, grids)) if bits else None
    several = [(a, b) for a, b in zip(ours, theirs, strict=True) if a.ndim == 2 and a.shape[1] > 1]
    top1 = agreement(*several[0]) if several else None
    drift = _drift(ours, theirs, grids)
    inner = _inside(sim, runtime, [part[:WALK_SAMPLES] for part in known.data[0]])
    verdict = inner.verdict
    if verdict in AGREEING and drift.is_apart(top1):
        verdict = inner.when_apart
    gaps = [np.max(np.abs(a - b), initial=0) for a, b in map(_as_numbers, ours, theirs)]
    return RunReport(
        artifact=name,
        runtime=runtime.name,
        samples=sum(len(batch[0]) for batch in known.data),
        on_data=known.on_data,
        agreement=top1,
        identical=seen.identical_share if seen else None,
        mean_steps=seen.mean if seen else None,
        max_steps=int(seen.max) if seen else None,
        max_abs_difference=float(max(gaps)),
        first_difference=inner.step,
        bits=max(bits, default=8),
        float_outputs=compare_outputs(sim.output_names, known.floats, theirs),
        optimizer_difference=inner.optimizer_difference,
        verdict=verdict,
        drift=drift,
        not_compared=inner.not_compared,
        steps=inner.steps,
    )


@dataclass(frozen=True)
class _Inside:
    """What is seen inside of an artifact.

    Args:
        steps: every tensor that was compared.
        verdict: of its operations, each on the same input as the sim's.
        step: the first one that the verdict is for.
        not_compared: tensors that are nowhere to be seen.
        optimizer_difference: see `RunReport`.
        when_apart: the verdict if outputs are apart nevertheless.
    """

    steps: tuple[Step, ...]
    verdict: str
    step: Step | None
    not_compared: tuple[str, ...]
    optimizer_difference: float | None
    when_apart: str


def _inside(sim: QuantSim, runtime: Runtime, inputs: Sequence[np.ndarray]) -> _Inside:
    """Judge a runtime operation by operation, on few samples."""
    tensors = runtime.tensors(inputs)
    walked, wanted = walk_to_outputs(sim, inputs, tensors)
    differing = [step for step in walked if step.differs(runtime.least_identical)]
    differing = explain(differing, sim, runtime, inputs, tensors)
    explained = {step.tensor: step for step in differing}
    walked = [explained.get(step.tensor, step) for step in walked]
    verdict, step = _judged(differing, min(LEAST_IDENTICAL, runtime.least_identical))
    compared = {step.tensor for step in walked}
    left = tuple(name for name in tensors if name not in compared)
    moved = optimizer_difference(runtime, inputs)
    if not walked:
        return _Inside(tuple(walked), verdict, step, left, moved, "differs")
    made = (runtime.plain_outputs if isinstance(runtime, OnnxRuntime) else runtime.outputs)(inputs)
    if verdict in AGREEING and _drift(wanted, made, _output_grids(sim)).is_apart():
        return _Inside(tuple(walked), "differs", step, left, moved, "differs")
    if (moved or 0.0) > MOVED:
        return _Inside(tuple(walked), verdict, step, left, moved, "runtime")
    exact = all(step.max_steps == 0 for step in walked)
    return _Inside(
        tuple(walked), verdict, step, left, moved, "differs" if exact or left else "amplified"
    )


def _judged(differing: Sequence[Step], least: float) -> tuple[str, Step | None]:
    """Return the verdict on operations that differ, and the first that it is for."""
    found: dict[str, Step] = {}
    for step in differing:
        verdict = step.cause or "differs"
        if not step.differs(least):
            verdict = "kernel" if step.cause == "kernel" else "same"
        elif verdict == "kernel" and not step.is_rounding:
            verdict = "runtime"
        found.setdefault(verdict, step)
    for verdict in ("file", "runtime", "differs", "kernel", "same"):
        if verdict in found:
            return verdict, found[verdict]
    return "same", None


def _joined(parts: Sequence[list[np.ndarray]]) -> list[np.ndarray]:
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def _output_grids(sim: QuantSim) -> list[Encoding | None]:
    """Return each output's grid, None for a float output."""
    graph = LayerGraph.of(sim)
    return [_output_grid(graph, ref, sim) for ref in graph.outputs]


def _integers(outputs: list[np.ndarray], grids: list[Encoding | None]) -> np.ndarray:
    """Return all outputs that lie on a grid in steps of it, in one row."""
    pairs = zip(outputs, grids, strict=True)
    rows = [np.rint(a / grid.scale).ravel() for a, grid in pairs if grid]
    return np.nan_to_num(np.concatenate(rows), nan=NO_NUMBER, posinf=NO_NUMBER, neginf=-NO_NUMBER)


def _drift(
    ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], grids: Sequence[Encoding | None]
) -> Drift:
    """Return how far outputs are apart, of the one that is furthest."""
    means, mosts = [0.0], [0.0]
    for own, their, grid in zip(ours, theirs, grids, strict=True):
        a, b = _as_numbers(own, their)
        if not a.size:
            continue
        with np.errstate(invalid="ignore"):
            apart = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
        apart = apart / (
            _range_step(a) if grid is None else grid.scale * 2.0 ** (grid.spec.bits - 8)
        )
        means.append(float(np.mean(apart)))
        mosts.append(float(np.max(apart)))
    return Drift(float(np.max(means)), float(np.max(mosts)))


def _range_step(values: np.ndarray) -> float:
    """Return the step of an 8-bit grid over finite values."""
    finite = values[np.isfinite(values)]
    return max(float(np.ptp(finite)) / 255.0, 1e-30) if finite.size else 1e-30


def _as_numbers(ours: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.float64(ours), np.float64(theirs)  # type: ignore[return-value]


def _output_grid(graph: LayerGraph, ref, sim: QuantSim) -> Encoding | None:
    node = graph.producer(ref)
    if isinstance(node.layer, FakeQuant):
        encoding = node.layer.encoding
        return None if encoding is None or encoding.spec.is_half else encoding
    moves = op_type(node.layer) in sim.record.profile.same_grid | {"Identity"}
    return _output_grid(graph, node.inputs[0], sim) if moves and node.inputs else None
