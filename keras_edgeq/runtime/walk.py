"""Walk through a sim with the artifact's own tensors and find where the two part.

Each operation of the sim is fed what the same operation of the artifact was fed, so a difference
seen at a tensor was made there and nowhere before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from keras_edgeq.errors import EdgeqError
from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.graph.rebuild import infer, replay
from keras_edgeq.layers import FakeQuant
from keras_edgeq.layers.layer_traits import op_type
from keras_edgeq.numerics.metrics import steps
from keras_edgeq.sim.quant_sim import QuantSim

# A 16-bit step is the 256th part of an 8-bit one. LiteRT's int16 kernels multiply with 16-bit
# factors and interpolate sigmoid and tanh: one step off is usual, two and three happen.
WIDE_STEPS = 4


@dataclass(frozen=True)
class Step:
    """How one tensor of the artifact compares with the sim, both fed the same input.

    Args:
        tensor: printed name.
        op: the operation that made it.
        identical: share of equal integers, 0 to 1.
        mean_steps: mean absolute difference in integer steps.
        max_steps: largest.
        elements: number of elements compared.
        bits: width of its grid.
        cause: `"kernel"`, `"file"` or `"runtime"` where it is known (see `explain`).
    """

    tensor: str
    op: str
    identical: float
    mean_steps: float
    max_steps: int
    elements: int
    bits: int = 8
    cause: str | None = None

    def differs(self, identical: float) -> bool:
        """Tell whether another operation was computed, not the same one rounded otherwise.

        Args:
            identical: share of integers that has to be equal; on more than 8 bits none has to.
        """
        if self.bits > 8:
            return self.max_steps > WIDE_STEPS
        return self.max_steps > 1 or self.identical < identical


def walk(
    sim: QuantSim,
    inputs: Sequence[np.ndarray],
    tensors: Mapping[str, np.ndarray],
    fed: Mapping[str, np.ndarray] | None = None,
) -> list[Step]:
    """Compare every quantized tensor of an artifact with the sim, in topological order.

    Args:
        sim: the sim the artifact was exported from.
        inputs: what the artifact was fed, in the order of the sim's inputs.
        tensors: the artifact's integers (in half precision, its numbers) by printed tensor name. An
            unsigned artifact of a signed sim (or the reverse) is shifted by half its range,
            channels are looked for on the second axis too, and one of another rank (a 1-D
            convolution run as a 2-D one) is left out.
        fed: the integers that the next operations are fed; without it, those of `tensors`.

    Returns:
        One `Step` per tensor that both have.
    """
    graph = LayerGraph(sim)
    found: list[Step] = []

    def on_call(call, args, kwargs):
        layer = call.layer
        outputs = infer(layer, args, kwargs)
        if not isinstance(layer, FakeQuant):
            return outputs
        name = call.node.call_kwargs["tensor"]
        if name not in tensors or tensors[name].ndim != outputs[0].shape.rank:
            return outputs
        encoding = layer.encoding
        if encoding is None:
            raise EdgeqError(f"Tensor {name!r} of the sim has no grid; calibrate the sim first.")
        ours = outputs[1].numpy() + encoding.zero_point
        theirs = _in_layout_of(ours, _on_grid(tensors[name], encoding), name)
        seen = steps(*(np.rint(side / _unit(ours, encoding)) for side in (ours, theirs)))
        op = _made_by(graph, call)
        bits, far = encoding.spec.bits, int(seen.max)
        found.append(Step(name, op, seen.identical_share, seen.mean, far, ours.size, bits))
        if fed is not None and name in fed:
            theirs = _in_layout_of(theirs, _on_grid(fed[name], encoding), name)
        in_steps = tf.constant((theirs - encoding.zero_point).astype(np.float32))
        return in_steps * outputs[2], in_steps, outputs[2]

    replay(sim, [tf.constant(part) for part in inputs], on_call)
    return found


def first_difference(steps_seen: Sequence[Step], identical: float = 0.999) -> Step | None:
    """Return the first tensor where an operation computes something else, None where none does."""
    return next((s for s in steps_seen if s.differs(identical)), None)


def _unit(ours: np.ndarray, encoding) -> np.float32:
    """Return what counts as a step: in half precision, the step of its largest number.

    The steps of small numbers are finer than float32 sums of large ones are exact.
    """
    if not encoding.spec.is_half:
        return np.float32(1.0)
    return np.float32(np.spacing(np.float16(np.abs(ours).max(initial=0.0))))


def _on_grid(integers: np.ndarray, encoding) -> np.ndarray:
    """Return the artifact's integers on the sim's grid, which may differ in signedness."""
    if encoding.spec.is_half:
        return integers.astype(np.float32)
    shift = 0
    if integers.dtype.kind == "u" and encoding.spec.signed:
        shift = -(2 ** (encoding.spec.bits - 1))
    elif integers.dtype.kind == "i" and not encoding.spec.signed:
        shift = 2 ** (encoding.spec.bits - 1)
    return integers.astype(np.int32) + shift


def _in_layout_of(ours: np.ndarray, theirs: np.ndarray, name: str) -> np.ndarray:
    """Return the artifact's tensor with channels where the sim has them; ONNX moves them ahead."""
    layouts = [theirs, np.moveaxis(theirs, 1, -1)] if theirs.ndim > 2 else [theirs]
    fitting = [layout for layout in layouts if layout.shape == ours.shape]
    if not fitting:
        raise EdgeqError(
            f"Tensor {name} has shape {theirs.shape} in the artifact and {ours.shape} in the sim; "
            "the artifact was exported from another sim."
        )
    return max(fitting, key=lambda layout: np.count_nonzero(layout == ours))


def _made_by(graph: LayerGraph, call) -> str:
    """Return the operation behind a quantizer, with the activation that is fused into it."""
    maker = graph.producer(graph.name_of(call.node.call_args[0])).layer
    op = "Requantize" if isinstance(maker, FakeQuant) else op_type(getattr(maker, "layer", maker))
    activation = call.node.call_kwargs.get("activation")
    return f"{op}+{activation}" if activation else op
