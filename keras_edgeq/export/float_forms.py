"""Layers computed otherwise than Keras does, so that a converter's output runs everywhere."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from keras_edgeq.graph.rebuild import infer
from keras_edgeq.ops import op_type

L = tf_keras.layers


def infer_portably(layer: Any, args: tuple, kwargs: dict, litert: bool) -> Any:
    """Call a layer in inference mode, in the form that converters to LiteRT or ONNX take."""
    form = FORMS.get(type(layer))
    if form is not None and len(args) == 1 and kwargs.get("mask") is None:
        return form(layer, args[0])
    function = FUNCTIONS.get((op_type(layer), litert))
    if function is not None and not kwargs.get("approximate"):
        read = [v for v in tf.nest.flatten((args, kwargs)) if isinstance(v, tf.Tensor)]
        if len(read) == 1:
            return function(read[0])
    return infer(layer, args, kwargs)


def dense(layer: Any, inputs: Any) -> Any:
    """Compute a Dense on more than two axes as one matrix product between constant reshapes.

    Keras computes it with shapes read at run time, which keeps integer kernels and delegates away.
    """
    shape = inputs.shape
    if shape.rank < 3 or None in shape[1:]:
        return layer(inputs)
    outputs = layer(tf.reshape(inputs, [-1, shape[-1]]))
    return tf.reshape(outputs, [-1, *shape[1:-1], layer.units])


def group_normalization(layer: Any, inputs: Any) -> Any:
    """Compute a GroupNormalization on four axes: samples, pixels, groups, members of a group.

    Keras does on one axis more than the input has and on masks of ones, which a converter brings to
    one shape with an operation that LiteRT refuses.
    """
    shape, rank = inputs.shape, inputs.shape.rank
    axis = layer.axis % rank
    after = shape[axis + 1 :]
    if None in after or shape.rank is None:
        return infer(layer, (inputs,), {})
    members = int(shape[axis]) // layer.groups * int(np.prod(after))
    before = shape[1:axis]
    free = None in before
    pixels = -1 if free else int(np.prod(before))
    batch = tf.shape(inputs)[0] if free else -1
    grouped = tf.reshape(inputs, [batch, pixels, layer.groups, members])
    centered = grouped - tf.reduce_mean(grouped, [1, 3], keepdims=True)
    variance = tf.reduce_mean(tf.square(centered), [1, 3], keepdims=True)
    normal = centered * tf.math.rsqrt(variance + layer.epsilon)
    outputs = tf.reshape(normal, tf.shape(inputs) if free else [-1, *shape[1:]])
    channels = [-1, *[1] * len(after)]
    if layer.gamma is not None:
        outputs *= tf.reshape(layer.gamma, channels)
    return outputs if layer.beta is None else outputs + tf.reshape(layer.beta, channels)


def category_encoding(layer: Any, inputs: Any) -> Any:
    """Compute a CategoryEncoding with one-hot vectors; Keras counts in bins."""
    vectors = tf.one_hot(tf.cast(inputs, tf.int32), layer.num_tokens)
    if layer.output_mode == "one_hot":
        return tf.squeeze(vectors, -2) if inputs.shape[-1] == 1 else vectors
    combine = tf.reduce_max if layer.output_mode == "multi_hot" else tf.reduce_sum
    return combine(vectors, -2)


FORMS: dict[type, Callable[[Any, Any], Any]] = {
    L.CategoryEncoding: category_encoding,
    L.Dense: dense,
    L.GroupNormalization: group_normalization,
}


def gelu(x: Any) -> Any:
    """Compute a GELU in the form that ONNX Runtime takes for one operation."""
    return x * (tf.math.erf(x / np.float32(np.sqrt(2.0))) + 1.0) * 0.5


def erf(x: Any) -> Any:
    """Compute the error function to 1.5e-7, of which LiteRT has no kernel.

    Reference:
        Abramowitz and Stegun 1964, "Handbook of Mathematical Functions", equation 7.1.26.
    """
    t = 1.0 / (1.0 + 0.3275911 * tf.abs(x))
    factors = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
    total = functools.reduce(lambda total, factor: total * t + factor, factors, 0.0)
    return tf.sign(x) * (1.0 - total * t * tf.exp(-x * x))


def log1p(x: Any) -> Any:
    """Compute a logarithm of a sum with 1, as numbers on a grid are not tiny."""
    return tf.math.log(x + 1.0)


def expm1(x: Any) -> Any:
    """Compute an exponential less 1, as numbers on a grid are not tiny."""
    return tf.exp(x) - 1.0


# Operation, and whether for LiteRT -> the function in operations that the runtime has.
FUNCTIONS: dict[tuple[str, bool], Callable[[Any], Any]] = {
    ("Gelu", False): gelu,
    ("Erf", True): erf,
    ("Log1p", False): log1p,
    ("Expm1", False): expm1,
}
