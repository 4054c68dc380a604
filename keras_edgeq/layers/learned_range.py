"""`LearnedRange`: the trainable part of a grid.

What is trained is the change of the range relative to where training began: the scale is
`start * (1 + GAIN * change)`, or `start * 2**(GAIN * change)`. Steps of Adam are relative then,
in all units of the tensor, and weight decay pulls to the calibrated range and not to zero.
Gradients are divided by the square of what a change of 1 is, so that plain SGD takes the steps that
it would take on the variable of the paper.

Reference:
    Esser et al. 2020, "Learned Step Size Quantization" (LSQ), arXiv:1902.08153, section 2.2.
    Bhalgat et al. 2020, "LSQ+", arXiv:2004.09576, equation 6, for the zero point.
    Jain et al. 2020, "Trained Quantization Thresholds" (TQT), arXiv:1903.08066, equation 7.
    Choi et al. 2018, "PACT", arXiv:1805.06085, equations 1 to 3.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras

from keras_edgeq.numerics.own_gradient import own_gradient

METHODS = ("lsq", "tqt", "pact")
# A scale can shrink to that share of what it was; at 0 nothing would be left to learn from.
LEAST = 2.0**-6
# A step of Adam moves a weight, some hundredths in size, by ten times its rate or more in relative
# terms. LSQ's gradient scale makes relative steps of scales and weights alike; so does this.
GAIN = 10.0


@tf_keras.saving.register_keras_serializable("keras_edgeq")
class AtLeast(tf_keras.constraints.Constraint):
    """Keeps a variable at or above a number."""

    def __init__(self, least: float):
        self.least = least

    def __call__(self, w: tf.Tensor):
        """Return the variable's values, none below the least."""
        return tf.maximum(w, tf.cast(self.least, w.dtype))

    def get_config(self):
        """Return the least value."""
        return {"least": self.least}


class LearnedRange:
    """Trainable change of a quantizer's scale and zero point.

    Args:
        layer: whose variables these become, built as far as scale, zero point and bounds.
        method: one of `METHODS`.

    Attributes:
        change: of the scale, in its shape.
        shift: of the zero point, in spans of the integer grid; None if the zero point is 0, and
            without effect where it lies at the lower bound: a range that starts at 0 stays so.
        active: 1 while the range is learned, 0 once it is held.
    """

    def __init__(self, layer: Any, method: str):
        self._layer, self.method = layer, method
        lowest = None if method == "tqt" else AtLeast((LEAST - 1.0) / GAIN)

        def variable(name: str, shape: Any, value: Any = 0.0, **options: Any):
            return layer.add_weight(
                name=name,
                shape=shape,
                dtype="float32",
                experimental_autocast=False,
                initializer=tf_keras.initializers.Constant(value),
                **options,
            )

        self.change = variable("change", layer.start.shape, constraint=lowest)
        self.shift = None
        if not layer.spec.symmetric and method != "pact":
            self.shift = variable("shift", layer.start_zero_point.shape)
        self.active = variable("active", [], 1.0, trainable=False)

    @property
    def variables(self) -> list[tf.Variable]:
        """Return what an optimizer trains."""
        return [self.change] if self.shift is None else [self.change, self.shift]

    def scale(self, elements: Any = 1.0):
        """Return the present scale.

        Args:
            elements: how many numbers of a sample one scale rounds, for LSQ's gradient scale.
        """
        start = tf.convert_to_tensor(self._layer.start)
        by = self._gradient_scale(elements)
        if self.method != "tqt":
            by = tf.math.divide_no_nan(by, tf.square(start))
        change = self._gained(self.change, by)
        return start * (tf.pow(2.0, change) if self.method == "tqt" else 1.0 + change)

    def zero_point(self, elements: Any = 1.0):
        """Return the present zero point, a whole number on the grid."""
        layer = self._layer
        start = tf.convert_to_tensor(layer.start_zero_point)
        if self.shift is None:
            return start
        span = layer.qmax - layer.qmin
        by = self._gradient_scale(elements)
        if self.method == "lsq":
            by = tf.math.divide_no_nan(by, tf.square(span * tf.convert_to_tensor(layer.start)))
        free = tf.cast(start > layer.qmin, tf.float32)
        point = start + span * free * self._gained(self.shift, by)
        whole = tf.clip_by_value(tf.math.rint(point), layer.qmin, layer.qmax)
        return point + tf.stop_gradient(whole - point)

    def reset(self) -> None:
        """Forget the change, because the quantizer was given another start."""
        for variable in self.variables:
            variable.assign(tf.zeros_like(variable))

    def _gained(self, variable: tf.Variable, by: Any):
        """Return a variable times `GAIN`, 0 once held; its gradient is multiplied besides."""
        return self.active * GAIN * scale_gradient(tf.convert_to_tensor(variable), by / GAIN**2)

    def _gradient_scale(self, elements: Any):
        """Return LSQ's `1 / sqrt(N Qp)`; for PACT what makes a step on the scale one on alpha."""
        layer = self._layer
        if self.method == "tqt":
            return 1.0
        highest = layer.qmax if layer.spec.symmetric else layer.qmax - layer.qmin
        if self.method == "pact":
            return 1.0 / tf.square(layer.qmax - tf.convert_to_tensor(layer.start_zero_point))
        return tf.math.rsqrt(tf.cast(elements, tf.float32) * highest)


@own_gradient("scale_gradient", lambda upstream, _, values, by: (upstream * by, None))
def scale_gradient(values: tf.Tensor, by: Any):
    """Return `values` unchanged; their gradient is multiplied."""
    del by
    return tf.identity(values)
