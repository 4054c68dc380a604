"""Attention as users write it, each with data: `name -> (inputs, outputs, arrays)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

L = tf_keras.layers
RNG = np.random.default_rng(0)
X, Y = (RNG.normal(size=(32, *shape)).astype(np.float32) for shape in ((6, 8), (5, 7)))
IMAGE = RNG.normal(size=(32, 3, 4, 8)).astype(np.float32)
KEYS = RNG.random((32, 6)) < 0.7
KEYS[:, 0] = True
PAIRS = RNG.random((32, 6, 6)) < 0.7
PAIRS[0] = False  # nothing is kept
PAIRS[1, 2] = False
IDS = np.where(KEYS, RNG.integers(1, 9, size=(32, 6)), 0)
FREE = (None, 8)
Case = tuple[list[Any], Any, list[np.ndarray]]


def _multi_head(shape: tuple = (6, 8), data: np.ndarray = X, **options: Any) -> Case:
    x = L.Input(shape)
    called = {k: options.pop(k) for k in ("use_causal_mask",) if k in options}
    return [x], L.MultiHeadAttention(2, 4, name="mha", **options)(x, x, **called), [data]


def _cross(**options: Any) -> Case:
    x, y = L.Input((6, 8)), L.Input((5, 7))
    return [x, y], L.MultiHeadAttention(2, 4, name="mha", **options)(x, y, L.Dense(6)(y)), [X, Y]


def _given_mask(dtype: str, **called: Any) -> Case:
    x, mask = L.Input((6, 8)), L.Input((6, 6), dtype=dtype)
    made = L.MultiHeadAttention(2, 4, name="mha")(x, x, attention_mask=mask, **called)
    return [x, mask], made, [X, PAIRS.astype(dtype)]


def _scores() -> Case:
    x = L.Input((6, 8))
    made = L.MultiHeadAttention(2, 4, name="mha")(x, x, return_attention_scores=True)
    return [x], list(made), [X]


def _padded(attend: Callable[[Any], Any]) -> Case:
    ids = L.Input((6,), dtype="int32")
    return [ids], attend(L.Embedding(9, 8, mask_zero=True)(ids)), [IDS]


def _shared() -> Case:
    x, y = L.Input((6, 8)), L.Input((6, 8))
    mha = L.MultiHeadAttention(2, 4, name="mha")
    return [x, y], mha(mha(x, y), y), [X, X[::-1].copy()]


def _nested() -> Case:
    x, t = L.Input((6, 8)), L.Input((6, 8))
    block = tf_keras.Model(t, L.MultiHeadAttention(2, 4, dropout=0.1, name="mha")(t, t))
    return [x], block(L.Dense(8)(x)), [X]


def _dense(layer: Any, count: int = 2, **called: Any) -> Case:
    x = L.Input((6, 8))
    return [x], layer([x, *(L.Dense(8)(x) for _ in range(count - 1))], **called), [X]


def _dense_masked(layer: Any, **called: Any) -> Case:
    x, mask = L.Input((6, 8)), L.Input((6,), dtype="bool")
    y = L.Dense(8)(x)
    return [x, mask], layer([y, y], mask=[mask, mask], **called), [X, KEYS]


def _softmax(shape: tuple, data: np.ndarray, mask: np.ndarray | None = None, **options) -> Case:
    x = L.Input(shape)
    if mask is None:
        return [x], L.Softmax(**options)(L.Dense(8)(x)), [data]
    given = L.Input(mask.shape[1:], dtype=mask.dtype.name)
    return [x, given], L.Softmax(**options)(L.Dense(8)(x), mask=given), [data, mask]


LAYERS: dict[str, Callable[[], Case]] = {
    "self": _multi_head,
    "no bias": lambda: _multi_head(use_bias=False),
    "three heads' worth of values": lambda: _cross(value_dim=3, output_shape=5),
    "boolean mask": lambda: _given_mask("bool"),
    "float mask": lambda: _given_mask("float32"),
    "integer mask": lambda: _given_mask("int32"),
    "causal": lambda: _multi_head(use_causal_mask=True),
    "causal and a mask": lambda: _given_mask("bool", use_causal_mask=True),
    "padding": lambda: _padded(lambda x: L.MultiHeadAttention(2, 4, name="mha")(x, L.Dense(8)(x))),
    "scores": _scores,
    "two attention axes": lambda: _multi_head((3, 4, 8), IMAGE, attention_axes=(1, 2)),
    "one attention axis": lambda: _multi_head((3, 4, 8), IMAGE, attention_axes=(2,)),
    "free length": lambda: _multi_head(FREE),
    "free length, causal": lambda: _multi_head(FREE, use_causal_mask=True),
    "shared": _shared,
    "nested, with dropout": _nested,
    "Attention": lambda: _dense(L.Attention()),
    "Attention, scaled": lambda: _dense(L.Attention(use_scale=True), 3),
    "Attention by sums": lambda: _dense(L.Attention(score_mode="concat", use_scale=True)),
    "Attention, masked": lambda: _dense_masked(L.Attention(dropout=0.2), use_causal_mask=True),
    "Attention, padding": lambda: _padded(lambda x: L.Attention()([x, L.Dense(8)(x)])),
    "AdditiveAttention": lambda: _dense(L.AdditiveAttention()),
    "AdditiveAttention, masked": lambda: _dense_masked(L.AdditiveAttention(use_scale=False)),
    "Softmax over another axis": lambda: _softmax((6, 8), X, axis=1),
    "Softmax with a mask": lambda: _softmax((6, 8), X, KEYS[:, :, None], axis=1),
    "Softmax over two axes": lambda: _softmax((3, 4, 8), IMAGE, axis=[1, 2]),
}


def _by_hand(mask: Callable[[Any], tuple[Any, Any, Any]]) -> Case:
    """Return attention with heads; `mask` takes scores and returns an input, its data, scores."""
    x = L.Input((6, 8))
    q, k, v = (
        tf.transpose(tf.reshape(L.Dense(8)(x), [-1, 6, 2, 4]), [0, 2, 1, 3]) for _ in range(3)
    )
    given, data, scores = mask(tf.matmul(q, k, transpose_b=True) / 2.0)
    made = tf.transpose(tf.matmul(tf.nn.softmax(scores), v), [0, 2, 1, 3])
    made = tf.reshape(made, [-1, 6, 8])
    return ([x] if given is None else [x, given]), made, ([X] if given is None else [X, data])


def _keys(dtype: str) -> tuple[Any, np.ndarray]:
    return L.Input((6,), dtype=dtype), KEYS.astype(dtype)


def _one_less(scores: Any) -> tuple:
    mask, data = _keys("float32")
    return mask, data, scores + (1.0 - mask[:, None, None, :]) * -1e9


def _of_integers(scores: Any) -> tuple:
    mask, data = _keys("int32")
    seen = tf.cast(mask[:, tf.newaxis, tf.newaxis, :], tf.float32)
    return mask, data, scores + (1.0 - seen) * -10000.0


def _of_padding(scores: Any) -> tuple:
    mask, data = _keys("int32")
    pads = tf.cast(tf.math.equal(mask, 0), tf.float32)[:, tf.newaxis, tf.newaxis, :]
    return mask, data, scores + pads * -1e9


def _subtracted(scores: Any) -> tuple:
    mask, data = _keys("bool")
    hidden = tf.cast(tf.logical_not(mask), tf.float32)[:, None, None, :]
    return mask, data, scores - 1e9 * hidden


def _selected(scores: Any) -> tuple:
    mask, data = _keys("bool")
    return mask, data, tf.where(mask[:, None, None, :], scores, tf.float32.min)


def _constant(scores: Any) -> tuple:
    return None, None, scores + tf.constant((1 - np.tril(np.ones((6, 6), np.float32))) * -1e9)


def _log(scores: Any) -> tuple:
    mask, data = _keys("bool")
    return mask, data, tf.math.log(tf.cast(mask, tf.float32))[:, None, None, :] + scores


def _of_ranges(scores: Any) -> tuple:
    row, column = tf.range(tf.shape(scores)[2])[:, None], tf.range(tf.shape(scores)[3])
    return None, None, tf.where(row >= column, scores, float("-inf"))


def _of_a_band(scores: Any) -> tuple:
    ones = tf.ones((tf.shape(scores)[2], tf.shape(scores)[3]))
    return None, None, scores + (1 - tf.linalg.band_part(ones, -1, 0)) * -1e9


WRITTEN: dict[str, Callable[[], Case]] = {
    "no mask": lambda: _by_hand(lambda scores: (None, None, scores)),
    "1 - mask": lambda: _by_hand(_one_less),
    "1 - cast": lambda: _by_hand(_of_integers),
    "cast of padding": lambda: _by_hand(_of_padding),
    "subtracted": lambda: _by_hand(_subtracted),
    "tf.where": lambda: _by_hand(_selected),
    "log of a mask": lambda: _by_hand(_log),
    "constant": lambda: _by_hand(_constant),
    "ranges": lambda: _by_hand(_of_ranges),
    "band": lambda: _by_hand(_of_a_band),
}


def built(case: Callable[[], Case]) -> tuple[tf_keras.Model, list[np.ndarray]]:
    """Return a model of a case with weights as training leaves them, and its data."""
    inputs, outputs, data = case()
    first, *others = tf.nest.flatten(outputs)
    model = tf_keras.Model(inputs, [L.Dense(3)(first), *others])
    rng = np.random.default_rng(1)
    for weight in model.weights:
        rank = weight.shape.rank
        weight.assign(rng.normal(size=weight.shape) * (0.4 if rank > 1 else 0.1) + (rank == 0))
    return model, data
