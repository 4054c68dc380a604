"""`LayerGraph`: which layer makes a tensor and which layers read it."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import tensorflow as tf
import tf_keras

from keras_edgeq.graph.rebuild import Call, calls
from keras_edgeq.spec.tensor_ref import TensorRef


@dataclass(frozen=True, eq=False)
class GraphNode:
    """One call with the names of what it reads and makes."""

    call: Call
    inputs: tuple[TensorRef, ...]
    outputs: tuple[TensorRef, ...]
    shapes: tuple[tuple, ...]
    is_float: bool

    @property
    def layer(self):
        """The layer that is called."""
        return self.call.layer


class LayerGraph:
    """A read-only view of a functional model, in topological order.

    Read one with `LayerGraph.of`.
    """

    @classmethod
    def of(cls, model: tf_keras.Model) -> LayerGraph:
        """Return the graph of a model, read once: but for Sequential ones, models do not change."""
        if isinstance(model, tf_keras.Sequential):
            return cls(model)
        if model not in _GRAPHS:
            _GRAPHS[model] = cls(model)
        return _GRAPHS[model]

    def __init__(self, model: tf_keras.Model):
        self._names: dict[int, TensorRef] = {}
        self.nodes = tuple(self._read(call) for call in calls(model))
        self.outputs = tuple(self._names[id(t)] for t in model.outputs)
        self._producers = {ref: node for node in self.nodes for ref in node.outputs}
        self._calls: dict[int, list[GraphNode]] = {}
        for node in self.nodes:
            self._calls.setdefault(id(node.layer), []).append(node)
        self._consumers: dict[TensorRef, list[GraphNode]] = {}
        for node in self.nodes:
            for ref in dict.fromkeys(node.inputs):
                self._consumers.setdefault(ref, []).append(node)

    def _read(self, call: Call) -> GraphNode:
        symbols = tf.nest.flatten(call.node.outputs)
        outputs = tuple(call.output_ref(i) for i in range(len(symbols)))
        self._names.update(zip(map(id, symbols), outputs, strict=True))
        inputs = tuple(self._names[id(t)] for t in call.reads)
        return GraphNode(
            call,
            inputs,
            outputs,
            tuple(tuple(t.shape) if t.shape.rank is not None else () for t in symbols),
            all(t.dtype.is_floating for t in symbols),
        )

    def name_of(self, tensor) -> TensorRef:
        """Return the name of a symbolic tensor of the model."""
        return self._names[id(tensor)]

    def producer(self, ref: TensorRef) -> GraphNode:
        """Return the call that makes `ref`."""
        return self._producers[ref]

    def consumers(self, ref: TensorRef) -> list[GraphNode]:
        """Return the calls that read `ref`, each once."""
        return self._consumers.get(ref, [])

    def only_consumer(self, ref: TensorRef) -> GraphNode | None:
        """Return the call that reads `ref` if it is the only reader and `ref` is not an output."""
        readers = self.consumers(ref)
        return readers[0] if len(readers) == 1 and ref not in self.outputs else None

    def calls_of(self, layer) -> list[GraphNode]:
        """Return the calls of one layer."""
        return self._calls.get(id(layer), [])


_GRAPHS: WeakKeyDictionary[tf_keras.Model, LayerGraph] = WeakKeyDictionary()
