"""Parts of a recurrent cell: layers that are called once per step, and keep one grid for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
import tf_keras

from keras_edgeq.graph.known_outputs import KnownOutputs
from keras_edgeq.ops import plain

L = tf_keras.layers
ADD, SUB, MUL = (op.name for op in (plain.ADD, plain.SUB, plain.MUL))


class CellPart(KnownOutputs):
    """A part of a recurrent cell.

    A sim has one grid for what it makes in all steps, because a state that came back to itself on
    another grid in each step would be rounded anew there.
    """

    def output_specs(self, inputs: Any, *_: Any, **__: Any) -> tf.TensorSpec:
        """Return what a call makes: one tensor of float32."""
        shape = tf.nest.flatten(inputs)[0].shape
        return tf.TensorSpec(self.compute_output_shape(shape), tf.float32)


@tf_keras.saving.register_keras_serializable("keras_edgeq")
class CellDense(CellPart, L.Dense):
    """A `Dense` on the state of a cell."""


@tf_keras.saving.register_keras_serializable("keras_edgeq")
class CellActivation(CellPart, L.Activation):
    """An `Activation` inside of a cell."""


@tf_keras.saving.register_keras_serializable("keras_edgeq")
class CellOp(CellPart):
    """A sum, difference or product of two tensors inside of a cell.

    Args:
        op: as profiles name it, `"Add"`, `"Sub"` or `"Mul"`.
        is_state: whether it is a part of what the cell carries from step to step, in which errors
            add up: profiles may give such parts more bits.

    Call arguments:
        inputs: two float tensors.
    """

    def __init__(self, op: str, is_state: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.op, self.is_state = op, is_state

    def call(self, inputs: Any):
        """Compute it."""
        return FUNCTIONS[self.op](*inputs)

    def compute_output_shape(self, input_shape: Any):
        """Return the shape of an operand: they have the same."""
        return input_shape

    def get_config(self):
        """Return what it computes, and whether on the state."""
        return {**super().get_config(), "op": self.op, "is_state": self.is_state}


FUNCTIONS: Mapping[str, Callable[[Any, Any], Any]] = {
    ADD: tf.add,
    SUB: tf.subtract,
    MUL: tf.multiply,
}
