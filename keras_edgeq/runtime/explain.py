"""Find the cause of a difference: the kernel's rounding, the file, or the runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from keras_edgeq.errors import EdgeqError
from keras_edgeq.runtime.artifact import LiteRt, OnnxRuntime, Runtime
from keras_edgeq.runtime.integer.model import IntegerModel
from keras_edgeq.runtime.walk import Step, walk
from keras_edgeq.sim.quant_sim import QuantSim, quantized_tensors

SIM_ARITHMETIC = "single_rounding"
ARITHMETIC = {"xnnpack": "xnnpack_float", "builtin": "fixed_point"}
# What has to be identical if the file says the same: the sim's sums and XNNPACK's mean are float32,
# and a tie or two of a small tensor are some percent of it.
NOISE = 0.9


def explain(
    steps: Sequence[Step],
    sim: QuantSim,
    runtime: Runtime,
    inputs: Sequence[np.ndarray],
    tensors: Mapping[str, np.ndarray],
) -> list[Step]:
    """Find the cause of differences between a runtime and the sim.

    NumPy executes the file on the runtime's own tensors, with two arithmetics. With the sim's
    arithmetic, the result must equal the sim's; if not, the file differs from the sim (`"file"`).
    With the kernels' arithmetic, the result must equal the runtime's; if not, the runtime does
    something else than its kernels are known to do (`"runtime"`). Otherwise the difference is that
    between the two arithmetics (`"kernel"`).

    The arithmetics of LiteRT are those of the integer executor. ONNX Runtime computes the
    operations between two pairs in float and rounds once. An integer next to the sim's own number
    is due to its kernel; the content of the file is computed by ONNX's reference.

    Args:
        steps: the differences.
        sim: the sim that the file was exported from.
        runtime: what made `tensors`.
        inputs: what it was fed.
        tensors: its integers by printed tensor name.

    Returns:
        The steps with their causes; None for what neither can compute, and for other runtimes.
    """
    if not steps:
        return []
    if isinstance(runtime, LiteRt):
        ours, theirs = (
            _executed(sim, runtime.content, arithmetic, inputs, tensors)
            for arithmetic in (SIM_ARITHMETIC, ARITHMETIC[runtime.kernels])
        )
        said = _seen(steps, sim, inputs, ours, tensors)
        return [
            replace(step, cause=_cause(step, said, theirs.get(step.tensor), tensors))
            for step in steps
        ]
    if isinstance(runtime, OnnxRuntime):
        asked = [step.tensor for step in steps if not step.is_nearest]
        said = _seen(steps, sim, inputs, runtime.reference(inputs, tensors, asked), tensors)
        return [replace(step, cause=_onnx_cause(step, said)) for step in steps]
    return list(steps)


def _executed(
    sim: QuantSim, content: bytes, arithmetic: str, inputs: Sequence, tensors: Mapping
) -> dict[str, np.ndarray]:
    """Return the integer executor's results for the operations that it knows."""
    try:
        model = IntegerModel(content, arithmetic, partial=True)
        return model.tensors(inputs, sim.input_names, quantized_tensors(sim), tensors)
    except EdgeqError:
        return {}


def _seen(
    steps: Sequence[Step], sim: QuantSim, inputs: Sequence, made: Mapping, fed: Mapping
) -> dict[str, Step]:
    """Compare what the file says with the sim, both fed the runtime's tensors."""
    asked = {step.tensor for step in steps} & made.keys()
    if not asked:
        return {}
    # What is not asked for stands in with the runtime's: the walk feeds only what it compares.
    both = {**fed, **{name: made[name] for name in asked}}
    return {step.tensor: step for step in walk(sim, inputs, both, fed) if step.tensor in asked}


def _cause(
    step: Step, said: Mapping[str, Step], theirs: np.ndarray | None, tensors: Mapping
) -> str | None:
    """Return the cause of a difference on LiteRT."""
    if step.tensor not in said or theirs is None:
        return "kernel" if step.is_nearest else None
    if _says_other(said[step.tensor]):
        return "file"
    return "kernel" if np.array_equal(theirs, tensors[step.tensor]) else "runtime"


def _onnx_cause(step: Step, said: Mapping[str, Step]) -> str | None:
    """Return the cause of a difference on ONNX Runtime."""
    if step.is_nearest:
        return "kernel"
    if step.tensor not in said:
        return None
    return "file" if _says_other(said[step.tensor]) else "runtime"


def _says_other(reading: Step) -> bool:
    """Tell whether the results of the file differ by more than another rounding of the sim's."""
    return reading.differs(NOISE) and not reading.is_nearest


def optimizer_difference(runtime: Runtime, inputs: Sequence[np.ndarray]) -> float | None:
    """Return how far a runtime's optimizations move the results of the file.

    Returns:
        The mean difference of an output to the same file without optimizations, as a share of its
        largest value, of the output where it is most; None for other runtimes than ONNX Runtime.
        Sums in another order move single values, and the mean by less than 1e-4; an optimization
        that rounds what the file does not round, or leaves out a rounding, moves it by more.
    """
    if not isinstance(runtime, OnnxRuntime):
        return None
    pairs = zip(runtime.outputs(inputs), runtime.plain_outputs(inputs), strict=True)
    return max(
        float(np.mean(np.abs(a - b)) / max(np.max(np.abs(b), initial=0.0), 1e-30)) for a, b in pairs
    )
