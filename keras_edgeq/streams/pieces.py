"""`Piece`: a stretch of a model's calls, traced once, from the tensors alive in front of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
import tf_keras

from keras_edgeq.graph.rebuild import Call, compute

OnCall = Callable[[Call, tuple, dict], Any]


@dataclass(frozen=True, eq=False)
class Piece:
    """Computes the tensors that live behind a stretch of calls.

    Args:
        alive: tensors it takes, by the id of their symbols.
        origin: tensor behind it -> `(key, -1)` of the one in front that it is, or `(None, index)`
            among the outputs.
        function: the traced function over a list of tensors.
    """

    alive: tuple[int, ...]
    origin: Mapping[int, tuple[int | None, int]]
    function: Callable[[list], list]

    def __call__(self, values: Mapping[int, Any]) -> dict[int, Any]:
        """Return what lives behind the piece, of what lives in front of it."""
        outputs = self.function([values[key] for key in self.alive])
        return {
            key: outputs[made] if held is None else values[held]
            for key, (held, made) in self.origin.items()
        }


def trace_piece(
    walked: Sequence[Call],
    alive: Sequence[int],
    wanted: Sequence[int],
    specs: MutableMapping[int, tf.TensorSpec],
    on_call: OnCall,
) -> Piece:
    """Trace a stretch of calls.

    Args:
        walked: the calls in order.
        alive: tensors in front of them, by the id of their symbols.
        wanted: tensors that are read behind them.
        specs: of the tensors in front; those behind are added.
        on_call: how a call is computed.
    """
    origin: dict[int, tuple[int | None, int]] = {}

    def run(tensors):
        values = dict(zip(alive, tensors, strict=True))
        known: dict[int, tuple[int | None, int]] = {
            id(tensor): (key, -1) for key, tensor in values.items()
        }
        compute(walked, values, on_call)
        outputs = []
        for key in wanted:
            tensor = values[key]
            if id(tensor) not in known:
                known[id(tensor)] = (None, len(outputs))
                outputs.append(tensor)
            origin[key] = known[id(tensor)]
            # What a call makes here may differ from what its symbol says: a scale of 1.
            specs[key] = tf.TensorSpec(tensor.shape, tensor.dtype)
        return outputs

    signature = [[specs[key] for key in alive]]
    traced = tf.function(run, input_signature=signature, autograph=False)
    return Piece(tuple(alive), origin, traced.get_concrete_function())


def made_by(walked: Sequence[Call]) -> list[int]:
    """Return the tensors that calls make, by the id of their symbols."""
    return [id(t) for call in walked for t in tf.nest.flatten(call.node.outputs)]


def last_reads(walked: Sequence[Call], model: tf_keras.Model) -> dict[int, int]:
    """Return the index of the last call that reads a tensor, by its id; outputs are read last."""
    last = {}
    for i, call in enumerate(walked):
        last.update({id(t): i for t in call.reads})
    last.update({id(t): len(walked) for t in model.outputs})
    return last
