"""Layers made of layers that masks go through, in `tf_keras` and in Keras 3."""

from __future__ import annotations

from typing import Any

import numpy as np

WIDTH, STEPS, IDS = 8, 6, 20


def blocks(keras: Any) -> tuple[type, type, type]:
    """Return classes of transformer blocks of a library.

    Returns:
        One that says nothing of masks, one that passes them, and one whose last layers carry them
        on, although it says nothing of masks.
    """
    L = keras.layers

    class Block(L.Layer):
        """A transformer block; its attention finds the mask of what it reads."""

        def __init__(self, **options):
            super().__init__(**options)
            self.attention = L.MultiHeadAttention(2, WIDTH // 2)
            self.wide = keras.Sequential([L.Dense(16, activation="relu"), L.Dense(WIDTH)])
            self.first, self.second = L.LayerNormalization(), L.LayerNormalization()
            self.drop, self.one, self.two = L.Dropout(0.1), L.Add(), L.Add()

        def call(self, x, training=False):
            x = self.first(x + self.drop(self.attention(x, x), training=training))
            return self.second(x + self.wide(x))

    class Passing(Block):
        def __init__(self, **options):
            super().__init__(**options)
            self.supports_masking = True

    class Adding(Block):
        def call(self, x):
            x = self.first(self.one([x, self.attention(x, x)]))
            return self.second(self.two([x, self.wide(x)]))

    return Block, Passing, Adding


def padded() -> np.ndarray:
    """Return ids that zeros pad."""
    rng = np.random.default_rng(0)
    ids = rng.integers(1, IDS, (16, STEPS))
    return np.where(np.arange(STEPS) < rng.integers(2, STEPS + 1, (16, 1)), ids, 0).astype("int32")
