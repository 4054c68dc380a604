"""What each quantizer costs at the outputs: alone in the float model, and missing in the sim."""

from __future__ import annotations

import heapq
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_edgeq.diagnose.ways import EXACT, OFF, ON, ROUND, SIM, Parameters, Way, compute_call
from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.rebuild import calls
from keras_edgeq.layers import FakeQuant, QuantizedLayer
from keras_edgeq.measure.gated_sim import work_of
from keras_edgeq.measure.output_loss import OutputLoss
from keras_edgeq.sim.quant_sim import QuantSim

ACTIVATION, WEIGHTS = "activation", "weights"


@dataclass(frozen=True)
class Unit:
    """A quantizer that is switched: the grid of activations, or the weights and bias of a layer.

    Args:
        kind: `"activation"` or `"weights"`.
        name: of the tensor that owns the grid, or of the layer.
    """

    kind: str
    name: str


@dataclass(frozen=True, eq=False)
class Switched:
    """What one quantizer does to the outputs.

    Args:
        alone: loss of the float model with only this quantizer.
        without: loss of the sim without it.
    """

    alone: OutputLoss
    without: OutputLoss


class Switches:
    """Computes a sim with single quantizers on or off; what they do not reach is computed once.

    Args:
        sim: a calibrated sim; it is not changed.
        known: its parameters.

    Attributes:
        units: what can be switched, in graph order.
        passes: forward passes over one chunk so far, each weighed by the work of its calls.
        unclipped: loss of the sim if its activations are rounded but not clipped; after `measure`.
    """

    def __init__(self, sim: QuantSim, known: Parameters):
        self._sim, self._known = sim, known
        self._calls = [call for call in calls(sim) if not call.node.is_input]
        work = np.array([work_of(call) for call in self._calls], np.float64)
        self._shares = work / max(work.sum(), 1.0)
        self._readers: dict[int, list[int]] = {}
        members: dict[Unit, list[int]] = {}
        for number, call in enumerate(self._calls):
            for key in dict.fromkeys(map(id, call.reads)):
                self._readers.setdefault(key, []).append(number)
            unit = _unit_of(call.layer)
            if unit is not None:
                members.setdefault(unit, []).append(number)
        self.units = tuple(members)
        self._members = members
        self.passes = 0.0
        self.unclipped = OutputLoss(np.zeros((0, 5)))

    def expense(self, unit: Unit) -> float:
        """Return the forward passes that measuring a quantizer takes, on and off, at most."""
        return 2.0 * float(self._shares[self._members[unit][0] :].sum())

    def measure(
        self,
        chunks: Iterable[Sequence[NDArray]],
        units: Sequence[Unit],
        step: Callable[[], None] = lambda: None,
    ) -> tuple[OutputLoss, Mapping[Unit, Switched]]:
        """Return the loss of the sim, and what each quantizer does, over chunks of samples.

        Args:
            chunks: samples in the order of the sim's inputs; all tensors of one are held at once.
            units: what to switch.
            step: called after each quantizer of each chunk.
        """
        whole: list[OutputLoss] = []
        unclipped: list[OutputLoss] = []
        found: dict[Unit, list[Switched]] = {unit: [] for unit in units}
        for chunk in chunks:
            exact, rounded = (self._all(chunk, way) for way in (EXACT, SIM))
            wanted = self._outputs(exact)
            whole.append(OutputLoss.of(wanted, self._outputs(rounded)))
            without_ends = self._outputs(self._all(chunk, Way(ROUND, ON)))
            unclipped.append(OutputLoss.of(wanted, without_ends))
            for unit in units:
                alone = self._outputs(self._again(unit, exact, EXACT, ON))
                without = self._outputs(self._again(unit, rounded, SIM, OFF))
                losses = (OutputLoss.of(wanted, outputs) for outputs in (alone, without))
                found[unit].append(Switched(*losses))
                step()
        made = {
            unit: Switched(
                OutputLoss.total(one.alone for one in parts),
                OutputLoss.total(one.without for one in parts),
            )
            for unit, parts in found.items()
        }
        self.unclipped = OutputLoss.total(unclipped)
        return OutputLoss.total(whole), made

    def _all(self, chunk: Sequence[NDArray], way: Way) -> dict[int, Any]:
        """Return every tensor of the sim on some samples, by the id of its symbol."""
        values = {id(t): tf.constant(v) for t, v in zip(self._sim.inputs, chunk, strict=True)}
        for number in range(len(self._calls)):
            self._compute(number, values, values, way)
        return values

    def _again(
        self, unit: Unit, base: Mapping[int, Any], way: Way, state: str
    ) -> Mapping[int, Any]:
        """Return the tensors with one quantizer in another state; only what it reaches is new."""
        changed: dict[int, Any] = {}
        values = ChainMap(changed, base)  # type: ignore[arg-type]
        members = set(self._members[unit])
        own = Way(state, way.weights) if unit.kind == ACTIVATION else Way(way.activations, state)
        due = list(members)
        heapq.heapify(due)
        last = -1
        while due:
            number = heapq.heappop(due)
            if number == last:
                continue
            last = number
            made = self._compute(number, values, changed, own if number in members else way)
            for key in made:
                for reader in self._readers.get(key, ()):
                    heapq.heappush(due, reader)
        return values

    def _compute(
        self, number: int, values: Mapping[int, Any], into: dict[int, Any], way: Way
    ) -> list[int]:
        call = self._calls[number]
        args, kwargs = keras_compat.arguments(call.node, values)  # type: ignore[arg-type]
        outputs = tf.nest.flatten(compute_call(call, args, kwargs, way, self._known))
        keys = [id(symbol) for symbol in tf.nest.flatten(call.node.outputs)]
        into.update(zip(keys, outputs, strict=True))
        self.passes += self._shares[number]
        return keys

    def _outputs(self, values: Mapping[int, Any]) -> list[NDArray]:
        return [np.asarray(values[id(symbol)]) for symbol in self._sim.outputs]


def _unit_of(layer: Any) -> Unit | None:
    if isinstance(layer, FakeQuant):
        return Unit(ACTIVATION, layer.tensor)
    return Unit(WEIGHTS, layer.name) if isinstance(layer, QuantizedLayer) else None
