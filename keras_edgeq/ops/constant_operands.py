"""Layers that add a constant to each sample, or multiply with it: positions, class tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras


class _ConstantOperand(tf_keras.layers.Layer):
    """Holds a constant that every sample meets; as behind an operation, masks end here."""

    def __init__(self, shape: Sequence[int], **kwargs: Any):
        super().__init__(**kwargs)
        self.shape = tuple(shape)

    def build(self, input_shape: Any):
        """Create the constant."""
        self.value = self.add_weight("value", self.shape, initializer="zeros")
        super().build(input_shape)

    def compute_output_shape(self, input_shape: Any):
        """Return the shape of the input."""
        return tf.TensorShape(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Return the shape of the constant."""
        return {**super().get_config(), "shape": self.shape}


@tf_keras.saving.register_keras_serializable("keras_edgeq")
class AddConstant(_ConstantOperand):
    """Adds a constant to each sample.

    Args:
        shape: of the constant, which is broadcast to a sample and not the sample to it; 1 or no
            size for the batch.

    Call arguments:
        inputs: float tensor, batch first.

    Returns:
        A tensor of the same shape.
    """

    def call(self, inputs: Any):
        """Add the constant."""
        return inputs + self.value


@tf_keras.saving.register_keras_serializable("keras_edgeq")
class MultiplyConstant(_ConstantOperand):
    """Multiplies each sample with a constant, element by element.

    Args:
        shape: as of `AddConstant`.

    Call arguments:
        inputs: float tensor, batch first.

    Returns:
        A tensor of the same shape.
    """

    def call(self, inputs: Any):
        """Multiply with the constant."""
        return inputs * self.value
