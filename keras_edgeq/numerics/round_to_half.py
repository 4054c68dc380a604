"""Round to IEEE half precision inside a graph, with the gradient of a clip."""

from __future__ import annotations

import tensorflow as tf

from keras_edgeq.numerics.own_gradient import own_gradient

# The largest half; what is beyond saturates to it.
LARGEST = 65504.0


def _gradient(upstream, result, x):
    del result
    return [tf.where(tf.abs(x) > LARGEST, 0.0, upstream)]


@own_gradient("round_to_half", _gradient)
def round_to_half(x):
    """Cast float32 to half precision and back; numbers beyond its range become its largest.

    The gradient passes where nothing saturated (straight through). NaN stays NaN.

    Example:
        >>> round_to_half(tf.constant([0.1, 1e6])).numpy()
        array([9.997559e-02, 6.550400e+04], dtype=float32)
    """
    clipped = tf.minimum(tf.maximum(x, -LARGEST), LARGEST)
    return tf.cast(tf.cast(clipped, tf.float16), tf.float32)
