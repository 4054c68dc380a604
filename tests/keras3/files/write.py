"""Write the files of this folder: transfer learning as a guide of Keras 3 has it.

    python tests/keras3/files/write.py

Written once, by Keras 3.15.1, and kept: later versions of Keras 3 have to read them as well.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np

K = keras.layers


def base() -> keras.Model:
    """Return a small network, as if pretrained."""
    x = keras.Input((None, None, 3))
    y = K.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="stem")(x)
    y = K.ReLU(6.0)(K.BatchNormalization(name="stem_bn")(y))
    z = K.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(y)
    z = K.ReLU(6.0)(z)
    return keras.Model(x, K.Add(name="add")([y, z]), name="base")


def transfer() -> keras.Model:
    """Return a classifier on the frozen base, with augmentation and an adapted normalization."""
    rng = np.random.default_rng(0)
    inner = base()
    inner.trainable = False
    normalization = K.Normalization(name="normalize")
    normalization.adapt(rng.uniform(0.0, 255.0, (64, 16, 16, 3)).astype("float32"))
    image = keras.Input((16, 16, 3), name="image")
    y = keras.Sequential([K.RandomFlip("horizontal")], name="augment")(image)
    y = inner(normalization(y), training=False)
    y = K.Dropout(0.2, name="dropout")(K.GlobalAveragePooling2D(name="pool")(y))
    y = K.Activation("hard_silu", name="swish")(y)
    model = keras.Model(image, K.Dense(5, activation="softmax", name="probs")(y), name="transfer")
    for weight in model.weights:
        end, shape = weight.path.rpartition("/")[2], tuple(weight.shape)
        if weight.path.startswith("normalize") or "seed" in weight.path:
            continue
        if end in ("gamma", "moving_variance"):
            weight.assign(rng.uniform(0.5, 1.5, shape))
        elif len(shape) < 2:
            weight.assign(rng.normal(0.0, 0.2, shape))
    return model


def main() -> None:
    """Write the model in both formats, and what it computes."""
    folder = Path(__file__).parent
    keras.utils.set_random_seed(0)
    model = transfer()
    images = np.random.default_rng(1).integers(0, 256, (4, 16, 16, 3)).astype("uint8")
    for name in ("transfer.keras", "transfer.h5"):
        model.save(folder / name)
    outputs = np.asarray(model(images.astype("float32"), training=False))
    np.savez_compressed(folder / "transfer.npz", images=images, outputs=outputs)


if __name__ == "__main__":
    main()
