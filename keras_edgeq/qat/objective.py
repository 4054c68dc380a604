"""`Objective`: what `train` minimizes, per sample, so that any split of a batch sums up alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
import tf_keras

from keras_edgeq.errors import TrainingError
from keras_edgeq.nearest import did_you_mean
from keras_edgeq.qat.distill import Distillation

CATEGORICAL = ("categorical_crossentropy", "sparse_categorical_crossentropy")
PerSample = Callable[[Any, Any], Any]


@dataclass(frozen=True, eq=False)
class Objective:
    """The terms of the loss.

    Args:
        names: of the sim's outputs.
        label_losses: a loss per output, None for one without; empty without labels.
        output_losses: how each output is compared with the teacher's; empty without teacher.
        distillation: temperature and weights.
    """

    names: tuple[str, ...]
    label_losses: tuple[PerSample | None, ...]
    output_losses: tuple[str, ...]
    distillation: Distillation

    def terms(self, made: Sequence, targets: Sequence, labels: Any, weights: Any) -> dict[str, Any]:
        """Return the weighted terms that take part, each of shape `(samples,)`.

        Args:
            made: outputs, compared outputs and features of the sim.
            targets: compared outputs and features of the teacher.
            labels: y of the batch, None without.
            weights: sample weights of the batch, None without.
        """
        outputs, ours, features = ([tf.cast(t, tf.float32) for t in part] for part in made)
        theirs, aims = targets
        terms, how = {}, self.distillation
        if any(self.label_losses):
            terms["label_loss"] = self._on_labels(outputs, labels, weights)
        compared = [
            OUTPUT_TERMS[kind](own, tf.cast(aim, tf.float32), how.temperature)
            for kind, own, aim in zip(self.output_losses, ours, theirs, strict=True)
            if kind != "none"
        ]
        if compared and how.weight:
            terms["teacher_loss"] = how.weight * tf.add_n(compared)
        if features and how.feature_weight:
            distances = [feature_term(s, t) for s, t in zip(features, aims, strict=True)]
            terms["feature_loss"] = how.feature_weight * tf.add_n(distances)
        return terms

    def _on_labels(self, outputs, labels, weights):
        if labels is None:
            raise TrainingError(
                "loss= compares with labels, and the data yields inputs alone; give (x, y), or "
                "leave loss out to learn from the teacher."
            )
        labels, weights = self._by_output(labels), self._by_output(weights, alike=True)
        terms = []
        for loss, label, weight, output in zip(
            self.label_losses, labels, weights, outputs, strict=True
        ):
            if loss is not None:
                term = loss(label, output)
                terms.append(term if weight is None else term * _flat_weight(weight, term))
        return tf.add_n(terms)

    def _by_output(self, given: Any, alike: bool = False) -> list:
        """Return one entry per output out of a dict, a sequence, or the only one."""
        if isinstance(given, Mapping):
            return [given.get(name) for name in self.names]
        if isinstance(given, list | tuple):
            return list(given)
        return [given] * (len(self.names) if alike else 1)


def label_losses(loss: Any, names: Sequence[str]) -> tuple[PerSample | None, ...]:
    """Return a loss per output that gives a value per sample.

    Args:
        loss: what `compile` takes: a name, a function, a `Loss`, or one of these per output as a
            sequence or a dict by output name; None for no loss on labels.
        names: of the outputs.

    Raises:
        TrainingError: not one loss per output.
    """
    return tuple(None if one is None else _per_sample(one) for one in losses_of(loss, names))


def losses_of(loss: Any, names: Sequence[str]) -> list:
    """Return what `loss` says per output, None if an output has no loss."""
    if loss is None:
        return [None] * len(names)
    if isinstance(loss, Mapping):
        unknown = sorted(set(loss) - set(names))
        if unknown:
            raise TrainingError(
                f"loss= names outputs {unknown}; the sim has {list(names)}."
                + did_you_mean(unknown[0], names)
            )
        return [loss.get(name) for name in names]
    given = list(loss) if isinstance(loss, list | tuple) else [loss] * len(names)
    if len(given) != len(names):
        raise TrainingError(f"loss= gives {len(given)} losses for the outputs {list(names)}.")
    return given


def is_categorical(loss: Any) -> bool:
    """Tell whether a loss on labels is a cross-entropy of classes."""
    if isinstance(loss, str):
        return loss in CATEGORICAL
    return getattr(loss, "name", getattr(loss, "__name__", "")) in CATEGORICAL


def _per_sample(loss: Any) -> PerSample:
    """Return a function of labels and outputs with a value per sample, under any reduction."""
    function = tf_keras.losses.get(loss) if isinstance(loss, str) else loss
    # `call` is a loss without its reduction, which would not know the size of the global batch.
    if isinstance(function, tf_keras.losses.Loss):
        function = function.call

    def values(labels, outputs):
        labels = tf.convert_to_tensor(labels)
        if labels.shape.rank == 1 and outputs.shape.rank == 2:
            labels = labels[:, tf.newaxis]
        value = tf.cast(function(labels, outputs), tf.float32)
        samples = tf.shape(outputs)[:1]
        if value.shape.rank == 0:
            return tf.fill(samples, value)
        return _mean_behind_batch(value)

    return values


def divergence_term(ours, theirs, temperature: float):
    """Return T^2 KL(teacher || sim) of logits softened by T, the mean over positions."""
    log_ours = tf.nn.log_softmax(ours / temperature)
    log_theirs = tf.nn.log_softmax(theirs / temperature)
    divergence = tf.reduce_sum(tf.exp(log_theirs) * (log_theirs - log_ours), axis=-1)
    return temperature**2 * _mean_behind_batch(divergence)


def square_term(ours, theirs, temperature: float):
    """Return the mean squared difference of a sample."""
    del temperature
    return _mean_behind_batch(tf.math.squared_difference(ours, theirs))


OUTPUT_TERMS = {"kl": divergence_term, "mse": square_term}


def feature_term(ours, theirs):
    """Return |sim - teacher|^2 / |teacher|^2 of a sample, 0 where the teacher's is all zero."""
    ours, theirs = (tf.cast(tensor, tf.float32) for tensor in (ours, theirs))
    error = _mean_behind_batch(tf.math.squared_difference(ours, theirs))
    return tf.math.divide_no_nan(error, _mean_behind_batch(tf.square(theirs)))


def _mean_behind_batch(values):
    return tf.reduce_mean(values, axis=list(range(1, values.shape.rank)))


def _flat_weight(weight, term):
    weight = tf.cast(weight, tf.float32)
    return tf.reshape(weight, tf.shape(term))
