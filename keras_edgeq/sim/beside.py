"""Walk a sim beside its float model: at every quantizer, what both hold there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from keras_edgeq.graph.rebuild import Call, calls, infer, replay
from keras_edgeq.layers import FakeQuant
from keras_edgeq.prepare.fold_batch_norms import batch_norms_behind
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.spec.tensor_ref import TensorRef

OnCall = Callable[[Call, tuple, dict], Any]
Visit = Callable[[str, Any, Any], None]


class Beside:
    """A sim and the float model it stands for, ready to be walked together.

    Args:
        prepared: the float model with the layers of the sim; batch norms that train stand behind
            their layers in both.
        sim: the sim.
    """

    def __init__(self, prepared: tf_keras.Model, sim: QuantSim):
        self.prepared, self.sim = prepared, sim
        self._behind = {layer: norm for norm, layer in batch_norms_behind(prepared).items()}
        self._read = {
            (call.layer.name, call.number): list(map(id, call.reads)) for call in calls(prepared)
        }
        self._made = {
            call.output_ref(i): id(symbol)
            for call in calls(prepared)
            for i, symbol in enumerate(tf.nest.flatten(call.node.outputs))
        }

    def floats(self, inputs: Sequence[Any]) -> dict[int, Any]:
        """Return every tensor of the float model, by the id of its symbol."""
        values = {id(k): v for k, v in zip(self.prepared.inputs, inputs, strict=True)}

        def on_call(call, args, kwargs):
            outputs = infer(call.layer, args, kwargs)
            symbols = tf.nest.flatten(call.node.outputs)
            values.update(zip(map(id, symbols), tf.nest.flatten(outputs), strict=True))
            return outputs

        replay(self.prepared, inputs, on_call)
        return values

    def walk(
        self,
        inputs: Sequence[Any],
        floats: dict[int, Any],
        on_call: OnCall,
        visit: Visit,
        forced: bool = True,
    ) -> Any:
        """Compute the sim and visit its quantized tensors in topological order.

        Args:
            inputs: tensors in the order of the model's inputs.
            floats: what `floats` returned for them.
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
            wanted = floats[self._symbol(name)]
            visit(name, wanted, outputs[0])
            scale = outputs[2]
            return (wanted, wanted / scale, scale) if forced else outputs

        return replay(self.sim, inputs, compute)

    def _symbol(self, name: str) -> int:
        """Return which tensor of the float model a quantizer is for."""
        if "<" in name:
            ref = TensorRef.parse(name, "input")
            return self._read[ref.layer, ref.call][ref.index]
        ref = TensorRef.parse(name, "output")
        behind = self._behind.get(ref.layer, ref.layer)
        return self._made[TensorRef(behind, "output", ref.call, ref.index)]
