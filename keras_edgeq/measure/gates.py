"""`Gates`: what a gated sim needs where candidates differ in their activations.

A tensor lies on the grid of the precision that makes it, or on none. A layer that reads in fewer
bits than that rounds again, at an edge. Each is a variable, so nothing is traced again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from keras_edgeq.graph.rebuild import Call, infer
from keras_edgeq.layers import FakeQuant, QuantizedLayer
from keras_edgeq.layers.apart import infer_apart
from keras_edgeq.measure.candidate_grids import CandidateGrids
from keras_edgeq.measure.groups import width
from keras_edgeq.numerics.round_to_steps import to_steps
from keras_edgeq.spec.encoding import Encoding
from keras_edgeq.spec.tensor_ref import TensorRef
from keras_edgeq.streams.stream import float_call, real_input


class _Edge:
    """A layer's reading of a tensor: rounds again where it is active."""

    def __init__(self, number: int, layer: str, tensor: str, like: FakeQuant):
        self.number, self.layer, self.tensor = number, layer, tensor
        self.active = tf.Variable(False, trainable=False)
        self.grid = FakeQuant(like.spec, tensor)
        self.grid.build((None,))


class Gates:
    """Switches of a sim's quantizers, layers and edges.

    Args:
        walked: the calls of the sim.
        grids: what tensors become at each candidate.

    Attributes:
        positions: number of the first call that reads each setting.
    """

    def __init__(self, walked: Sequence[Call], grids: CandidateGrids):
        self._grids, self._profile = grids, grids.base.record.profile
        self.positions: dict[tuple[str, Any], int] = {}
        self._quantizers: dict[str, FakeQuant] = {}
        self._is_float: dict[tuple[str, str], tf.Variable] = {}
        self._edges: dict[int, _Edge] = {}
        groups = {group.name for group in grids.groups}
        scales: dict[int, FakeQuant] = {}
        for number, call in enumerate(walked):
            layer = call.layer
            if isinstance(layer, FakeQuant):
                self._quantizers[layer.tensor] = layer
                self.positions.setdefault(("tensor", layer.tensor), number)
                scales[id(tf.nest.flatten(call.node.outputs)[2])] = layer
                self._flag("tensor", layer.tensor)
            elif isinstance(layer, QuantizedLayer) and layer.name in groups:
                self._flag("layer", layer.name)
                read = scales.get(id(call.node.call_kwargs.get("input_scale")))
                if read is not None:
                    self._edges[number] = _Edge(number, layer.name, read.tensor, read)
                    self.positions[("edge", number)] = number
        self._numbers = {id(call.node): number for number, call in enumerate(walked)}

    def _flag(self, kind: str, name: str) -> None:
        self._is_float.setdefault((kind, name), tf.Variable(False, trainable=False))

    def settings(self, names: Mapping[str, str]) -> dict[tuple[str, Any], str | None]:
        """Return the precision of every tensor and edge; None if an edge does nothing.

        Args:
            names: precision of every layer.
        """
        made: dict[tuple[str, Any], str | None] = {}
        for tensor in self._quantizers:
            made["tensor", tensor] = self._precision(tensor, names)
        for number, edge in self._edges.items():
            have, wanted = made["tensor", edge.tensor], names[edge.layer]
            assert have is not None  # tensors have a precision
            narrower = width(self._profile, wanted) < width(self._profile, have)
            made["edge", number] = wanted if narrower and self._grid(wanted, edge.tensor) else None
        return made

    def set(self, key: tuple[str, Any], value: str | None) -> None:
        """Set the variables of a key."""
        kind, name = key
        if kind == "layer":
            precision = self._profile.precision(str(value))
            self._is_float[kind, name].assign(not precision.is_integer)
        elif kind == "tensor":
            grid = self.grid(key, value)
            self._is_float[kind, name].assign(grid is None)
            if grid is not None:
                self._quantizers[name].assign(grid)
        else:
            grid = self.grid(key, value)
            self._edges[name].active.assign(grid is not None)
            if grid is not None:
                self._edges[name].grid.assign(grid)

    def grid(self, key: tuple[str, Any], value: str | None) -> Encoding | None:
        """Return the grid that a tensor or an edge has; None if it does not round."""
        kind, name = key
        return self._grid(value, name if kind == "tensor" else self._edges[name].tensor)

    def on_call(self, call: Call, args: tuple, kwargs: dict) -> Any:
        """Compute a call with what is set."""
        layer = call.layer
        if isinstance(layer, FakeQuant):
            return tf.cond(
                self._is_float["tensor", layer.tensor],
                lambda: self._unrounded(layer, args, kwargs),
                lambda: infer(layer, args, kwargs),
            )
        if not isinstance(layer, QuantizedLayer) or ("layer", layer.name) not in self._is_float:
            return infer_apart(layer, args, kwargs)
        edge = self._edges.get(self._numbers[id(call.node)])
        return tf.cond(
            self._is_float["layer", layer.name],
            lambda: self._in_float(call, args, kwargs),
            lambda: self._in_integers(call, edge, args, kwargs),
        )

    def _precision(self, tensor: str, names: Mapping[str, str]) -> str:
        """Return the precision that makes a tensor; inputs of the model have that of a reader."""
        ref = TensorRef.parse(tensor, "input" if "<" in tensor else "output")
        if ref.layer in names:
            return names[ref.layer]
        graph = self._grids.graph
        readers = [names[n.layer.name] for n in graph.consumers(ref) if n.layer.name in names]
        integer = [n for n in readers if self._profile.precision(n).is_integer]
        wanted = integer or readers or [self._profile.own.name]
        return max(wanted, key=lambda name: width(self._profile, name))

    def _grid(self, precision: str | None, tensor: str) -> Encoding | None:
        return None if precision is None else self._grids.activations[precision].get(tensor)

    @staticmethod
    def _unrounded(layer: FakeQuant, args: tuple, kwargs: dict) -> Any:
        scale = kwargs.get("input_scale")
        real = args[0] if scale is None else args[0] * tf.cast(scale, tf.float32)
        real = layer.activate(real, kwargs)
        return real, real, tf.ones_like(layer.scale)

    @staticmethod
    def _in_float(call: Call, args: tuple, kwargs: dict) -> Any:
        layer = call.layer
        outputs, _, _ = float_call(call, (real_input(args, kwargs), *args[1:]), {})
        ones = tf.ones_like(layer.quantizers[layer.kernel_name].scale)
        return outputs, outputs, layer.per_output(ones)

    @staticmethod
    def _in_integers(call: Call, edge: _Edge | None, args: tuple, kwargs: dict) -> Any:
        if edge is not None:
            steps, scale = tf.cond(
                edge.active,
                lambda: edge.grid(real_input(args, kwargs))[1:],
                lambda: (_steps(args, kwargs), kwargs["input_scale"]),
            )
            args, kwargs = (steps, *args[1:]), {**kwargs, "input_scale": scale, "in_steps": True}
        outputs, sums, scale = infer(call.layer, args, kwargs)
        return outputs, sums, tf.cast(scale, tf.float32)


def _steps(args: tuple, kwargs: dict) -> Any:
    return args[0] if kwargs.get("in_steps") else to_steps(args[0], kwargs["input_scale"])
