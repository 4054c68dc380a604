"""Layers computed otherwise than Keras does, so that a converter's output runs everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from keras_edgeq.graph.rebuild import infer

L = tf_keras.layers


def infer_portably(layer: Any, args: tuple, kwargs: dict) -> Any:
    """Call a layer in inference mode, in the form that converters take where it has one."""
    form = FORMS.get(type(layer))
    if form is None or len(args) != 1 or kwargs.get("mask") is not None:
        return infer(layer, args, kwargs)
    return form(layer, args[0])


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
