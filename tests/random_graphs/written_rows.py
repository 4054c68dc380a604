"""Rows of functions that move or cap numbers, and of those written with other operations."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from tests.random_graphs.rows import (
    Row,
    constant,
    drawn,
    joins,
    known,
    layer,
    pick,
    real,
    roomy,
    same,
    spelled,
    written,
)

L = tf_keras.layers
ANY = real(2, 3, 4, 5)
RARE = {"weight": 0.5}


def _gathered(chance, x) -> dict[str, Any]:
    axis = chance.choice([a for a in range(1, x.shape.rank) if x.shape[a] is not None])
    places = [chance.randrange(x.shape[axis]) for _ in range(chance.choice((1, 2, 4)))]
    return {"indices": chance.choice((places, np.array(places))), "axis": axis}


def _repeated(chance, x) -> dict[str, Any]:
    size = x.shape[-1]
    return pick(chance, repeats=[2, [chance.choice((1, 2)) for _ in range(size)]], axis=[-1])


def _rolled(chance, x) -> dict[str, Any]:
    both = {"shift": [1, -2], "axis": [1, x.shape.rank - 1]}
    return chance.choice([{"shift": 1, "axis": 1}, {"shift": -1, "axis": -1}, both])


def _reversed(chance, x) -> dict[str, Any]:
    return {
        "axis": chance.choice([[1], [-1], [1, x.shape.rank - 1]] if x.shape.rank > 2 else [[1]])
    }


def _sums(chance, x) -> dict[str, Any]:
    return {"axis": chance.choice((1, -1, [1])), **pick(chance, keepdims=[..., True])}


def _ends(chance, x) -> dict[str, Any]:
    low, high = chance.choice(((-1.0, 1.0), (0.0, 1.0), (0, 6), (-0.5, 2.0), (0.0, 3.5)))
    return {"clip_value_min": low, "clip_value_max": high}


def _broadcast(x):
    sizes = [3 if size == 1 else size for size in x.shape[1:]]
    return tf.broadcast_to(x, tf.concat([tf.shape(x)[:1], sizes], 0))


def _blocks(x) -> bool:
    return known(4)(x) and x.shape[1] % 2 == 0 and x.shape[2] % 2 == 0


def _deep(x) -> bool:
    return real(4)(x) and x.shape[-1] % 4 == 0


def _heads(x, y):
    return tf.einsum("bqhd,bkhd->bhqk", x, y) * 0.3


def _masked(x, y, mask="selected"):
    """Attention over the positions whose first channel is positive, the first one in any case."""
    scores = tf.matmul(x, y, transpose_b=True) * 0.3
    kept = tf.logical_or(y[:, :, 0] > 0.05, np.arange(y.shape[1]) == 0)[:, tf.newaxis]
    if mask == "selected":
        scores = tf.where(kept, scores, -1e9)
    else:
        scores += (1.0 - tf.cast(kept, tf.float32)) * -1e9
    return tf.matmul(tf.nn.softmax(scores), y)


def _positions(x, kind="whole", seed=0):
    return x * 0.5 + constant(kind, x, seed)


MOVES: dict[str, Row] = {
    "tf.gather": spelled(tf.gather, "params indices axis", real(2, 3, 4), _gathered),
    "tf.repeat": spelled(tf.repeat, "input repeats axis", ANY, _repeated, **RARE),
    "tf.roll": spelled(tf.roll, "input shift axis", known(2, 3, 4), _rolled, **RARE),
    "tf.reverse": spelled(tf.reverse, "tensor axis", real(2, 3, 4), _reversed, **RARE),
    "tf.image.flip": written(
        lambda x, up=False: (tf.image.flip_up_down if up else tf.image.flip_left_right)(x),
        real(4), drawn(up=[True, False]), **RARE,
    ),
    "tf.tile": written(lambda x: tf.tile(x, [1, 2, 1]), real(3), **RARE),
    "tf.stack": spelled(
        tf.stack, "values axis", real(2, 3), drawn(axis=[1, -1]), listed=True, pairs=same,
    ),
    "tf.unstack": written(
        lambda x: tf.unstack(x, axis=-1), lambda x: known(3)(x) and x.shape[-1] > 1, **RARE
    ),
    "tf.broadcast_to": written(_broadcast, known(2, 3, 4), **RARE),
    "tf.nn.space_to_depth": spelled(
        tf.nn.space_to_depth, "input block_size", _blocks, drawn(block_size=[2]), weight=2
    ),
    "tf.nn.depth_to_space": spelled(
        tf.nn.depth_to_space, "input block_size", _deep, drawn(block_size=[2]), weight=2
    ),
    "tf.stop_gradient": written(tf.stop_gradient, ANY, **RARE),
    "tf.cast": written(lambda x: tf.cast(x, tf.float32), ANY, **RARE),
    "tf.convert_to_tensor": written(tf.convert_to_tensor, ANY, weight=0.3),
    "tf.where": written(lambda x, y: tf.where(x > 0.1, x, y), ANY, pairs=same, **RARE),
    "tf.where number": written(
        lambda x, y: tf.where(x > 0.1, x, y), ANY, drawn(y=[0.0, -0.5, 2.0]), **RARE
    ),
    "CenterCrop": layer(L.CenterCrop, roomy(4, 3), drawn(height=[2], width=[3]), **RARE),
    "UpSampling3D": layer(L.UpSampling3D, real(5), drawn(size=[(1, 2, 1)]), weight=0.5),
}  # fmt: skip

ARITHMETIC: dict[str, Row] = {
    "tf.clip_by_value": spelled(
        tf.clip_by_value, "t clip_value_min clip_value_max", ANY, _ends
    ),
    "tf.abs": written(tf.abs, ANY, **RARE),
    "tf.negative": written(lambda x: -x, ANY, **RARE),
    "tf.square of tanh": written(lambda x: tf.square(tf.tanh(x)), ANY, **RARE),
    "tf.power": written(lambda x, n: tf.sigmoid(x) ** n, ANY, drawn(n=[2, 3, 4.0]), **RARE),
    "tf.squared_difference": written(
        lambda x, y: tf.math.squared_difference(tf.tanh(x), tf.tanh(y)), ANY, pairs=same, **RARE
    ),
    "tf.add_n": spelled(tf.add_n, "inputs", ANY, listed=True, pairs=same, most=3, **RARE),
    "tf.nn.bias_add": written(
        lambda x: tf.nn.bias_add(x, np.linspace(-0.5, 0.5, x.shape[-1], dtype=np.float32)),
        ANY, **RARE,
    ),
    "tf.reduce_sum": spelled(
        tf.reduce_sum, "input_tensor axis keepdims", real(2, 3, 4), _sums, **RARE
    ),
    "tf.reduce_min": spelled(
        tf.reduce_min, "input_tensor axis keepdims", real(2, 3, 4), _sums, **RARE
    ),
    "tf.einsum": written(
        lambda x, y: tf.einsum("bic,bjc->bij", x, y) * 0.3, real(3), pairs=joins, **RARE
    ),
    "masked attention": written(
        _masked, known(3), drawn(mask=["selected", "added"]), pairs=same, **RARE
    ),
    "positions": written(
        _positions, known(3, 4), drawn(kind=["whole", "pixels"], seed=[1, 2]), **RARE
    ),
    "tf.einsum heads": written(_heads, known(4), pairs=same, **RARE),
    "Average": layer(L.Average, ANY, listed=True, pairs=same, most=3, weight=0.6),
    "Dot": layer(L.Dot, real(2), drawn(axes=[1]), listed=True, pairs=same, **RARE),
    "Dot matrices": layer(L.Dot, known(3), drawn(axes=[1, 2]), listed=True, pairs=same, **RARE),
    "MaxPooling3D": layer(L.MaxPooling3D, roomy(5, 2), drawn(padding=[..., "same"])),
    "AveragePooling3D": layer(
        L.AveragePooling3D, roomy(5, 2), drawn(padding=[..., "same"]), weight=2
    ),
    "GlobalAveragePooling3D": layer(L.GlobalAveragePooling3D, real(5)),
    "GlobalMaxPooling3D": layer(L.GlobalMaxPooling3D, real(5), weight=0.5),
}  # fmt: skip
