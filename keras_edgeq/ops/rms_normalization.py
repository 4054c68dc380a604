"""`RmsNormalization`: a normalization without a mean, which Keras 2 has no layer for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras


@tf_keras.saving.register_keras_serializable("keras_edgeq")
class RmsNormalization(tf_keras.layers.Layer):
    """Computes `x / sqrt(max(mean(x**2) + epsilon, least))`.

    Args:
        axis: one or several, over which the mean is taken.
        epsilon: is added to the mean square.
        least: what the mean square is taken for at least.
        **options: as for any layer.

    Call arguments:
        inputs: a float tensor.

    Returns:
        A tensor of the same shape.
    """

    def __init__(
        self,
        axis: int | Sequence[int] = -1,
        epsilon: float = 1e-6,
        least: float = 0.0,
        **options: Any,
    ):
        super().__init__(**options)
        self.axis = [axis] if isinstance(axis, int) else list(axis)
        self.epsilon, self.least = float(epsilon), float(least)

    def call(self, inputs: Any) -> Any:
        """Return the tensor over the root of its mean square."""
        square = tf.reduce_mean(tf.square(inputs), self.axis, keepdims=True) + self.epsilon
        return inputs * tf.math.rsqrt(tf.maximum(square, self.least) if self.least else square)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        own = {"axis": self.axis, "epsilon": self.epsilon, "least": self.least}
        return {**super().get_config(), **own}
