"""What quantization-aware training reaches, against a float model trained for the same steps.

    python benchmarks/qat_accuracy.py DATA_FOLDER resnet8 [ROWS] [SEEDS] [EPOCHS]
    python benchmarks/qat_accuracy.py DATA_FOLDER depthwise [MODELS] [SEEDS] [EPOCHS]

ResNet-8 of MLPerf Tiny on 10 000 CIFAR-10 images that went through JPEG (any fine-tuning lifts the
model, so the float model is fine-tuned in the same way). Every row: batch 64, random flips and
crops, Adam with a cosine from 1e-3 to 0, 5 000 test images. Integer rows keep batch norms until
training is over, except the one that says folded; then the batch norms are folded. W4A4 and below
mean what they mean in the papers: kernels and inputs of convolutions; the first convolution, the
classifier and the sums of residual branches have 8 bits, unless the row says throughout. ROWS is a
list with commas of names in `ROWS`, or `all`; SEEDS a list of integers. Seeds share nothing but the
pretrained weights.
About half a minute for an epoch of a row on two cores.

`depthwise` trains a DS-CNN and a MobileNetV1 of CIFAR size from nothing (12 epochs), then at W4A8
with and without `OscillationFreezing`, each with batch norms as trained and re-estimated, and the
float model for the same steps. MODELS is `DS-CNN`, `MobileNetV1` or `all`.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
import tf_keras
from data import load

import keras_edgeq as eq
from keras_edgeq.profiles.target_profile import TargetProfile

BATCH, RATE = 64, 1e-3
EDGES = {"conv2d": "W8A8", "dense": "W8A8", "add*": "W8A8", "average_pooling2d": "W8A8"}


def profile_of(weights: int, activations: int) -> TargetProfile:
    """Return a target whose convolutions have so many bits of kernels, per channel, and inputs."""
    known = eq.load_profile("qnn_w4a8").to_json()
    for part, bits in (("weight", weights), ("activation", activations)):
        known[part] = {**known[part], "bits": bits, "rule": "mse"}
    known["ops"] = {"Conv2D": {"activation": {"bits": 8}}}
    return TargetProfile.from_json({**known, "name": f"w{weights}a{activations}"})


def int8(model: tf_keras.Model, images: np.ndarray, **options) -> tf_keras.Model:
    """Return a W8A8 sim for LiteRT."""
    return eq.quantize(model, images, "litert_int8", progress=False, **options)


def low_bits(weights: int, activations: int, learn: bool, edges: dict = EDGES) -> Callable:
    """Return a function that makes a sim of few bits; `edges` keep more."""

    def make(model, images):
        sim = eq.quantize(
            model,
            images,
            profile_of(weights, activations),
            precision=edges,
            batch_norm="train",
            progress=False,
        )
        return eq.learn_ranges(sim) if learn else sim

    return make


ROWS: dict[str, Callable] = {
    "float": lambda model, images: tf_keras.models.clone_model(model),
    "W8A8": lambda model, images: int8(model, images, batch_norm="train"),
    "W8A8 folded": int8,
    "W4A4 static": low_bits(4, 4, False),
    "W4A4": low_bits(4, 4, True),
    "W4A4 throughout static": low_bits(4, 4, False, {}),
    "W4A4 throughout": low_bits(4, 4, True, {}),
    "W3A3 static": low_bits(3, 3, False),
    "W3A3": low_bits(3, 3, True),
    "W2A4": low_bits(2, 4, True),
}


def read_cifar(folder: Path):
    """Return training and test images in 0..255 and labels."""
    with np.load(folder / "cifar10_dev.npz") as data:
        train, test = (data[name].astype(np.float32) for name in ("x_train", "x_test"))
        return train, data["y_train"].ravel(), test, data["y_test"].ravel()


def augmented(images: np.ndarray, labels: np.ndarray, seed: int) -> tf.data.Dataset:
    """Return shuffled batches with random flips and crops."""

    def change(image, label):
        image = tf.image.random_flip_left_right(image)
        return tf.image.random_crop(tf.pad(image, [[4, 4], [4, 4], [0, 0]]), image.shape), label

    data = tf.data.Dataset.from_tensor_slices((images, labels))
    data = data.shuffle(len(images), seed=seed).map(change, num_parallel_calls=1)
    return data.batch(BATCH, drop_remainder=True).prefetch(2)


def train(model, data, epochs: int, rate: float = RATE, callbacks=()) -> None:
    """Fit a model or a sim."""
    steps = epochs * int(data.cardinality())
    schedule = tf_keras.optimizers.schedules.CosineDecay(rate, steps)
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf_keras.optimizers.Adam(schedule), loss, metrics=["accuracy"])
    model.fit(data, epochs=epochs, verbose=0, callbacks=list(callbacks))


def accuracy(model, images: np.ndarray, labels: np.ndarray) -> float:
    """Return top-1 in percent."""
    logits = model.predict(images, batch_size=200, verbose=0)
    return 100.0 * float(np.mean(np.argmax(logits, -1) == labels))


def one_row(folder: Path, row: str, seed: int, epochs: int) -> tuple[float, float]:
    """Train one row and return the accuracy before and after."""
    tf_keras.utils.set_random_seed(seed)
    case = load(folder, "ResNet-8")
    images, labels, test, test_labels = read_cifar(folder)
    model = ROWS[row](case.model, case.calibration[:256])
    if row == "float":
        model.set_weights(case.model.get_weights())
    before = accuracy(model, test, test_labels)
    train(model, augmented(images, labels, seed), epochs)
    if row != "float":
        model = eq.fold_batch_norms(model)
    if row.startswith("W8A8"):
        with tempfile.TemporaryDirectory() as out:
            report = eq.export(model, out, ["tflite", "onnx"], verify=test[:1000], progress=False)
        for run in report.runs:
            print(f"  {run}", flush=True)
    return before, accuracy(model, test, test_labels)


def resnet8(folder: str, rows: str = "all", seeds: str = "0,1,2", epochs: str = "6") -> None:
    """Print a line per row and seed, and a mean per row."""
    for row in ROWS if rows == "all" else rows.split(","):
        reached = []
        for seed in map(int, seeds.split(",")):
            start = time.perf_counter()
            before, after = one_row(Path(folder), row, seed, int(epochs))
            reached.append(after)
            print(
                f"ResNet-8 {row}, seed {seed}: {before:.2f} -> {after:.2f} % "
                f"({time.perf_counter() - start:.0f} s, {epochs} epochs)",
                flush=True,
            )
        print(f"ResNet-8 {row}: {np.mean(reached):.2f} ± {np.std(reached):.2f} %", flush=True)


def separable(first: dict, blocks: list[tuple[int, int]]) -> tf_keras.Model:
    """Return a network of depthwise and pointwise convolutions for CIFAR-10.

    Args:
        first: arguments of the first convolution.
        blocks: channels and stride of each pair behind it.
    """
    layers = tf_keras.layers
    x = inputs = layers.Input((32, 32, 3))
    x = layers.Rescaling(1 / 127.5, -1.0)(x)

    def normed(x):
        return layers.ReLU()(layers.BatchNormalization()(x))

    x = normed(layers.Conv2D(padding="same", use_bias=False, **first)(x))
    for channels, stride in blocks:
        x = normed(layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False)(x))
        x = normed(layers.Conv2D(channels, 1, use_bias=False)(x))
    x = layers.GlobalAveragePooling2D()(x)
    return tf_keras.Model(inputs, layers.Dense(10)(x))


DEPTHWISE: dict[str, Callable] = {
    "DS-CNN": lambda: separable({"filters": 64, "kernel_size": 4, "strides": 2}, [(64, 1)] * 4),
    "MobileNetV1": lambda: separable(
        {"filters": 16, "kernel_size": 3},
        [(32, 1), (64, 2), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1)],
    ),
}


def depthwise(folder: str, models: str = "all", seeds: str = "0,1,2", epochs: str = "4") -> None:
    """Print a line per model, way of training and seed."""
    images, labels, test, test_labels = read_cifar(Path(folder))
    for name in DEPTHWISE if models == "all" else models.split(","):
        for seed in map(int, seeds.split(",")):
            tf_keras.utils.set_random_seed(seed)
            model = DEPTHWISE[name]()
            train(model, augmented(images, labels, seed), 12, 4e-3)

            def report(kind, made, name=name, seed=seed):
                print(
                    f"{name} {kind}, seed {seed}: {accuracy(made, test, test_labels):.2f} %",
                    flush=True,
                )

            report("float", model)
            sim = eq.quantize(model, images[:256], "qnn_w4a8", batch_norm="train", progress=False)
            report("W4A8 before training", eq.fold_batch_norms(sim))
            for kind, callbacks in (
                ("W4A8", []),
                ("W4A8 oscillation freezing", [eq.callbacks.OscillationFreezing(0.05)]),
            ):
                learning = eq.learn_ranges(sim)
                train(learning, augmented(images, labels, seed), int(epochs), callbacks=callbacks)
                report(kind, eq.fold_batch_norms(learning))
                for seen, data in (
                    ("clean", images[:1000]),
                    ("augmented", augmented(images, labels, seed).take(16)),
                ):
                    measured = eq.reestimate_batch_norms(learning, data, progress=False)
                    folded = eq.fold_batch_norms(measured)
                    report(f"{kind}, batch norms re-estimated on {seen} images", folded)
            train(model, augmented(images, labels, seed), int(epochs))
            report("float for the same steps", model)


if __name__ == "__main__":
    {"resnet8": resnet8, "depthwise": depthwise}[sys.argv[2]](sys.argv[1], *sys.argv[3:])
