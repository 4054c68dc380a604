"""Walk through a sim with the artifact's own tensors and find where the two part.

Each operation of the sim is fed what the same operation of the artifact was fed, so a difference
seen at a tensor was made there and nowhere before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import tensorflow as tf

from keras_edgeq.errors import EdgeqError
from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.graph.rebuild import Call, infer, replay
from keras_edgeq.layers import FakeQuant
from keras_edgeq.layers.arithmetic import UNROUNDED
from keras_edgeq.layers.swap import swapped
from keras_edgeq.numerics.metrics import steps
from keras_edgeq.ops import op_type
from keras_edgeq.ops.plain import SOFTMAX
from keras_edgeq.sim.quant_sim import QuantSim

# A 16-bit step is the 256th part of an 8-bit one. LiteRT's int16 kernels multiply with 16-bit
# factors and interpolate sigmoid and tanh: one step off is usual, two and three happen.
WIDE_STEPS = 4
# LiteRT's softmax of 16 bits gives each key e^-10 of the largest share at least, 1.5 steps, and
# takes them from the others: masked keys have these steps, too.
LEAST_SHARE = 1.5
# What has to be equal in an order of axes that nothing but the numbers speaks for.
MOVED_IDENTICAL = 0.9
MOST_AXES = 5
# Of float32 sums, as a share of the largest.
NOISE = 1e-6


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
        is_nearest: whether each integer is one that the sim's number lies next to, before it is
            rounded: only ties fell the other way.
        cause: `"kernel"`, `"file"` or `"runtime"` where it is known (see `explain`).
        keys: among how many keys a softmax of more than 8 bits shares; 0 for other operations.
    """

    tensor: str
    op: str
    identical: float
    mean_steps: float
    max_steps: int
    elements: int
    bits: int = 8
    is_nearest: bool = False
    cause: str | None = None
    keys: int = 0

    @property
    def is_rounding(self) -> bool:
        """Whether no element is further off than kernels round: one step, or some of 16 bits."""
        wide = WIDE_STEPS + int(LEAST_SHARE * self.keys)
        return self.max_steps <= (wide if self.bits > 8 else 1)

    def differs(self, identical: float) -> bool:
        """Tell whether another operation was computed, not the same one rounded otherwise.

        Args:
            identical: share of integers that has to be equal; on more than 8 bits none has to.
        """
        return not self.is_rounding or (self.bits <= 8 and self.identical < identical)


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
            unsigned artifact of a signed sim (or the reverse) is shifted by half its range, and
            axes are put where the sim has them. One that has no place there is left out: of
            another rank (a 1-D convolution run as a 2-D one), or moved by the converter to where
            it holds other numbers.
        fed: the integers that the next operations are fed; without it, those of `tensors`.

    Returns:
        One `Step` per tensor that both have.
    """
    return walk_to_outputs(sim, inputs, tensors, fed)[0]


def walk_to_outputs(
    sim: QuantSim,
    inputs: Sequence[np.ndarray],
    tensors: Mapping[str, np.ndarray],
    fed: Mapping[str, np.ndarray] | None = None,
) -> tuple[list[Step], list[np.ndarray]]:
    """Do what `walk` does, and return the outputs that the sim makes of the artifact's tensors."""
    graph = LayerGraph.of(sim)
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
        theirs = _in_layout_of(ours, _on_grid(tensors[name], encoding))
        if theirs is None:
            return outputs
        seen = steps(*(np.rint(side / _unit(ours, encoding)) for side in (ours, theirs)))
        found.append(
            Step(
                name,
                _made_by(graph, call),
                seen.identical_share,
                seen.mean,
                int(seen.max),
                ours.size,
                encoding.spec.bits,
                seen.max == 0 or _is_nearest(call, args, kwargs, theirs - encoding.zero_point),
                keys=_keys(_made_by(graph, call), encoding.spec.bits, ours),
            )
        )
        if fed is not None and name in fed:
            theirs = _in_layout_of(theirs, _on_grid(fed[name], encoding))
            if theirs is None:
                return outputs
        in_steps = tf.constant((theirs - encoding.zero_point).astype(np.float32))
        return in_steps * outputs[2], in_steps, outputs[2]

    made = replay(sim, [tf.constant(part) for part in inputs], on_call)
    return found, [np.asarray(part) for part in tf.nest.flatten(made)]


def _keys(op: str, bits: int, made: np.ndarray) -> int:
    return made.shape[-1] if op == SOFTMAX.name and bits > 8 else 0


def first_difference(steps_seen: Sequence[Step], identical: float = 0.999) -> Step | None:
    """Return the first tensor where an operation computes something else, None if none does."""
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


def _in_layout_of(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray | None:
    """Return the artifact's tensor with its axes in the order of the sim's; None if none fits.

    ONNX has channels ahead. A converter that carries transpositions through a graph leaves tensors
    in any order; another one than these two is taken only for what is the sim's tensor in it.
    """
    usual = [theirs, np.moveaxis(theirs, 1, -1)] if theirs.ndim > 2 else [theirs]
    best, share = _closest(ours, usual)
    if share >= MOVED_IDENTICAL or theirs.ndim > MOST_AXES:
        return best
    moved, moved_share = _closest(
        ours, [theirs.transpose(order) for order in permutations(range(theirs.ndim))]
    )
    return moved if moved_share >= MOVED_IDENTICAL else best


def _closest(ours: np.ndarray, layouts: Sequence[np.ndarray]) -> tuple[np.ndarray | None, float]:
    """Return the layout that is closest, and the share of elements that are equal."""
    fitting = [layout for layout in layouts if layout.shape == ours.shape]
    if not fitting:
        return None, 0.0
    best = min(fitting, key=lambda layout: float(np.abs(ours - layout).sum()))
    return best, float(np.mean(best == ours)) if ours.size else 1.0


def _is_nearest(call: Call, args: tuple, kwargs: dict, theirs: np.ndarray) -> bool:
    """Tell whether integers are next to what the sim rounds, at most half a step away."""
    if call.layer.spec.is_half:
        return False
    with swapped(call.layer, {"arithmetic": UNROUNDED}):
        exact = infer(call.layer, args, kwargs)[1].numpy()
    return bool(np.all(np.abs(theirs - exact) <= 0.5 + NOISE * np.maximum(np.abs(exact), 1e3)))


def _made_by(graph: LayerGraph, call) -> str:
    """Return the operation behind a quantizer, with the activation that is fused into it."""
    maker = graph.producer(graph.name_of(call.node.call_args[0])).layer
    op = "Requantize" if isinstance(maker, FakeQuant) else op_type(getattr(maker, "layer", maker))
    activation = call.node.call_kwargs.get("activation")
    return f"{op}+{activation}" if activation else op
