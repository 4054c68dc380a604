"""Images of circles, squares and triangles with masks and boxes, drawn with NumPy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NAMES = ("circle", "square", "triangle")


@dataclass(frozen=True, eq=False)
class Shapes:
    """Drawn images and what is on them.

    Attributes:
        images: `(samples, size, size, 3)`, 0 to 1.
        masks: `(samples, size, size)`, 0 for background, 1 + class elsewhere.
        boxes: one array `(objects, 5)` per image: class, center x, center y, width, height, in
            parts of the image.
    """

    images: np.ndarray
    masks: np.ndarray
    boxes: list[np.ndarray]


def draw(samples: int, size: int, seed: int, most: int = 3) -> Shapes:
    """Draw images with one to `most` shapes on a noisy background; boxes do not overlap."""
    rng = np.random.default_rng(seed)
    drawn = [_image(rng, size, most) for _ in range(samples)]
    images, masks, boxes = zip(*drawn, strict=True)
    return Shapes(np.stack(images), np.stack(masks), list(boxes))


def _image(rng: np.random.Generator, size: int, most: int):
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    slope = rng.uniform(-0.3, 0.3, (2, 3))
    image = rng.uniform(0.2, 0.8, 3) + x[..., None] * slope[0] + y[..., None] * slope[1]
    mask, boxes = np.zeros((size, size), np.int64), []
    for _ in range(rng.integers(1, most + 1)):
        kind = int(rng.integers(len(NAMES)))
        width, height = rng.uniform(0.18, 0.42, 2)
        cx, cy = rng.uniform(width / 2, 1 - width / 2), rng.uniform(height / 2, 1 - height / 2)
        apart = all(
            abs(cx - b[1]) > (width + b[3]) / 2 or abs(cy - b[2]) > (height + b[4]) / 2
            for b in boxes
        )
        if apart:
            inside = _inside(kind, (x - cx) / width, (y - cy) / height)
            color = np.mean(image, (0, 1)) + rng.choice([-1, 1], 3) * rng.uniform(0.15, 0.5, 3)
            image = np.where(inside[..., None], color, image)
            mask[inside] = 1 + kind
            boxes.append([kind, cx, cy, width, height])
    image = np.clip(image + rng.normal(0.0, 0.04, image.shape), 0.0, 1.0)
    return np.float32(image), mask, np.array(boxes)


def _inside(kind: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Tell which points of the unit box around 0 belong to a shape."""
    if NAMES[kind] == "circle":
        return x * x + y * y <= 0.25
    square = (np.abs(x) <= 0.5) & (np.abs(y) <= 0.5)
    return square if NAMES[kind] == "square" else square & (np.abs(x) <= (y + 0.5) / 2)
