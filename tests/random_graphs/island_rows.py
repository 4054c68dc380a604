"""Rows of what stays float, and of what makes real numbers of ids and images."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tests.random_graphs.layer_rows import is_ids
from tests.random_graphs.rows import (
    L,
    Row,
    drawn,
    layer,
    pick,
    real,
    roomy,
    same,
    written,
)

ANY = real(2, 3, 4, 5)
RARE = {"weight": 0.5}


def is_pixels(x) -> bool:
    """Tell whether a tensor is an image in bytes."""
    return x.dtype == tf.uint8


def _recurrent(chance, x) -> dict[str, Any]:
    flags = {"return_sequences": [..., True, True], "go_backwards": [..., ..., True]}
    return {"units": chance.choice((2, 3, 4)), **pick(chance, **flags)}


def _bidirectional(cls, units, return_sequences=False, merge_mode="concat", name=None):
    inner = cls(units, return_sequences=return_sequences)
    return L.Bidirectional(inner, merge_mode=merge_mode, name=name)


def _both_ways(cls) -> Row:
    def make(name=None, **options):
        return _bidirectional(cls, name=name, **options)

    choices = {"units": [2, 3], "return_sequences": [..., True], "merge_mode": [..., "sum"]}
    return layer(make, real(3), drawn(**choices), weight=0.4)


def _each_step(kind, name=None):
    inner = {"dense": lambda: L.Dense(3, activation="relu"), "conv": lambda: L.Conv1D(3, 2)}[kind]()
    return L.TimeDistributed(inner, name=name)


def _prelu_by_where(x):
    return tf.where(x > 0.0, x, 0.2 * x)


def _attention(options: dict[str, Any], name: str):
    attention = L.MultiHeadAttention(**options, name=name)
    return lambda query, value: attention(query, value)


ISLANDS: dict[str, Row] = {
    "Rescaling uint8": layer(
        L.Rescaling, is_pixels, drawn(scale=[1 / 255.0, 1 / 127.5], offset=[..., -1.0]), weight=9
    ),
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
            ("zeros_like", lambda x: x + tf.zeros_like(x)),
            ("cast half", lambda x: tf.cast(tf.cast(x, tf.float16), tf.float32)),
        )
    },
    "tf.l2_normalize": written(lambda x: tf.nn.l2_normalize(x, axis=-1, epsilon=0.1), ANY, **RARE),
    "tf.argmax": written(lambda x: tf.argmax(x, axis=-1), real(3), weight=0.5),
    "LayerNormalization": layer(L.LayerNormalization, ANY, drawn(epsilon=[0.1]), weight=0.8),
    "UnitNormalization": layer(L.UnitNormalization, ANY, **RARE),
    "GroupNormalization": layer(
        L.GroupNormalization, ANY, drawn(groups=[1], epsilon=[0.1]), **RARE
    ),
    **{
        name: layer(getattr(L, name), real(3), _recurrent, weight=0.7)
        for name in ("LSTM", "GRU", "SimpleRNN")
    },
    "Bidirectional LSTM": _both_ways(L.LSTM),
    "Bidirectional GRU": _both_ways(L.GRU),
    "TimeDistributed": layer(_each_step, real(3), drawn(kind=["dense"]), weight=0.5),
    "TimeDistributed Conv1D": layer(_each_step, roomy(4, 3), drawn(kind=["conv"]), **RARE),
    "MultiHeadAttention": Row(
        _attention,
        real(3),
        drawn(num_heads=[1, 2], key_dim=[3]),
        pairs=lambda x, y: real(3)(y),
        weight=0.7,
    ),
    "Attention": layer(L.Attention, real(3), listed=True, pairs=same, **RARE),
    "ELU": layer(L.ELU, ANY, **RARE),
    "ThresholdedReLU": layer(L.ThresholdedReLU, ANY, drawn(theta=[0.0]), **RARE),
    "RandomFlip": layer(L.RandomFlip, real(4), **RARE),
}  # fmt: skip
