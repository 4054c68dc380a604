"""`Descent`: applies gradients to weights and ranges, each by its own optimizer."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras

from keras_edgeq.errors import TrainingError
from keras_edgeq.sim import QuantSim

LossScale = tf_keras.mixed_precision.LossScaleOptimizer


class Descent:
    """The optimizers of a sim, with loss scaling and clipping across both.

    Args:
        sim: gives the variables. Those of `range_variables()` are ranges, the others weights.
        weights: optimizer of the weights; a number is the learning rate of Adam.
        ranges: the same of the ranges; None leaves them to the optimizer of the weights.
        clip_norm: bound of the norm of all gradients together, None for none.

    Raises:
        TrainingError: nothing to train.
    """

    def __init__(self, sim: QuantSim, weights: Any, ranges: Any, clip_norm: float | None):
        self.clip_norm = clip_norm
        self.weights, self.ranges = optimizer_of(weights), None
        range_ids = {id(variable) for variable in sim.range_variables()}
        groups: tuple[list, list] = ([], [])
        for variable in sim.trainable_variables:
            groups[id(variable) in range_ids].append(variable)
        if not any(groups):
            raise TrainingError("The sim has no trainable variable; set trainable = True.")
        if ranges is None:
            self.groups = [groups[0] + groups[1]]
        else:
            self.ranges = optimizer_of(ranges)
            self.groups = list(groups)
        half = sim.dtype_policy.name == "mixed_float16"
        if half or any(isinstance(one, LossScale) for one in self.optimizers):
            self._scale_losses()
        for optimizer, group in zip(self.optimizers, self.groups, strict=True):
            if group:
                optimizer.build(group)

    @property
    def optimizers(self) -> list[tf_keras.optimizers.Optimizer]:
        """The optimizers in the order of the groups of variables."""
        return [self.weights] if self.ranges is None else [self.weights, self.ranges]

    @property
    def variables(self) -> list[tf.Variable]:
        """All variables that are trained."""
        return [variable for group in self.groups for variable in group]

    def _scale_losses(self) -> None:
        if not isinstance(self.weights, LossScale):
            self.weights = LossScale(self.weights)
        if self.ranges is not None:
            scaled = self.weights
            # Both see the same finite or non-finite gradients, so equal settings stay in step.
            self.ranges = LossScale(
                getattr(self.ranges, "inner_optimizer", self.ranges),
                dynamic=scaled.dynamic,
                initial_scale=scaled.initial_scale,
                dynamic_growth_steps=scaled.dynamic_growth_steps,
            )

    def scaled(self, loss: Any) -> Any:
        """Return the loss whose gradients `apply` takes."""
        made = [o.get_scaled_loss(loss) for o in self.optimizers if isinstance(o, LossScale)]
        return made[0] if made else loss

    def apply(self, gradients: list) -> None:
        """Sum gradients over the replicas, unscale and clip them, and take a step."""
        found = [(i, tf.convert_to_tensor(g)) for i, g in enumerate(gradients) if g is not None]
        replica = tf.distribute.get_replica_context()
        summed = replica.all_reduce(tf.distribute.ReduceOp.SUM, [g for _, g in found])
        if isinstance(self.weights, LossScale):
            # Scales are equal, and asking each keeps Keras from warning of a forgotten one.
            unscaled = [one.get_unscaled_gradients(summed) for one in self.optimizers]
            # Where one gradient overflowed, no group takes the step.
            overflow = 0.0 * tf.linalg.global_norm(unscaled[0])
            summed = [gradient + overflow for gradient in unscaled[0]]
        if self.clip_norm is not None:
            summed, _ = tf.clip_by_global_norm(summed, self.clip_norm)
        by_index = dict(zip([i for i, _ in found], summed, strict=True))
        start = 0
        for optimizer, group in zip(self.optimizers, self.groups, strict=True):
            pairs = [
                (by_index[start + i], variable)
                for i, variable in enumerate(group)
                if start + i in by_index
            ]
            start += len(group)
            if pairs:
                optimizer.apply_gradients(pairs, skip_gradients_aggregation=True)

    def finish(self) -> None:
        """Give the variables their averages where an optimizer keeps some."""
        for optimizer, group in zip(self.optimizers, self.groups, strict=True):
            if group:
                optimizer.finalize_variable_values(group)


def optimizer_of(given: Any) -> tf_keras.optimizers.Optimizer:
    """Return an optimizer; a number is the learning rate of Adam.

    Raises:
        TrainingError: a legacy optimizer, which makes its variables too late to be restored.
    """
    if isinstance(given, int | float):
        return tf_keras.optimizers.Adam(float(given))
    optimizer = tf_keras.optimizers.get(given)
    if not isinstance(optimizer, tf_keras.optimizers.Optimizer):
        raise TrainingError(
            f"{type(optimizer).__name__} is not a tf_keras.optimizers.Optimizer; legacy optimizers "
            "are not accepted."
        )
    return optimizer
