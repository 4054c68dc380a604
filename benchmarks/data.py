"""The real models and images that the benchmarks measure on, read from a folder the user names.

Expected files: `mobilenet_v1_0.75_224.h5` with `imagenet_dev.npz` (JPEG bytes, offsets, labels),
`mlperf_tiny_resnet8_cifar10.h5` with `cifar10_dev.npz`, `mlperf_tiny_kws_dscnn.h5` with
`kws_dev.npz`.
"""

from __future__ import annotations

import io
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tf_keras


@dataclass(frozen=True, eq=False)
class Case:
    """A trained model cut before its softmax, with calibration and test data."""

    name: str
    whole: tf_keras.Model
    model: tf_keras.Model
    calibration: np.ndarray
    test: np.ndarray
    labels: np.ndarray


def load(folder: Path, name: str) -> Case:
    """Return one of `CASES`."""
    model_file, read = CASES[name]
    whole = tf_keras.models.load_model(folder / model_file, compile=False)
    calibration, test, labels = read(folder)
    return Case(name, whole, logits(whole), calibration, test, np.asarray(labels).ravel())


def logits(model: tf_keras.Model) -> tf_keras.Model:
    """Return the model cut before its softmax."""
    last = model.layers[-1]
    if isinstance(last, tf_keras.layers.Activation | tf_keras.layers.Softmax):
        return tf_keras.Model(model.inputs, last.input)

    def copy(layer):
        config = layer.get_config()
        if layer is last:
            config["activation"] = "linear"
        return layer.__class__.from_config(config)

    cut = tf_keras.models.clone_model(model, clone_function=copy)
    cut.set_weights(model.get_weights())
    return cut


def _imagenet(folder: Path):
    from PIL import Image

    with np.load(folder / "imagenet_dev.npz") as data:
        jpeg, offset, label = data["jpeg"].tobytes(), data["offset"], data["label"]
    images = np.stack(
        [
            np.asarray(Image.open(io.BytesIO(jpeg[a:b])).convert("RGB"), np.float32)
            for a, b in itertools.pairwise(offset)
        ]
    )
    images = images / 127.5 - 1.0
    return images[:128], images[128:], label[128:]


def _cifar10(folder: Path):
    with np.load(folder / "cifar10_dev.npz") as data:
        train, test = data["x_train"][:1000], data["x_test"]
        return train.astype(np.float32), test.astype(np.float32), data["y_test"]


def _keywords(folder: Path):
    with np.load(folder / "kws_dev.npz") as data:
        return data["x"][:128], data["x"][128:], data["y"][128:]


CASES = {
    "MobileNetV1-0.75": ("mobilenet_v1_0.75_224.h5", _imagenet),
    "ResNet-8": ("mlperf_tiny_resnet8_cifar10.h5", _cifar10),
    "DS-CNN": ("mlperf_tiny_kws_dscnn.h5", _keywords),
}
