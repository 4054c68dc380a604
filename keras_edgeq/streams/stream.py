"""`Stream`: a model's activations on some data, moved forward through the graph.

What is kept of each batch are the tensors that later calls still read, so that a walk over all
layers computes every call once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import tensorflow as tf
import tf_keras

from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.rebuild import Call, calls
from keras_edgeq.layers import FakeQuant, QuantizedLayer
from keras_edgeq.layers.apart import infer_apart
from keras_edgeq.streams.pieces import OnCall, Piece, last_reads, made_by, trace_piece
from keras_edgeq.streams.store import StoredBatches, TensorStore


def float_call(call: Call, args: tuple, kwargs: dict) -> Any:
    """Compute a call of a sim as the float model does: no rounding, on any grid."""
    layer = call.layer
    if isinstance(layer, FakeQuant):
        tensor = layer.activate(args[0], kwargs)
        return tensor, tensor, tf.constant(1.0)
    if isinstance(layer, QuantizedLayer):
        outputs = infer_apart(layer.layer, args, {})
        return outputs, outputs, tf.constant(1.0)
    return infer_apart(layer, args, kwargs)


def rounded_call(call: Call, args: tuple, kwargs: dict) -> Any:
    """Compute a call as the sim does."""
    return infer_apart(call.layer, args, kwargs)


def float_activations_call(call: Call, args: tuple, kwargs: dict) -> Any:
    """Compute a call of a sim with rounded parameters on activations that are not rounded."""
    if isinstance(call.layer, QuantizedLayer):
        return infer_apart(call.layer, args, {})
    return float_call(call, args, kwargs)


def real_input(args: tuple, kwargs: dict) -> Any:
    """Return the input of a call of a quantized layer in real units."""
    return args[0] * kwargs["input_scale"] if kwargs.get("in_steps") else args[0]


class Stream:
    """The activations of a model in front of one of its calls, batch by batch.

    Args:
        model: a functional model; `position` counts its `calls`, inputs left out.
        on_call: how a call is computed.
        source: batches of model inputs.
        store: where the tensors lie.
    """

    def __init__(
        self,
        model: tf_keras.Model,
        on_call: OnCall,
        source: StoredBatches,
        store: TensorStore,
    ):
        self.calls = [call for call in calls(model) if not call.node.is_input]
        self.position = 0
        self._on_call, self._source, self._store = on_call, source, store
        self._last_read = last_reads(self.calls, model)
        self._specs = {id(t): tf.TensorSpec(t.shape, t.dtype) for t in model.inputs}
        self._inputs = list(self._specs)
        self._alive = self._inputs
        # Tensors that are model inputs lie in `source`; the rest is held here, batch by batch.
        self._fed = {key: key for key in self._inputs}
        self._batches: list[dict[int, int]] = [{} for _ in range(len(source))]

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._batches)

    def advance(self, stop: int) -> None:
        """Compute the calls up to `stop`, that one left out, on every batch."""
        if stop == self.position:
            return
        piece = self._piece(stop)
        origin = piece.origin
        for index, held in enumerate(self._batches):
            tensors = self._tensors(index, self._alive)
            outputs = [self._store.put(output) for output in piece.function(list(tensors.values()))]
            now = {
                key: outputs[made] if held_key is None else held[held_key]
                for key, (held_key, made) in origin.items()
                if held_key not in self._fed
            }
            for number in set(held.values()) - set(now.values()):
                self._store.drop(number)
            self._batches[index] = now
        self._fed.update({k: self._fed[h] for k, (h, _) in origin.items() if h in self._fed})
        self._alive, self.position = list(origin), stop

    def arguments(self, batch: int) -> tuple[tuple, dict]:
        """Return the arguments of the call at `position` on one batch."""
        call = self.calls[self.position]
        keys = dict.fromkeys(map(id, call.reads))
        return keras_compat.arguments(call.node, self._tensors(batch, keys))

    def living(self, batch: int) -> dict[int, tf.Tensor]:
        """Return every tensor of one batch that is still read, by the id of its symbol."""
        return self._tensors(batch, self._alive)

    def _tensors(self, batch: int, keys: Iterable[int]) -> dict[int, tf.Tensor]:
        """Return living tensors of a batch."""
        held = self._batches[batch]
        inputs = dict(zip(self._inputs, self._source[batch], strict=True))
        return {
            key: inputs[self._fed[key]] if key in self._fed else self._store.get(held[key])
            for key in keys
        }

    def _piece(self, stop: int) -> Piece:
        """Return the calls up to `stop`, traced over the living tensors."""
        walked = self.calls[self.position : stop]
        known = (*self._alive, *made_by(walked))
        wanted = [key for key in known if self._last_read.get(key, -1) >= stop]
        return trace_piece(walked, self._alive, wanted, self._specs, self._on_call)
