"""Say whose a difference is: the kernel's rounding, the file's content or the runtime's own way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from keras_edgeq.errors import EdgeqError
from keras_edgeq.runtime.artifact import LiteRt, OnnxRuntime, Runtime
from keras_edgeq.runtime.integer.artifact import Integer
from keras_edgeq.runtime.walk import Step, walk
from keras_edgeq.sim.quant_sim import QuantSim

SIM_ARITHMETIC = "xnnpack_float"
ARITHMETIC = {"xnnpack": "xnnpack_float", "builtin": "fixed_point"}
# What has to be identical if the file says the same: the sim's sums and XNNPACK's mean are float32,
# and a tie or two of a small tensor are some percent of it.
NOISE = 0.9


def explain(
    step: Step,
    sim: QuantSim,
    runtime: Runtime,
    inputs: Sequence[np.ndarray],
    tensors: Mapping[str, np.ndarray],
) -> Step:
    """Find the cause of a difference between LiteRT and the sim.

    The file is executed twice on LiteRT's own tensors. What the sim's arithmetic makes of it has to
    be what the sim makes, or the file says something else (`"file"`); what the kernels' arithmetic
    makes of it has to be what LiteRT made, or LiteRT does something that the executor does not know
    (`"runtime"`). Else the difference is that between the two arithmetics (`"kernel"`).

    Args:
        step: the difference.
        sim: the sim that the file was exported from.
        runtime: what made `tensors`.
        inputs: what it was fed.
        tensors: its integers by printed tensor name.

    Returns:
        The step with its cause; as it is for other runtimes than LiteRT, and for a file with
        operations that the executor does not know.
    """
    if not isinstance(runtime, LiteRt):
        return step
    try:
        ours, theirs = (
            Integer(runtime.content, sim, arithmetic).tensors(inputs, tensors)
            for arithmetic in (SIM_ARITHMETIC, ARITHMETIC[runtime.kernels])
        )
    except EdgeqError:
        return step
    name = step.tensor
    (seen,) = (s for s in walk(sim, inputs, ours, tensors) if s.tensor == name)
    if seen.differs(NOISE):
        return replace(step, cause="file")
    same = np.array_equal(theirs[name], tensors[name])
    return replace(step, cause="kernel" if same else "runtime")


def optimizer_difference(runtime: Runtime, inputs: Sequence[np.ndarray]) -> float | None:
    """Return how far a runtime's optimizations move what the file says.

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
