"""A detector with two heads, trained here and quantized: mAP of float, sim and artifacts.

    python benchmarks/detection.py [--table FILE] [--epochs N]

MobileNetV2 (alpha 0.35, random weights), a class head and a box head on a 12 x 12 grid, on 96 x 96
images of shapes drawn with NumPy. The boxes are decoded inside the model (`exp`, anchors), so every
artifact puts out boxes; that part stays float. Suppression of double boxes and the average
precision are NumPy. Fixed seeds. About five minutes on two cores.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
import tf_keras
from shapes import NAMES, Shapes, draw
from side_by_side import quick_batch_norms, table

L = tf_keras.layers
SIZE, GRID, CLASSES, ANCHOR = 96, 12, len(NAMES), 0.3
OVERLAP, KEPT = 0.5, 20


def centers() -> np.ndarray:
    """Return the middle of each cell, `(cells, 2)`, x and y in parts of the image."""
    y, x = (np.mgrid[:GRID, :GRID] + 0.5) / GRID
    return np.float32(np.stack([x.ravel(), y.ravel()], 1))


def build() -> tf_keras.Model:
    """Return the untrained net: scores `(cells, classes)`, boxes `(cells, 4)`."""
    backbone = tf_keras.applications.MobileNetV2(
        input_shape=(SIZE, SIZE, 3), alpha=0.35, include_top=False, weights=None
    )
    fine = conv(backbone.get_layer("block_6_expand_relu").output, 32, 1, "fine")
    deep = conv(backbone.get_layer("block_13_expand_relu").output, 32, 1, "deep")
    deep = L.UpSampling2D(2, interpolation="bilinear", name="up_deep")(deep)
    joint = conv(L.Concatenate(name="joint")([fine, deep]), 48, 3, "neck")
    scores = conv(joint, 32, 3, "class_conv")
    # Start from scores of 0.02: nearly all cells are background.
    rare = tf_keras.initializers.Constant(-4.0)
    scores = L.Conv2D(CLASSES, 1, name="class_logits", bias_initializer=rare)(scores)
    scores = L.Reshape((GRID * GRID, CLASSES))(scores)
    scores = L.Activation("sigmoid", name="scores")(scores)
    offsets = L.Conv2D(4, 1, name="box_offsets")(conv(joint, 32, 3, "box_conv"))
    offsets = L.Reshape((GRID * GRID, 4))(offsets)
    middle = centers() + offsets[..., :2] * ANCHOR
    extent = tf.exp(offsets[..., 2:]) * ANCHOR
    boxes = L.Concatenate(name="boxes")([middle, extent])
    return tf_keras.Model(backbone.input, {"scores": scores, "boxes": boxes})


def conv(x, filters, kernel, name):
    """Convolution, batch norm, ReLU6."""
    x = L.Conv2D(filters, kernel, padding="same", use_bias=False, name=name)(x)
    return L.ReLU(6.0, name=f"{name}_relu")(L.BatchNormalization(name=f"{name}_bn")(x))


def targets(shapes: Shapes) -> dict[str, np.ndarray]:
    """Return what each cell should say; a fifth number marks the cells near a shape's center."""
    cells = centers()
    scores = np.zeros((len(shapes.boxes), len(cells), CLASSES), np.float32)
    boxes = np.zeros((len(shapes.boxes), len(cells), 5), np.float32)
    for image, objects in enumerate(shapes.boxes):
        for kind, *box in objects:
            near = np.all(np.abs(cells - box[:2]) <= np.maximum(0.15 * np.array(box[2:]), 0.05), 1)
            scores[image, near, int(kind)] = 1.0
            boxes[image, near] = [*box, 1.0]
    return {"scores": scores, "boxes": boxes}


def box_loss(wanted, boxes):
    """Mean distance of the boxes at cells near a center."""
    distance = tf.reduce_sum(tf.abs(wanted[..., :4] - boxes), -1) * wanted[..., 4]
    return 10.0 * tf.reduce_sum(distance) / (tf.reduce_sum(wanted[..., 4]) + 1.0)


def score_loss(wanted, scores):
    """Focal cross-entropy per cell near a center."""
    likely = tf.clip_by_value(tf.where(wanted > 0.5, scores, 1.0 - scores), 1e-5, 1.0)
    weight = tf.where(wanted > 0.5, 1.0, 0.5) * tf.square(1.0 - likely)
    return -tf.reduce_sum(weight * tf.math.log(likely)) / (tf.reduce_sum(wanted) + 1.0)


def mean_average_precision(shapes: Shapes, outputs: list[np.ndarray]) -> float:
    """Return mAP at an overlap of 0.5, area under the interpolated curve, in points."""
    scores, boxes = outputs
    found = [_detections(s, b) for s, b in zip(scores, boxes, strict=True)]
    return 100.0 * float(np.mean([_average_precision(shapes, found, c) for c in range(CLASSES)]))


def _detections(scores: np.ndarray, boxes: np.ndarray) -> list[tuple[int, float, np.ndarray]]:
    """Return class, score and box of what one image keeps after suppression per class."""
    kept: list[tuple[int, float, np.ndarray]] = []
    for kind in range(CLASSES):
        own: list[np.ndarray] = []
        for cell in np.argsort(-scores[:, kind], kind="stable")[:KEPT]:
            box = boxes[cell]
            if all(overlap(box, other) < OVERLAP for other in own):
                own.append(box)
                kept.append((kind, float(scores[cell, kind]), box))
    return kept


def _average_precision(shapes: Shapes, found: list, kind: int) -> float:
    """Return the average precision of one class."""
    truth = [objects[objects[:, 0] == kind, 1:] for objects in shapes.boxes]
    open_ = [np.ones(len(t), bool) for t in truth]
    every = [(s, i, box) for i, kept in enumerate(found) for k, s, box in kept if k == kind]
    hits = []
    for _, image, box in sorted(every, key=lambda item: -item[0]):
        overlaps = [overlap(box, t) for t in truth[image]]
        best = int(np.argmax(overlaps)) if overlaps else -1
        hit = best >= 0 and overlaps[best] >= OVERLAP and open_[image][best]
        if hit:
            open_[image][best] = False
        hits.append(hit)
    right = np.cumsum(hits)
    precision = right / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    recall = right / sum(map(len, truth))
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Return intersection by union of two boxes (center, size)."""
    low = np.maximum(one[:2] - one[2:] / 2, other[:2] - other[2:] / 2)
    high = np.minimum(one[:2] + one[2:] / 2, other[:2] + other[2:] / 2)
    both = float(np.prod(np.maximum(high - low, 0.0)))
    return both / (float(np.prod(one[2:]) + np.prod(other[2:])) - both)


def main() -> None:
    """Train, quantize, export, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, help="file to write")
    parser.add_argument("--epochs", type=int, default=14)
    options = parser.parse_args()
    tf_keras.utils.set_random_seed(0)
    train, test = draw(1000, SIZE, seed=1), draw(200, SIZE, seed=2)
    model = build()
    quick_batch_norms(model)
    steps = options.epochs * len(train.images) // 16
    model.compile(
        tf_keras.optimizers.Adam(tf_keras.optimizers.schedules.CosineDecay(3e-3, steps)),
        {"scores": score_loss, "boxes": box_loss},
    )
    model.fit(train.images, targets(train), batch_size=16, epochs=options.epochs, verbose=2)
    text = table(
        model,
        train.images[:100],
        test.images,
        lambda outputs: mean_average_precision(test, [outputs[i] for i in order(model)]),
        "mAP at 0.5, points",
    )
    print(text)
    if options.table:
        options.table.write_text(text)


def order(model: tf_keras.Model) -> list[int]:
    """Return where scores and boxes stand among the model's outputs."""
    return [model.output_names.index(name) for name in ("scores", "boxes")]


if __name__ == "__main__":
    main()
