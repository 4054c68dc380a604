"""Rows of what stays float, and of what makes real numbers of ids and images."""

from __future__ import annotations

from functools import partial
from typing import Any

import tensorflow as tf
import tf_keras

from tests.random_graphs.layer_rows import is_ids
from tests.random_graphs.rows import (
    Row,
    drawn,
    is_of,
    layer,
    pick,
    real,
    roomy,
    same,
    written,
)

ANY = real(2, 3, 4, 5)
RARE: dict[str, Any] = {"weight": 0.5}


def is_pixels(x) -> bool:
    """Tell whether a tensor is an image in bytes."""
    return is_of(x, "uint8")


def _recurrent(chance, x) -> dict[str, Any]:
    flags = {"return_sequences": [..., True, True], "go_backwards": [..., ..., True]}
    return {"units": chance.choice((2, 3, 4)), **pick(chance, **flags)}


def _by_moments(x):
    mean, variance = tf.nn.moments(x, [-1], keepdims=True)
    return (x - mean) * tf.math.rsqrt(variance + 0.1)


def _prelu_by_where(x):
    return tf.where(x > 0.0, x, 0.2 * x)


ISLANDS: dict[str, Row] = {
    "tf.cast uint8": written(lambda x: tf.cast(x, tf.float32) / 255.0, is_pixels, weight=3),
    "tf.cast ids": written(lambda x: tf.cast(x, tf.float32) * 0.1, is_ids),
    "tf.one_hot": written(
        lambda x: tf.one_hot(tf.cast(x, tf.int32), 10),
        is_ids,
        weight=1.5,
    ),
    **{
        f"tf.{name}": written(function, ANY, **RARE)
        for name, function in (
            ("exp", lambda x: tf.exp(-tf.abs(x))),
            ("sqrt", lambda x: tf.sqrt(tf.abs(x) + 0.1)),
            ("power of a half", lambda x: tf.sigmoid(x) ** 0.5),
            ("where", _prelu_by_where),
            ("nn.elu", tf.nn.elu),
            ("nn.softplus", tf.nn.softplus),
            ("nn.gelu", tf.nn.gelu),
            ("nn.gelu by tanh", lambda x: tf.nn.gelu(x, approximate=True)),
            ("exp alone", tf.exp),
            ("log", lambda x: tf.math.log(tf.abs(x) + 0.1)),
            ("rsqrt", lambda x: tf.math.rsqrt(tf.nn.relu(x) + 0.2)),
            ("reciprocal", lambda x: tf.math.reciprocal(tf.nn.relu(x) + 0.5)),
            ("erf", tf.math.erf),
            ("sine", tf.sin),
            ("threshold", lambda x: tf_keras.layers.ReLU(threshold=0.3)(x)),
            ("leaky cap", lambda x: tf_keras.layers.ReLU(1.0, negative_slope=0.2)(x)),
            ("zeros_like", lambda x: x + tf.zeros_like(x)),
            ("cast half", lambda x: tf.cast(tf.cast(x, tf.float16), tf.float32)),
        )
    },
    "tf.l2_normalize": written(lambda x: tf.nn.l2_normalize(x, axis=-1, epsilon=0.1), ANY, **RARE),
    "tf.pad copies": written(
        lambda x, mode: tf.pad(x, [[0, 0], [1, 2], [2, 0], [0, 0]], mode=mode),
        roomy(4, 3), drawn(mode=["REFLECT", "SYMMETRIC"]), **RARE,
    ),
    "tf.pad low": written(
        lambda x, low: tf.nn.max_pool2d(
            tf.pad(x, [[0, 0], [1, 1], [1, 0], [0, 0]], constant_values=float(low)), 3, 2, "VALID"
        ),
        roomy(4, 3), drawn(low=["-inf", "-1e9", "-3.4e38"]), **RARE,
    ),
    "tf.argmax": written(lambda x: tf.argmax(x, axis=-1), real(3), weight=0.5),
    "ThresholdedReLU": layer(
        tf_keras.layers.ThresholdedReLU, ANY, drawn(theta=[0.0]), **RARE
    ),
}  # fmt: skip


def island_layers(L: Any) -> dict[str, Row]:
    """Return the rows of a module of layers, that of `tf_keras` or of Keras 3."""

    def both_ways(cls, units, return_sequences=False, merge_mode="concat", name=None):
        inner = cls(units, return_sequences=return_sequences)
        return L.Bidirectional(inner, merge_mode=merge_mode, name=name)

    def each_step(kind, name=None):
        made = {"dense": lambda: L.Dense(3, activation="relu"), "conv": lambda: L.Conv1D(3, 2)}
        return L.TimeDistributed(made[kind](), name=name)

    def attention(options, name):
        made = L.MultiHeadAttention(**options, name=name)
        return lambda query, value: made(query, value)

    return {
        "Rescaling uint8": layer(
            L.Rescaling,
            is_pixels,
            drawn(scale=[1 / 255.0, 1 / 127.5], offset=[..., -1.0]),
            weight=9,
        ),
        "LayerNormalization": layer(L.LayerNormalization, ANY, drawn(epsilon=[0.1]), weight=0.8),
        "UnitNormalization": layer(L.UnitNormalization, ANY, **RARE),
        "RMS norm by hand": written(
            lambda x: x * tf.math.rsqrt(tf.reduce_mean(x * x, -1, keepdims=True) + 0.1),
            ANY,
            weight=0.4,
        ),
        "layer norm by hand": written(_by_moments, ANY, weight=0.4),
        "GroupNormalization": layer(
            L.GroupNormalization, ANY, drawn(groups=[1], epsilon=[0.1]), **RARE
        ),
        **{
            name: layer(getattr(L, name), real(3), _recurrent, weight=0.7)
            for name in ("LSTM", "GRU", "SimpleRNN")
        },
        **{
            f"Bidirectional {cls.__name__}": layer(
                partial(both_ways, cls),
                real(3),
                drawn(units=[2, 3], return_sequences=[..., True], merge_mode=[..., "sum"]),
                weight=0.4,
            )
            for cls in (L.LSTM, L.GRU)
        },
        "TimeDistributed": layer(each_step, real(3), drawn(kind=["dense"]), weight=0.5),
        "TimeDistributed Conv1D": layer(each_step, roomy(4, 3), drawn(kind=["conv"]), **RARE),
        "MultiHeadAttention": Row(
            attention,
            real(3),
            drawn(num_heads=[1, 2], key_dim=[3]),
            pairs=lambda x, y: real(3)(y),
            weight=0.7,
        ),
        "Attention": layer(L.Attention, real(3), listed=True, pairs=same, **RARE),
        "Average": layer(L.Average, ANY, listed=True, pairs=same, weight=0.6),
        "Dot": layer(L.Dot, real(2), drawn(axes=[1]), listed=True, pairs=same, **RARE),
        "ELU": layer(L.ELU, ANY, **RARE),
        "MaxPooling3D": layer(L.MaxPooling3D, roomy(5, 2), drawn(padding=[..., "same"])),
        "AveragePooling3D": layer(
            L.AveragePooling3D, roomy(5, 2), drawn(padding=[..., "same"]), weight=2
        ),
        "GlobalAveragePooling3D": layer(L.GlobalAveragePooling3D, real(5)),
        "GlobalMaxPooling3D": layer(L.GlobalMaxPooling3D, real(5), weight=0.5),
        "UpSampling3D": layer(L.UpSampling3D, real(5), drawn(size=[(1, 2, 1)]), weight=0.5),
        "CenterCrop": layer(L.CenterCrop, roomy(4, 3), drawn(height=[2], width=[3]), **RARE),
        "RandomFlip": layer(L.RandomFlip, real(4), **RARE),
    }
