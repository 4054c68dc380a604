"""Activation functions of Keras 3 on tensors of TensorFlow, in operations that targets have."""

from __future__ import annotations

import tensorflow as tf
import tf_keras

# Functions that `tf_keras` has as well, by the name it has them under.
SAME = {
    "linear": "linear", "relu": "relu", "sigmoid": "sigmoid", "tanh": "tanh", "elu": "elu",
    "softmax": "softmax", "selu": "selu", "softplus": "softplus", "softsign": "softsign",
    "exponential": "exponential", "mish": "mish", "silu": "swish", "swish": "swish",
    "gelu": "gelu",
}  # fmt: skip


def hard_sigmoid(x):
    """Return `relu6(x + 3) / 6`; the function of that name in `tf_keras` has slope 0.2."""
    return tf.nn.relu6(x + 3.0) * (1.0 / 6.0)


def hard_silu(x):
    """Return `x * relu6(x + 3) / 6`."""
    return x * hard_sigmoid(x)


def silu(x):
    """Return `x * sigmoid(x)`."""
    return tf.nn.silu(x)


def gelu(x, approximate: bool = False):
    """Return the product of x and the normal distribution function."""
    return tf_keras.activations.gelu(x, approximate=approximate)


def relu6(x):
    """Return x between 0 and 6."""
    return tf.nn.relu6(x)


def leaky_relu(x, negative_slope: float = 0.2):
    """Return x, or x times the slope below 0."""
    return tf.nn.leaky_relu(x, alpha=negative_slope)


def log_softmax(x, axis: int = -1):
    """Return the logarithm of the softmax."""
    return tf.nn.log_softmax(x, axis=axis)


def log_sigmoid(x):
    """Return the logarithm of the sigmoid."""
    return -tf.nn.softplus(-x)


FUNCTIONS = {
    "hard_sigmoid": hard_sigmoid,
    "hard_silu": hard_silu,
    "hard_swish": hard_silu,
    "relu6": relu6,
    "leaky_relu": leaky_relu,
    "log_softmax": log_softmax,
    "log_sigmoid": log_sigmoid,
}
