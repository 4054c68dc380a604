"""Functions that move numbers or leave them alone, as a gather, a slice, a transpose or nothing.

Each is a `Rewrite` of the function of that name, or makes one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from keras_edgeq.ops.operands import as_number
from keras_edgeq.prepare.arguments import Rewrite, axes_of, is_constant, sizes_of


def cast(x, dtype, name=None):
    """Return a tensor that has the type already."""
    del name
    return tf.identity(x) if tf.as_dtype(dtype) == x.dtype else None


def converted(value, *_, **__):
    """Return a tensor that is none of NumPy."""
    return tf.identity(value)


def with_shape(x, shape, name=None):
    """Return a tensor whose shape says nothing new."""
    del name
    return tf.identity(x) if x.shape.merge_with(shape).as_list() == x.shape.as_list() else None


def repeat(input, repeats, axis=None, name=None):  # TensorFlow's names
    """Pick each place of an axis as often as it is repeated."""
    del name
    sizes = sizes_of(input, axis)
    if len(sizes) != 1 or not is_constant(repeats):
        return None
    ((along, size),) = sizes.items()
    return tf.gather(input, np.repeat(np.arange(size), repeats).tolist(), axis=along)


def roll(input, shift, axis, name=None):
    """Pick the places of axes in rolled order."""
    del name
    sizes = sizes_of(input, axis)
    if len(sizes) != np.size(axis) or not is_constant(shift):
        return None
    for (along, size), steps in zip(sizes.items(), np.ravel(shift), strict=True):
        input = tf.gather(input, np.roll(np.arange(size), int(steps)).tolist(), axis=along)
    return input


def reverse(tensor, axis, name=None):
    """Slice axes backward."""
    del name
    axes = axes_of(tensor, axis)
    if not axes:
        return None
    order = [slice(None, None, -1 if a in axes else None) for a in range(tensor.shape.rank)]
    return tensor[tuple(order)]


def flip(axis: int) -> Rewrite:
    """Return what slices an axis of images backward."""

    def flipped(image):
        return reverse(image, axis) if image.shape.rank == 4 else None

    return flipped


def transpose_image(image, name=None):
    """Exchange rows and columns of images."""
    del name
    return tf.transpose(image, [0, 2, 1, 3]) if image.shape.rank == 4 else None


def transpose_matrix(a, name="matrix_transpose", conjugate=False):
    """Exchange the last two axes."""
    del name, conjugate  # real numbers are their own conjugates
    *others, row, column = range(a.shape.rank)
    return tf.transpose(a, [*others, column, row]) if others else None


def crop(image, offset_height, offset_width, target_height, target_width):
    """Slice a box out of images."""
    sides = (offset_height, offset_width, target_height, target_width)
    if image.shape.rank != 4 or any(as_number(side) is None for side in sides):
        return None
    top, left, height, width = (int(as_number(side) or 0) for side in sides)
    return image[:, top : top + height, left : left + width]


def center_crop(layer: Any) -> Rewrite:
    """Return what slices the middle out of images, for a `CenterCrop`."""

    def cropped(inputs, **_):
        sizes = sizes_of(inputs, (1, 2)) if inputs.shape.rank == 4 else {}
        if not sizes or sizes[1] < layer.height or sizes[2] < layer.width:
            return None  # it resizes
        starts = (sizes[1] - layer.height) // 2, (sizes[2] - layer.width) // 2
        return crop(inputs, *starts, layer.height, layer.width)

    return cropped
