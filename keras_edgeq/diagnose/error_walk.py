"""What each tensor of a sim loses by itself, by cause, and what it inherits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray

from keras_edgeq.diagnose.ways import CAUSES, SIM, Parameters, Way, compute_call
from keras_edgeq.graph.rebuild import Call, calls
from keras_edgeq.layers import FakeQuant, QuantizedLayer
from keras_edgeq.layers.apart import infer_apart
from keras_edgeq.sim.beside import Beside, Floats
from keras_edgeq.sim.quant_sim import QuantSim

# A walk for each cause, one on float inputs, one on the sim's own, and the float model itself.
WALKS = len(CAUSES) + 3


@dataclass(eq=False)
class TensorSums:
    """Sums over all samples of one quantized tensor.

    Attributes:
        signal: power of the float model's numbers.
        own: power of the error made from float inputs.
        inherited: power of what the sim's inputs change.
        total: power of the whole error.
        noise: cause -> power of the error that it makes alone, from float inputs.
        sim: power of the sim's numbers.
        product: sum of products of the float model's numbers and the sim's.
        clipped: how many numbers lie beyond the grid, by more than half a step.
        count: how many numbers there are.
        low: smallest number of each channel of the last axis.
        high: greatest.
        mean: sum of each channel.
        square: sum of squares of each channel.
    """

    signal: float = 0.0
    own: float = 0.0
    inherited: float = 0.0
    total: float = 0.0
    noise: dict[str, float] = field(default_factory=lambda: dict.fromkeys(CAUSES, 0.0))
    sim: float = 0.0
    product: float = 0.0
    clipped: int = 0
    count: int = 0
    low: Any = None
    high: Any = None
    mean: Any = 0.0
    square: Any = 0.0

    def see(self, values: NDArray, ends: tuple[float, float] | None) -> None:
        """Count the float model's numbers; `ends` are those of the grid."""
        rows = values.reshape(-1, values.shape[-1] if values.ndim > 1 else 1)
        low, high = rows.min(0, initial=np.inf), rows.max(0, initial=-np.inf)
        self.low = low if self.low is None else np.minimum(self.low, low)
        self.high = high if self.high is None else np.maximum(self.high, high)
        wide = rows.astype(np.float64)
        self.mean = self.mean + wide.sum(0)
        self.square = self.square + np.square(wide).sum(0)
        self.count += values.size
        if ends is not None:
            self.clipped += int(np.sum((values < ends[0]) | (values > ends[1])))


class ErrorWalk:
    """Walks a sim beside its float model, chunk by chunk of samples.

    Args:
        sim: a calibrated sim; it is not changed.
        model: the float model it stands for (`stripped`).
        known: its parameters.

    Attributes:
        sums: quantized tensor -> its sums, in graph order.
        accumulated: layer -> the largest sum of products seen in it, in integers.
    """

    def __init__(self, sim: QuantSim, model: tf_keras.Model, known: Parameters):
        self._sim, self._model, self._known = sim, model, known
        self._ends = {name: _ends(one) for name, one in quantizers_by_tensor(sim).items()}
        self.sums: dict[str, TensorSums] = {}
        self.accumulated: dict[str, float] = {}

    def add(self, samples: Sequence[NDArray], step: Callable[[], None] = lambda: None) -> None:
        """Walk over some samples; all tensors of them are held at once.

        Args:
            samples: in the order of the model's inputs.
            step: called after each of the `WALKS` walks.
        """
        beside = Beside(Floats(self._model, samples), self._sim)
        own: dict[str, Any] = {}

        def on_own(name, wanted, got):
            one = self.sums.setdefault(name, TensorSums())
            one.see(np.asarray(wanted), self._ends[name])
            one.signal += _power(wanted)
            one.own += _power(got - wanted)
            own[name] = got

        def on_total(name, wanted, got):
            one = self.sums[name]
            one.total += _power(got - wanted)
            one.inherited += _power(got - own.pop(name))
            one.sim += _power(got)
            one.product += float(tf.reduce_sum(got * wanted))

        _ = beside.floats.values
        step()
        beside.walk(self._in(SIM), on_own)
        step()
        beside.walk(self._accumulating, on_total, forced=False)
        step()
        for cause, way in CAUSES.items():
            beside.walk(self._in(way), self._adds(cause))
            step()

    def _accumulating(self, call: Call, args: tuple, kwargs: dict) -> Any:
        outputs, layer = infer_apart(call.layer, args, kwargs), call.layer
        if isinstance(layer, QuantizedLayer) and layer.sums_integers and "input_scale" in kwargs:
            most = float(tf.reduce_max(tf.abs(outputs[1])))
            self.accumulated[layer.name] = max(most, self.accumulated.get(layer.name, 0.0))
        return outputs

    def _in(self, way: Way) -> Callable[..., Any]:
        return lambda call, args, kwargs: compute_call(call, args, kwargs, way, self._known)

    def _adds(self, cause: str) -> Callable[[str, Any, Any], None]:
        def visit(name, wanted, got):
            self.sums[name].noise[cause] += _power(got - wanted)

        return visit


def _power(values: Any) -> float:
    return float(tf.reduce_sum(tf.square(tf.cast(values, tf.float64))))


def quantizers_by_tensor(sim: QuantSim) -> dict[str, FakeQuant]:
    """Return the quantizer of every quantized tensor; several may share one."""
    return {
        call.node.call_kwargs["tensor"]: call.layer
        for call in calls(sim)
        if isinstance(call.layer, FakeQuant)
    }


def _ends(quantizer: FakeQuant) -> tuple[float, float] | None:
    """Return between which numbers a grid clips nothing, None for half precision."""
    encoding = quantizer.encoding
    if encoding is None or encoding.spec.is_half:
        return None
    half = float(np.max(encoding.scale)) / 2
    return float(np.min(encoding.min)) - half, float(np.max(encoding.max)) + half
