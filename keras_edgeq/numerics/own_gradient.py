"""Functions with a gradient of their own that leave nothing behind.

`tf.custom_gradient` registers a new gradient for each call inside a graph, forever, and with it
the graph and all that it refers to. Here each function registers its gradient once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import record

Gradient = Callable[..., Sequence[Any]]


def own_gradient(name: str, gradient: Gradient) -> Callable[[Callable], Callable]:
    """Return a decorator that gives a function of tensors, of one result, its gradient.

    Args:
        name: unique in the package.
        gradient: `gradient(upstream, result, *inputs)` returns one gradient per input, or None.

    Example:
        >>> halved = own_gradient("example", lambda up, y, x: [0.5 * up])(tf.round)
        >>> x = tf.Variable(1.2)
        >>> with tf.GradientTape() as tape:
        ...     y = halved(x)
        >>> float(tape.gradient(y, x))
        0.5
    """
    registered = f"keras_edgeq.{name}"

    @tf.RegisterGradient(registered)
    def _(op, upstream, *others):
        del others  # of the inputs, which nothing reads behind the function
        result, *inputs = op.outputs
        return [None, *gradient(upstream, result, *inputs)]

    def decorate(function: Callable) -> Callable:
        @tf.custom_gradient
        def eager(*tensors):
            result = function(*tensors)
            return result, lambda upstream: list(gradient(upstream, result, *tensors))

        @wraps(function)
        @tf.autograph.experimental.do_not_convert
        def call(*values):
            tensors = [tf.convert_to_tensor(value) for value in values]
            if tf.executing_eagerly():
                return eager(*tensors)
            graph = tf.compat.v1.get_default_graph()
            with record.stop_recording():
                result = function(*tensors)
                with graph.gradient_override_map({"IdentityN": registered}):
                    result, *inputs = tf.identity_n([result, *tensors])
            # A tape does not know of the registered gradient, `tf.gradients` not of this one.
            record.record_operation(
                registered, [result], tensors, lambda up: list(gradient(up, result, *inputs))
            )
            return result

        return call

    return decorate
