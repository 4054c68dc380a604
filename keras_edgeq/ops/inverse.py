"""Inverses that normalization multiplies with: one number for each vector, in float.

The int16 kernels of LiteRT that could compute them interpolate between 512 points of the whole
grid, and are wrong by half near zero.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras

SMALLEST = 1e-8


@tf_keras.saving.register_keras_serializable("keras_edgeq")
class Inverse(tf_keras.layers.Layer):
    """Computes `1 / (x + least)`.

    Args:
        least: is added, so that zero has an inverse.
        **options: as for any layer.
    """

    def __init__(self, least: float, **options: Any):
        super().__init__(**options)
        self.least = float(least)

    def call(self, inputs: Any) -> Any:
        """Return the inverse of each number."""
        return tf.math.reciprocal(inputs + self.least)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), "least": self.least}


@tf_keras.saving.register_keras_serializable("keras_edgeq")
class InverseRoot(tf_keras.layers.Layer):
    """Computes the inverse root of the mean squares of vectors that were multiplied by a factor.

    That is `1 / sqrt(x + epsilon * factor**2)`, or with `least` instead
    `1 / sqrt(max(x, least * factor**2))`; at most 10,000, which only vectors of zeros reach. A
    kernel that brings an infinite number onto a grid makes any integer of it.

    Args:
        epsilon: is added to the mean square of what was not multiplied yet.
        least: what that is taken for at least.
        **options: as for any layer.

    Call arguments:
        inputs: the mean squares, and the factors.
    """

    def __init__(self, epsilon: float = 0.0, least: float = 0.0, **options: Any):
        super().__init__(**options)
        self.epsilon, self.least = float(epsilon), float(least)

    def call(self, inputs: Any) -> Any:
        """Return the inverse root of each number."""
        x, factor = inputs
        square = factor * factor
        if self.epsilon:
            x += self.epsilon * square
        if self.least:
            x = tf.maximum(x, self.least * square)
        return tf.math.rsqrt(tf.maximum(x, SMALLEST))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), "epsilon": self.epsilon, "least": self.least}
