"""`FreezableBatchNorm`: a batch norm whose statistics can be frozen while a model trains."""

from __future__ import annotations

import tensorflow as tf
import tf_keras


@tf_keras.saving.register_keras_serializable("keras_edgeq")
class FreezableBatchNorm(tf_keras.layers.BatchNormalization):
    """A `BatchNormalization` with a switch that needs no new trace.

    Attributes:
        frozen: variable, 0 or 1. At 1 the layer normalizes with its moving statistics in training
            too, and leaves them as they are; gamma and beta train on.
    """

    def build(self, input_shape):
        """Create the variables of a batch norm, and the switch."""
        super().build(input_shape)
        self.frozen = self.add_weight(
            name="frozen", shape=[], dtype="float32", initializer="zeros", trainable=False
        )

    def call(self, inputs, training=None, mask=None):
        """Normalize with the batch's statistics only where training and not frozen."""
        if training is None:
            training = tf_keras.backend.learning_phase()
        if isinstance(training, int | bool) and not training:
            return super().call(inputs, training=False, mask=mask)
        free = tf.equal(tf.convert_to_tensor(self.frozen), 0.0)
        return super().call(
            inputs, training=tf.logical_and(tf.cast(training, tf.bool), free), mask=mask
        )
