"""The demo's model: a small residual network on scikit-learn's 8x8 digits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tf_keras

from keras_edgeq.errors import EdgeqError

L = tf_keras.layers
SEED, EPOCHS, BATCH, TRAIN_SAMPLES = 1, 40, 64, 1347


class Digits(NamedTuple):
    """Images `(samples, 8, 8, 1)` in 0..1 and their digits, to train on and to test on."""

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


def digits() -> Digits:
    """Return the 1797 digits, shuffled with a fixed seed, a quarter of them for tests.

    Raises:
        EdgeqError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise EdgeqError(
            "The demo's data come with scikit-learn: pip install 'keras_edgeq[demo]'."
        ) from None
    data = load_digits()
    order = np.random.default_rng(SEED).permutation(len(data.target))
    x = (data.images[order, :, :, None] / 16.0).astype(np.float32)
    y = data.target[order]
    return Digits(x[:TRAIN_SAMPLES], y[:TRAIN_SAMPLES], x[TRAIN_SAMPLES:], y[TRAIN_SAMPLES:])


def build() -> tf_keras.Model:
    """Return the untrained model: a stem, two inverted residual blocks, a classifier."""
    image = tf_keras.Input((8, 8, 1), name="image")
    x = _normed(L.Conv2D(16, 3, padding="same", use_bias=False, name="stem"), "relu")(image)
    x = _residual(x, 48, "block1")
    x = L.MaxPooling2D(name="pool")(x)
    x = _residual(x, 48, "block2")
    x = L.GlobalAveragePooling2D(name="mean")(x)
    return tf_keras.Model(image, L.Dense(10, activation="softmax", name="digit")(x), name="digits")


def train(model: tf_keras.Model, data: Digits) -> None:
    """Train with fixed seeds; some seconds on two cores."""
    steps = EPOCHS * -(-len(data.train_x) // BATCH)
    rate = tf_keras.optimizers.schedules.CosineDecay(5e-3, steps)
    model.compile(tf_keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    model.fit(data.train_x, data.train_y, BATCH, EPOCHS, verbose=0)


def _residual(x, width: int, name: str):
    """Return `x` plus a wide depthwise convolution between two 1x1 ones, as in MobileNetV2."""
    y = _normed(L.Conv2D(width, 1, use_bias=False, name=f"{name}_expand"), "relu6")(x)
    depthwise = L.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"{name}_depthwise")
    y = _normed(depthwise, "relu6")(y)
    y = _normed(L.Conv2D(x.shape[-1], 1, use_bias=False, name=f"{name}_project"))(y)
    return L.Add(name=f"{name}_add")([x, y])


def _normed(layer: tf_keras.layers.Layer, activation: str | None = None):
    """Return a function: the layer, its batch norm and its activation."""
    norm = L.BatchNormalization(name=f"{layer.name}_norm")
    if activation is None:
        return lambda x: norm(layer(x))
    act = L.ReLU(6.0 if activation == "relu6" else None, name=f"{layer.name}_{activation}")
    return lambda x: act(norm(layer(x)))
