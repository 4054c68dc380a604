"""A segmentation net, trained here and quantized: mean IoU of float, sim and artifacts.

    python benchmarks/segmentation.py [--table FILE] [--epochs N]

MobileNetV2 (alpha 0.35, random weights) with dilated ASPP, bilinear resizes by 2, 4 and 8 and
concatenations, on 96 x 96 images of shapes drawn with NumPy. Fixed seeds. About five minutes on two
cores.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tf_keras
from shapes import NAMES, draw
from side_by_side import quick_batch_norms, table

L = tf_keras.layers
SIZE, CLASSES = 96, 1 + len(NAMES)


def build() -> tf_keras.Model:
    """Return the untrained net; it puts out logits at the size of the image."""
    backbone = tf_keras.applications.MobileNetV2(
        input_shape=(SIZE, SIZE, 3), alpha=0.35, include_top=False, weights=None
    )
    taps = ("block_1_expand_relu", "block_6_expand_relu", "block_13_expand_relu")
    shallow, middle, deep = (backbone.get_layer(name).output for name in taps)
    deep = L.UpSampling2D(8, interpolation="bilinear", name="up_deep")(aspp(deep))
    middle = conv(middle, 16, 1, name="middle")
    middle = L.UpSampling2D(4, interpolation="bilinear", name="up_middle")(middle)
    joint = L.Concatenate(name="joint")([deep, middle, conv(shallow, 16, 1, name="shallow")])
    logits = L.Conv2D(CLASSES, 1, name="logits")(conv(joint, 24, 3, name="head"))
    logits = L.UpSampling2D(2, interpolation="bilinear", name="up_logits")(logits)
    return tf_keras.Model(backbone.input, logits)


def aspp(x):
    """Look at `x` at several dilations and as a whole."""
    size = x.shape[1]
    parts = [conv(x, 24, 1, name="aspp_1")]
    parts += [conv(x, 24, 3, rate=rate, name=f"aspp_{rate}") for rate in (2, 3)]
    whole = conv(L.GlobalAveragePooling2D(keepdims=True)(x), 24, 1, name="aspp_whole")
    parts.append(L.UpSampling2D(size, interpolation="bilinear", name="up_whole")(whole))
    return conv(L.Concatenate(name="aspp")(parts), 24, 1, name="aspp_join")


def conv(x, filters, kernel, rate=1, name=None):
    """Convolution, batch norm, ReLU."""
    x = L.Conv2D(filters, kernel, padding="same", dilation_rate=rate, use_bias=False, name=name)(x)
    return L.ReLU(name=f"{name}_relu")(L.BatchNormalization(name=f"{name}_bn")(x))


def mean_iou(masks: np.ndarray, logits: np.ndarray) -> float:
    """Return the mean over classes of intersection by union, in points."""
    counts = np.bincount((masks * CLASSES + logits.argmax(-1)).ravel(), minlength=CLASSES**2)
    counts = counts.reshape(CLASSES, CLASSES)
    both = np.diag(counts)
    return 100.0 * float(np.mean(both / (counts.sum(0) + counts.sum(1) - both)))


def main() -> None:
    """Train, quantize, export, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, help="file to write")
    parser.add_argument("--epochs", type=int, default=14)
    options = parser.parse_args()
    tf_keras.utils.set_random_seed(0)
    train, test = draw(800, SIZE, seed=1), draw(200, SIZE, seed=2)
    model = build()
    quick_batch_norms(model)
    steps = options.epochs * len(train.images) // 16
    model.compile(
        tf_keras.optimizers.Adam(tf_keras.optimizers.schedules.CosineDecay(4e-3, steps)),
        tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(train.images, train.masks, batch_size=16, epochs=options.epochs, verbose=2)
    text = table(
        model,
        train.images[:100],
        test.images,
        lambda outputs: mean_iou(test.masks, outputs[0]),
        "mIoU, points",
    )
    print(text)
    if options.table:
        options.table.write_text(text)


if __name__ == "__main__":
    main()
