"""Walk a sim beside its float model: at every quantizer, what both hold there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import tensorflow as tf
import tf_keras

from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.graph.rebuild import Call, infer, replay
from keras_edgeq.layers import FakeQuant
from keras_edgeq.prepare.fold_batch_norms import batch_norms_behind
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.spec.tensor_ref import TensorRef

OnCall = Callable[[Call, tuple, dict], Any]
Visit = Callable[[str, Any, Any], None]


class Floats:
    """Every tensor of a float model for a few samples, computed when they are first asked for.

    Args:
        model: the float model with the layers of a sim; batch norms that train stand behind their
            layers in both.
        samples: in the order of the model's inputs.
    """

    def __init__(self, model: tf_keras.Model, samples: Sequence[Any]):
        self.model, self.samples = model, [tf.constant(part) for part in samples]

    @cached_property
    def values(self) -> dict[int, Any]:
        """The tensors by the id of their symbols."""
        values = {id(k): v for k, v in zip(self.model.inputs, self.samples, strict=True)}

        def on_call(call, args, kwargs):
            outputs = infer(call.layer, args, kwargs)
            symbols = tf.nest.flatten(call.node.outputs)
            values.update(zip(map(id, symbols), tf.nest.flatten(outputs), strict=True))
            return outputs

        replay(self.model, self.samples, on_call)
        return values

    @property
    def outputs(self) -> list[Any]:
        """The tensors that the model puts out."""
        return [self.values[id(symbol)] for symbol in self.model.outputs]


class Beside:
    """A sim and the float model it stands for, ready to be walked together.

    Args:
        floats: the float model's tensors.
        sim: the sim.
    """

    def __init__(self, floats: Floats, sim: QuantSim):
        self.floats, self.sim, prepared = floats, sim, floats.model
        self._behind = {layer: norm for norm, layer in batch_norms_behind(prepared).items()}
        made = [node.call for node in LayerGraph.of(prepared).nodes]
        self._read = {(c.layer.name, c.number): list(map(id, c.reads)) for c in made}
        self._made = {
            call.output_ref(i): id(symbol)
            for call in made
            for i, symbol in enumerate(tf.nest.flatten(call.node.outputs))
        }

    def walk(self, on_call: OnCall, visit: Visit, forced: bool = True) -> Any:
        """Compute the sim and visit its quantized tensors in topological order.

        Args:
            on_call: how a call of the sim is computed.
            visit: `(tensor, float value, the sim's value)`, called for each quantizer.
            forced: whether what comes behind a quantizer reads the float value, so that a
                difference is seen where it is made and nowhere else.

        Returns:
            The outputs of the sim, in its structure.
        """

        def compute(call, args, kwargs):
            outputs = on_call(call, args, kwargs)
            if not isinstance(call.layer, FakeQuant):
                return outputs
            name = call.node.call_kwargs["tensor"]
            wanted = self.floats.values[self._symbol(name)]
            masked = FakeQuant.is_masked(wanted, kwargs)
            seen = wanted if masked is None else tf.where(masked, outputs[0], wanted)
            visit(name, seen, outputs[0])
            scale = outputs[2]
            return (wanted, wanted / scale, scale) if forced else outputs

        return replay(self.sim, self.floats.samples, compute)

    def _symbol(self, name: str) -> int:
        """Return which tensor of the float model a quantizer is for."""
        if "<" in name:
            ref = TensorRef.parse(name, "input")
            return self._read[ref.layer, ref.call][ref.index]
        ref = TensorRef.parse(name, "output")
        behind = self._behind.get(ref.layer, ref.layer)
        return self._made[TensorRef(behind, "output", ref.call, ref.index)]
