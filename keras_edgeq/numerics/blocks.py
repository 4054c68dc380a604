"""Weights in blocks: which elements of a channel share a scale, and the grids of such weights.

The elements of a channel lie along the one axis that no scale runs over, the inner one. Each `size`
of them are a block; the last one may be shorter. Numbers per block have the shape of the weight,
with the number of blocks on the inner axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_edgeq.numerics.affine import EMPTY_RANGE_SCALE, SMALLEST_SCALE


def inner_axes(rank: int, axes: Sequence[int]) -> tuple[int, ...]:
    """Return the axes along which the elements of a channel lie; with blocks there is one."""
    kept = {axis % rank for axis in axes}
    return tuple(axis for axis in range(rank) if axis not in kept)


def shape_of_blocks(shape: Sequence[int], axes: Sequence[int], size: int) -> tuple[int, ...]:
    """Return the shape of numbers per block.

    Example:
        >>> shape_of_blocks((100, 8), axes=(1,), size=32)
        (4, 8)
    """
    (inner,) = inner_axes(len(shape), axes)
    return tuple(-(-int(n) // size) if axis == inner else int(n) for axis, n in enumerate(shape))


def spread(numbers: Any, shape: Sequence[int], axes: Sequence[int], size: int, xp: Any = np) -> Any:
    """Return the number of each element's block, in the weight's shape.

    Args:
        numbers: per block.
        shape: of the weight.
        axes: of its channels.
        size: elements of a block.
        xp: the module that computes, NumPy or TensorFlow.
    """
    (inner,) = inner_axes(len(shape), axes)
    each = xp.repeat(numbers, size, axis=inner)
    return each[(*[slice(None)] * inner, slice(0, int(shape[inner])))]


def in_blocks(weight: NDArray, axes: Sequence[int], size: int) -> tuple[NDArray, tuple[int, ...]]:
    """Return a weight with an axis for the blocks, filled up with zeros, and the axes that own one.

    The elements of a block lie along the axis behind that.
    """
    (inner,) = inner_axes(weight.ndim, axes)
    missing = -weight.shape[inner] % size
    pads = [(0, missing if axis == inner else 0) for axis in range(weight.ndim)]
    shape = list(weight.shape)
    shape[inner : inner + 1] = [(weight.shape[inner] + missing) // size, size]
    made = np.pad(weight, pads).reshape(shape)
    return made, tuple(axis for axis in range(made.ndim) if axis != inner + 1)


def multiples_of(scale: NDArray, axes: Sequence[int], bits: int) -> tuple[NDArray, NDArray]:
    """Return a scale per channel, and the whole multiples of it that come next to given scales.

    The largest scale of a channel is `2 ** bits` times its own.

    Args:
        scale: per block, float32; 0 fits any.
        axes: of the channels.
        bits: of the multiples, which are 1 to `2 ** bits`.

    Reference:
        AIMET's low power blockwise quantization (LPBQ).
    """
    most = 2**bits
    inner = inner_axes(scale.ndim, axes)
    channel = scale.max(axis=inner, keepdims=True) / np.float32(most)
    channel = np.where(channel > 0.0, np.maximum(channel, SMALLEST_SCALE), EMPTY_RANGE_SCALE)
    multiples = np.clip(np.rint(scale / channel), 1, most)
    return channel.astype(np.float32), multiples.astype(np.float32)
