"""`FreezableBatchNorm`: a batch norm whose statistics can be frozen while a model trains."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras


@tf_keras.saving.register_keras_serializable("keras_edgeq")
class FreezableBatchNorm(tf_keras.layers.BatchNormalization):
    """A `BatchNormalization` with a switch that needs no new trace.

    Attributes:
        frozen: variable, 0 or 1. At 1 the layer normalizes with its moving statistics in training
            too, and leaves them as they are; gamma and beta train on.

    Call arguments:
        inputs: float tensor of channels last.
        training: whether the batch's statistics count, where the layer is not frozen.
        mask: as for a `BatchNormalization`.
        unit: what one step of the sums in front is worth, as `QuantizedLayer` returns it.

    Returns:
        The normalized tensor. With `unit` also what one step is worth in it, per channel, at
        inference: once the layer is folded, the kernel's sums and the bias that it becomes are
        whole numbers of such steps.
    """

    def build(self, input_shape: Any):
        """Create the variables of a batch norm, and the switch."""
        super().build(input_shape)
        self.frozen = self.add_weight(
            name="frozen", shape=[], dtype="float32", initializer="zeros", trainable=False
        )

    def call(self, inputs: Any, training: Any = None, mask: Any = None, unit: Any = None):
        """Normalize with the batch's statistics only where training and not frozen."""
        outputs = self._normalized(inputs, training, mask)
        return outputs if unit is None else (outputs, self._folded(unit))

    def _folded(self, unit: Any):
        """Return a unit times the gain of each channel; a gain of 0 leaves it."""
        gain = tf.math.rsqrt(self.moving_variance + self.epsilon)
        gain = tf.abs(gain * self.gamma if self.scale else gain)
        factor = tf.cast(tf.where(gain > 0.0, gain, 1.0), unit.dtype)
        return tf.stop_gradient(unit * factor)

    def _normalized(self, inputs: Any, training: Any, mask: Any):
        if training is None:
            training = tf_keras.backend.learning_phase()
        if isinstance(training, int | bool) and not training:
            return super().call(inputs, training=False, mask=mask)
        free = tf.equal(tf.convert_to_tensor(self.frozen), 0.0)
        return super().call(
            inputs, training=tf.logical_and(tf.cast(training, tf.bool), free), mask=mask
        )
