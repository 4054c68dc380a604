"""`Steps`: the traced functions of training and validation, several batches in one call."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras

from keras_edgeq.graph import keras_compat
from keras_edgeq.qat.descent import Descent
from keras_edgeq.qat.distill import Teaching
from keras_edgeq.qat.objective import Objective

SUM = tf.distribute.ReduceOp.SUM


class Steps:
    """Takes steps over an iterator of batches.

    Losses are sums over samples divided by the samples of the global batch, so that the sum over
    replicas is the loss of the whole batch however it was split.

    Args:
        teaching: the sim and its teacher.
        objective: the terms of the loss.
        descent: the optimizers.
        scores: a compiled model whose metrics are kept; None for none.
        strategy: under which the sim was made.
    """

    def __init__(
        self,
        teaching: Teaching,
        objective: Objective,
        descent: Descent,
        scores: tf_keras.Model | None,
        strategy: tf.distribute.Strategy,
    ):
        self.teaching, self.objective, self.descent = teaching, objective, descent
        self.scores, self.strategy = scores, strategy
        self.names = ("loss", *self._terms())
        # Passing a counter as a tensor lets a last, shorter call use the same trace.
        self.train = tf.function(self._loop(self._train), reduce_retracing=True)
        self.evaluate = tf.function(self._loop(self._evaluate), reduce_retracing=True)

    def _terms(self) -> list[str]:
        """Return the names of the terms of the loss, in order."""
        how, terms = self.objective.distillation, []
        if any(self.objective.label_losses):
            terms.append("label_loss")
        if how.weight and any(kind != "none" for kind in self.objective.output_losses):
            terms.append("teacher_loss")
        if how.feature_weight and self.teaching.names:
            terms.append("feature_loss")
        return terms

    def _loop(self, step):
        strategy, width = self.strategy, len(self.names)

        def run(iterator, count):
            """Return steps taken, sums over samples of the losses, samples, last loss, metrics.

            Fewer steps than asked for mean that the data ended, or a loss that is not finite.
            """
            taken, last = tf.constant(0, tf.int64), tf.constant(0.0)
            sums, samples = tf.zeros([width], tf.float64), tf.constant(0.0, tf.float64)
            for _ in tf.range(count):
                batch = iterator.get_next_as_optional()
                # No break: loops with one cannot be nested in the loops of a strategy.
                if tf.math.is_finite(last) and batch.has_value():
                    made = strategy.run(step, args=(batch.get_value(),))
                    losses, seen = (strategy.reduce(SUM, part, axis=None) for part in made)
                    sums += tf.cast(losses * seen, tf.float64)
                    samples += tf.cast(seen, tf.float64)
                    last = losses[0]
                    taken += 1
            return taken, sums, samples, last, self._metrics()

        return run

    def _train(self, batch):
        inputs, labels, weights = tf_keras.utils.unpack_x_y_sample_weight(batch)
        targets = self.teaching.targets(inputs)
        variables = self.descent.variables
        with tf.GradientTape() as tape:
            made = self.teaching.made(inputs, training=True)
            losses, samples = self._losses(made, targets, labels, weights)
            scaled = self.descent.scaled(losses[0])
        self.descent.apply(tape.gradient(scaled, variables))
        self._score(inputs, labels, made[0], weights)
        return tf.stack(losses), samples

    def _evaluate(self, batch):
        inputs, labels, weights = tf_keras.utils.unpack_x_y_sample_weight(batch)
        targets = self.teaching.targets(inputs)
        made = self.teaching.made(inputs, training=False)
        losses, samples = self._losses(made, targets, labels, weights)
        self._score(inputs, labels, made[0], weights)
        return tf.stack(losses), samples

    def _losses(self, made, targets, labels, weights):
        """Return the share of this replica in the loss and its terms, and its samples."""
        own = tf.cast(tf.shape(made[0][0])[0], tf.float32)
        samples = tf.distribute.get_replica_context().all_reduce(SUM, own)
        terms = self.objective.terms(made, targets, labels, weights)
        shares = [tf.reduce_sum(terms[name]) / samples for name in self.names[1:]]
        penalties = [tf.cast(loss, tf.float32) for loss in self.teaching.student.losses]
        total = tf.add_n(
            [*shares, tf.nn.scale_regularization_loss(tf.add_n(penalties))] if penalties else shares
        )
        return [total, *shares], own

    def _metrics(self) -> dict[str, Any]:
        made = {} if self.scores is None else self.scores.get_metrics_result()
        return {name: value for name, value in made.items() if name != "loss"}

    def _score(self, inputs, labels, outputs, weights):
        if self.scores is not None and labels is not None:
            structure = keras_compat.structured_outputs(self.scores)
            made = tf.nest.pack_sequence_as(structure, outputs)
            self.scores.compute_metrics(inputs, labels, made, weights)
