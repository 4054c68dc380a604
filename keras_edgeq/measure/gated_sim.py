"""`GatedSim`: a sim with gates that computes any choice of precisions, traced once.

Bits, scales and weights of a choice are assigned to variables. The network is traced in pieces
between the places where groups begin, so that what precedes a change is computed once for all
choices that share it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_edgeq.graph.rebuild import calls
from keras_edgeq.layers import QuantizedLayer
from keras_edgeq.measure.candidate_grids import CandidateGrids, parameters
from keras_edgeq.measure.gates import Gates
from keras_edgeq.sim.freeze import copy_sim
from keras_edgeq.streams.pieces import Piece, last_reads, made_by, trace_piece
from keras_edgeq.streams.stream import rounded_call

# What is set: `("layer", name)`, `("tensor", name)` or `("edge", number of a call)`.
Key = tuple[str, Any]
Settings = Mapping[Key, str | None]


class GatedSim:
    """Computes choices of precisions on batches of inputs.

    Args:
        grids: what layers and tensors become.

    Attributes:
        cuts: numbers of the calls in front of which a choice can begin to differ.
        shares: work of each piece between two cuts, as a share of one pass.
    """

    def __init__(self, grids: CandidateGrids):
        self.grids = grids
        self._sim = copy_sim(grids.base)
        self._calls = [call for call in calls(self._sim) if not call.node.is_input]
        self._layers = self._sim.quantized_layers()
        self._floats = {
            name: {p: getattr(layer.layer, p).numpy() for p in parameters(layer)}
            for name, layer in self._layers.items()
        }
        self._gates = Gates(self._calls, grids) if grids.mixes_activations else None
        self._now: dict[Key, str | None] = {}
        self._positions = self._find_positions()
        # Never at the end: what follows the last cut computes something.
        self.cuts = sorted({0, *self._positions.values()})
        self.shares = self._work()
        self._pieces = self._trace()

    def settings(self, choice: Mapping[str, str]) -> Settings:
        """Return what has to be set for a choice of precisions."""
        names = self.grids.precisions(choice)
        made: dict[Key, str | None] = {("layer", g.name): choice[g.name] for g in self.grids.groups}
        if self._gates is not None:
            made.update(self._gates.settings(names))
        return made

    def apply(self, settings: Settings) -> None:
        """Set variables; what is set already is left alone."""
        for key, value in settings.items():
            if key not in self._now or self._now[key] != value:
                self._set(key, value)
                self._now[key] = value

    def start(self, settings: Settings, other: Settings) -> int:
        """Return the piece in which two settings begin to differ; the number of pieces if none."""
        changed = [self._positions[k] for k, v in settings.items() if other[k] != v]
        if not changed:
            return len(self._pieces)
        return int(np.searchsorted(self.cuts, min(changed), side="right")) - 1

    def begin(self, batch: Sequence[Any]) -> dict[int, Any]:
        """Return the tensors in front of the first piece."""
        return {id(t): value for t, value in zip(self._sim.inputs, batch, strict=True)}

    def step(self, piece: int, values: Mapping[int, Any]) -> dict[int, Any]:
        """Compute one piece with what is set now."""
        return self._pieces[piece](values)

    def outputs(self, values: Mapping[int, Any]) -> list[np.ndarray]:
        """Return the model's outputs among the tensors behind the last piece."""
        return [values[id(t)].numpy() for t in self._sim.outputs]

    def __len__(self) -> int:
        """Return the number of pieces."""
        return len(self._pieces)

    def _set(self, key: Key, value: str | None) -> None:
        kind, name = key
        if kind != "layer":
            assert self._gates is not None  # it made the key
            self._gates.set(key, value)
            return
        assert value is not None  # a layer has a precision
        layer, form = self._layers[name], self.grids.forms[name][value]
        for parameter, encoding in form.encodings.items():
            layer.quantizers[parameter].assign(encoding)
        for parameter, floats in self._floats[name].items():
            if any(parameter in f.values for f in self.grids.forms[name].values()):
                getattr(layer.layer, parameter).assign(form.values.get(parameter, floats))
        if self._gates is not None:
            self._gates.set(key, value)

    def _find_positions(self) -> dict[Key, int]:
        """Return the number of the first call that reads each setting."""
        found: dict[Key, int] = {}
        groups = {group.name for group in self.grids.groups}
        for number, call in enumerate(self._calls):
            if isinstance(call.layer, QuantizedLayer) and call.layer.name in groups:
                found.setdefault(("layer", call.layer.name), number)
        if self._gates is not None:
            found.update(self._gates.positions)
        return found

    def _work(self) -> list[float]:
        """Return the share of a pass that each piece takes: products, and elements written."""
        work = np.array([work_of(call) for call in self._calls], np.float64)
        sums = np.add.reduceat(work, self.cuts)
        return list(sums / sums.sum())

    def _trace(self) -> list[Piece]:
        last = last_reads(self._calls, self._sim)
        specs = {id(t): tf.TensorSpec(t.shape, t.dtype) for t in self._sim.inputs}
        alive, pieces = tuple(specs), []
        on_call = rounded_call if self._gates is None else self._gates.on_call
        for begin, end in zip(self.cuts, [*self.cuts[1:], len(self._calls)], strict=True):
            walked = self._calls[begin:end]
            known = dict.fromkeys((*alive, *made_by(walked)))
            wanted = [key for key in known if last.get(key, -1) >= end]
            pieces.append(trace_piece(walked, alive, wanted, specs, on_call))
            alive = tuple(wanted)
        return pieces


def work_of(call: Any) -> int:
    """Return multiply-accumulates and elements written by a call on one sample."""
    symbols = tf.nest.flatten(call.node.outputs)
    shape = symbols[0].shape
    elements = int(np.prod([size or 1 for size in shape[1:]])) if shape.rank else 0
    layer = call.layer
    if not isinstance(layer, QuantizedLayer):
        return elements
    kernel = getattr(layer.layer, layer.kernel_name)
    return elements + elements // max(int(shape[-1] or 1), 1) * int(kernel.shape.num_elements())
