"""Networks on sequences with data that is made here or carried by scikit-learn, trained here."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

L = tf_keras.layers
Arrays = list[np.ndarray]
WORDS = 20  # of the sentences that `encoder` tells apart
Predict = Callable[[Arrays], np.ndarray]


@dataclass(frozen=True)
class Task:
    """A network, its data, and how good it is.

    Args:
        build: makes the model, untrained; it makes logits.
        data: training inputs and labels, test inputs and labels.
        score: what predicts -> test inputs -> labels -> percent.
        epochs: of training.
        qat: whether it is also trained in 4 bits.
    """

    build: Callable[[], tf_keras.Model]
    data: Callable[[], tuple[Arrays, np.ndarray, Arrays, np.ndarray]]
    score: Callable[[Predict, Arrays, np.ndarray], float]
    epochs: int
    qat: bool = False


def trained(name: str, folder: Path) -> tf_keras.Model:
    """Return a task's model, trained here once and then from its file of weights."""
    task, file = TASKS[name], folder / f"{name}.weights.h5"
    tf_keras.utils.set_random_seed(0)
    model = task.build()
    if file.exists():
        model.load_weights(file)
        return model
    x, y, _, _ = task.data()
    fit(model, x, y, task.epochs, 2e-3)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_weights(file)
    return model


def fit(model: tf_keras.Model, x: Arrays, y: np.ndarray, epochs: int, rate: float) -> None:
    """Train on labels below 0 where nothing is to be told, with a rate that falls to nothing."""
    steps = epochs * math.ceil(len(y) / 64)
    schedule = tf_keras.optimizers.schedules.CosineDecay(rate, steps)

    def loss(labels, logits):
        labels = tf.cast(tf.reshape(labels, tf.shape(logits)[:-1]), tf.int32)
        told = tf.cast(labels >= 0, tf.float32)
        each = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(labels, 0), logits)
        return tf.reduce_sum(each * told) / tf.reduce_sum(told)

    model.compile(tf_keras.optimizers.Adam(schedule), loss)
    model.fit(x, y, batch_size=64, epochs=epochs, verbose=0)


def accuracy(predict: Predict, x: Arrays, y: np.ndarray) -> float:
    """Return the share of right labels, of those that are told."""
    told = y >= 0
    return 100.0 * float(np.mean(predict(x).argmax(-1)[told] == y[told]))


class Tokens(L.Layer):
    """Puts a class token in front, and adds what is known of the position."""

    def build(self, shape):
        """Make both weights."""
        self.token = self.add_weight("token", (1, 1, shape[-1]), initializer="normal")
        self.places = self.add_weight("places", (1, shape[1] + 1, shape[-1]), initializer="normal")

    def call(self, x):
        """Return one token more than is given."""
        token = tf.tile(self.token, [tf.shape(x)[0], 1, 1])
        return tf.concat([token, x], axis=1) + self.places


def _mlp(x: Any, width: int, activation: str = "gelu") -> Any:
    return L.Dense(x.shape[-1])(L.Dense(width, activation)(x))


def vit() -> tf_keras.Model:
    """A ViT: patches, a class token, positions, 4 blocks."""
    image = tf_keras.Input((8, 8, 1), name="image")
    x = Tokens(name="tokens")(L.Reshape((16, 48))(L.Conv2D(48, 2, 2)(image)))
    for _ in range(4):
        y = L.LayerNormalization(epsilon=1e-6)(x)
        x = L.Add()([x, L.MultiHeadAttention(4, 12)(y, y)])
        x = L.Add()([x, _mlp(L.LayerNormalization(epsilon=1e-6)(x), 96)])
    x = L.LayerNormalization(epsilon=1e-6)(x)
    return tf_keras.Model(image, L.Dense(10)(x[:, 0]))


def encoder() -> tf_keras.Model:
    """A text encoder: padding is masked, normalization stands behind the sums."""
    ids = tf_keras.Input((24,), dtype="int32", name="ids")
    x = Positions()(L.Embedding(WORDS + 1, 32, mask_zero=True)(ids))
    for _ in range(2):
        x = L.LayerNormalization()(L.Add()([x, L.MultiHeadAttention(4, 8)(x, x)]))
        x = L.LayerNormalization()(L.Add()([x, _mlp(x, 64)]))
    return tf_keras.Model(ids, L.Dense(8)(L.GlobalAveragePooling1D()(x)))


def translator() -> tf_keras.Model:
    """An encoder and a decoder with causal and cross attention."""
    source = tf_keras.Input((LONGEST,), dtype="int32", name="source")
    so_far = tf_keras.Input((LONGEST,), dtype="int32", name="so_far")
    x = Positions()(L.Embedding(len(SOURCE), 48, mask_zero=True)(source))
    for _ in range(2):
        x = L.LayerNormalization()(L.Add()([x, L.MultiHeadAttention(4, 12)(x, x)]))
        x = L.LayerNormalization()(L.Add()([x, _mlp(x, 96, "relu")]))
    y = Positions()(L.Embedding(len(TARGET), 48, mask_zero=True)(so_far))
    for _ in range(2):
        seen = L.MultiHeadAttention(4, 12)(y, y, use_causal_mask=True)
        y = L.LayerNormalization()(L.Add()([y, seen]))
        y = L.LayerNormalization()(L.Add()([y, L.MultiHeadAttention(4, 12)(y, x)]))
        y = L.LayerNormalization()(L.Add()([y, _mlp(y, 96, "relu")]))
    return tf_keras.Model([source, so_far], L.Dense(len(TARGET))(y))


class Positions(L.Layer):
    """Adds what is known of the position, and passes the mask on."""

    def __init__(self, **options):
        super().__init__(**options)
        self.supports_masking = True

    def build(self, shape):
        """Make the weight."""
        self.places = self.add_weight("places", shape[1:], initializer="normal")

    def call(self, x):
        """Return the sum."""
        return x + self.places


def lstm() -> tf_keras.Model:
    """An LSTM on a signal of four channels."""
    x = tf_keras.Input((32, 4), name="signal")
    return tf_keras.Model(x, L.Dense(6)(L.LSTM(48)(x)))


def gru() -> tf_keras.Model:
    """Two GRU, one behind the other."""
    x = tf_keras.Input((32, 4), name="signal")
    return tf_keras.Model(x, L.Dense(6)(L.GRU(32)(L.GRU(32, return_sequences=True)(x))))


def tagger() -> tf_keras.Model:
    """A tag for each word, from both sides."""
    ids = tf_keras.Input((16,), dtype="int32", name="ids")
    x = L.Embedding(40, 24, mask_zero=True)(ids)
    x = L.Bidirectional(L.LSTM(32, return_sequences=True))(x)
    return tf_keras.Model(ids, L.Dense(6)(x))


def digits() -> tuple[Arrays, np.ndarray, Arrays, np.ndarray]:
    """Return the digits of scikit-learn."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    x = (images.reshape(-1, 8, 8, 1) / 16.0).astype(np.float32)[order]
    y = labels.astype(np.int32)[order]
    return [x[:1200]], y[:1200], [x[1200:]], y[1200:]


def chains() -> tuple[Arrays, np.ndarray, Arrays, np.ndarray]:
    """Return sentences of 8 to 24 words, and which of 8 Markov chains made them."""
    rng = np.random.default_rng(1)
    tables = rng.dirichlet(np.full(WORDS, 0.1), (8, WORDS)).cumsum(-1)
    ids, labels = np.zeros((9000, 24), np.int32), rng.integers(0, 8, 9000).astype(np.int32)
    for row, label in zip(ids, labels, strict=True):
        word = int(rng.integers(WORDS))
        for place in range(rng.integers(8, 25)):
            row[place] = word + 1
            odd, next_one = rng.random() < 0.15, np.searchsorted(tables[label, word], rng.random())
            word = int(rng.integers(WORDS) if odd else min(next_one, WORDS - 1))
    return [ids[:8000]], labels[:8000], [ids[8000:]], labels[8000:]


def signals() -> tuple[Arrays, np.ndarray, Arrays, np.ndarray]:
    """Return noisy signals: 6 kinds of what frequency and strength do over 32 steps."""
    rng = np.random.default_rng(2)
    y = rng.integers(0, 6, 4000).astype(np.int32)
    t = np.linspace(0.0, 1.0, 32)[None, :, None]
    start = rng.uniform(2.0, 4.0, (4000, 1, 1))
    sweep = np.array([0.0, 3.0, -1.5])[y % 3][:, None, None]
    swell = np.where(y < 3, 1.0, 0.0)[:, None, None]
    strength = swell + (1.0 - 2.0 * swell) * t
    phase = rng.uniform(0.0, 6.28, (4000, 1, 4))
    x = strength * np.sin(6.28 * (start * t + sweep * t * t) + phase)
    x = (x + rng.normal(0.0, 0.35, x.shape)).astype(np.float32)
    return [x[:3000]], y[:3000], [x[3000:]], y[3000:]


def tags() -> tuple[Arrays, np.ndarray, Arrays, np.ndarray]:
    """Return sentences of 6 to 16 words; a tag depends on the word and both neighbours."""
    rng = np.random.default_rng(3)
    ids = rng.integers(1, 40, (4000, 16)).astype(np.int32)
    ids *= np.arange(16) < rng.integers(6, 17, (4000, 1))
    kind = ids % 6
    before = np.pad(kind, ((0, 0), (1, 0)))[:, :-1]
    after = np.pad(kind, ((0, 0), (0, 1)))[:, 1:]
    y = np.where(ids > 0, (kind + 2 * (before > 2) + 3 * (after > after.mean())) % 6, -1)
    return [ids[:3000]], y[:3000], [ids[3000:]], y[3000:]


NOUNS, ADJECTIVES, VERBS = 12, 8, 8
KINDS = {"n": NOUNS, "a": ADJECTIVES, "v": VERBS}
SOURCE = ["", *(f"{kind}{i}" for kind, count in KINDS.items() for i in range(count))]
TARGET = ["", "<", "die", "der", *(f"{w.upper()}{e}" for w in SOURCE[1:] for e in ("", "e"))]
LONGEST = 12


def translated(words: Sequence[str]) -> list[str]:
    """Return a sentence of the made language in the other one: articles, endings, verbs last."""
    made, waiting, verbs = [], "", []
    for word in words:
        if word[0] == "a":
            waiting = word
        elif word[0] == "v":
            verbs.append(word.upper())
        else:
            ending = "e" if int(word[1:]) % 2 else ""
            made += ["die" if ending else "der", word.upper()]
            made += [waiting.upper() + ending] if waiting else []
            waiting = ""
    return [*made, *verbs]


def sentences() -> tuple[Arrays, np.ndarray, Arrays, np.ndarray]:
    """Return source, translation so far, and the next words; 0 in front of the end, then -1."""
    rng = np.random.default_rng(4)
    source, so_far = np.zeros((2, 5000, LONGEST), np.int32)
    following = np.full((5000, LONGEST), -1, np.int32)
    for row in range(5000):
        words: list[str] = []
        for part in range(int(rng.integers(1, 4))):
            words += [f"v{rng.integers(VERBS)}"] if part == 1 else []
            words += [f"a{rng.integers(ADJECTIVES)}"] if rng.random() < 0.5 else []
            words += [f"n{rng.integers(NOUNS)}"]
        made = [TARGET.index(word) for word in translated(words)][: LONGEST - 1]
        source[row, : len(words)] = [SOURCE.index(word) for word in words]
        so_far[row, : len(made) + 1] = [1, *made]
        following[row, : len(made) + 1] = [*made, 0]
    both, first, rest = [source, so_far], slice(4500), slice(4500, None)
    return [p[first] for p in both], following[first], [p[rest] for p in both], following[rest]


def bleu_of(predict: Predict, x: Arrays, y: np.ndarray) -> float:
    """Translate word by word, the likeliest each time, and return the BLEU of all sentences."""
    so_far = np.zeros_like(x[0])
    so_far[:, 0] = 1
    for place in range(LONGEST - 1):
        made = predict([x[0], so_far])[:, place].argmax(-1)
        so_far[:, place + 1] = np.where(so_far[:, place] == 0, 0, made)
    wanted = [[w for w in row if w > 0] for row in y.tolist()]
    return bleu([[w for w in row[1:] if w > 0] for row in so_far.tolist()], wanted)


def bleu(made: Sequence[list[int]], wanted: Sequence[list[int]]) -> float:
    """Return BLEU-4 of a corpus, in percent.

    Reference:
        Papineni et al. 2002, "BLEU: a Method for Automatic Evaluation of Machine Translation".
    """
    logs = 0.0
    for size in range(1, 5):
        hits = total = 0
        for one, other in zip(made, wanted, strict=True):
            grams, known = _grams(one, size), _grams(other, size)
            hits += sum((grams & known).values())
            total += sum(grams.values())
        logs += math.log(max(hits, 1e-9) / max(total, 1)) / 4.0
    length, right = (sum(map(len, part)) for part in (made, wanted))
    return 100.0 * math.exp(logs + min(0.0, 1.0 - right / max(length, 1)))


def _grams(words: list[int], size: int) -> Counter:
    return Counter(tuple(words[i : i + size]) for i in range(len(words) - size + 1))


TASKS = {
    "vit": Task(vit, digits, accuracy, 40, qat=True),
    "encoder": Task(encoder, chains, accuracy, 25),
    "translator": Task(translator, sentences, bleu_of, 25),
    "lstm": Task(lstm, signals, accuracy, 20, qat=True),
    "gru": Task(gru, signals, accuracy, 20),
    "tagger": Task(tagger, tags, accuracy, 15),
}
