"""Weights in blocks: which elements of a channel share a scale, and the grids of such weights.

The elements of a channel lie along the axes that no scale runs over, the inner ones, which are
neighbours. They are counted in their order, and each `size` of them are a block; the last one may
be shorter. Numbers per block have the shape of the weight, with the number of blocks on the first
inner axis and 1 on the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray


def inner_axes(rank: int, axes: Sequence[int]) -> tuple[int, ...]:
    """Return the axes along which the elements of a channel lie."""
    kept = {axis % rank for axis in axes}
    return tuple(axis for axis in range(rank) if axis not in kept)


def are_neighbours(axes: Sequence[int]) -> bool:
    """Tell whether axes follow each other, and there are any."""
    return bool(axes) and tuple(axes) == tuple(range(axes[0], axes[-1] + 1))


def shape_of_blocks(shape: Sequence[int], axes: Sequence[int], size: int) -> tuple[int, ...]:
    """Return the shape of numbers per block.

    Example:
        >>> shape_of_blocks((100, 8), axes=(1,), size=32)
        (4, 8)
    """
    inner = inner_axes(len(shape), axes)
    made = [1 if axis in inner else int(n) for axis, n in enumerate(shape)]
    made[inner[0]] = -(-prod(int(shape[axis]) for axis in inner) // size)
    return tuple(made)


def spread(numbers: Any, shape: Sequence[int], axes: Sequence[int], size: int, xp: Any = np) -> Any:
    """Return the number of each element's block, in the weight's shape.

    Args:
        numbers: per block.
        shape: of the weight.
        axes: of its channels.
        size: elements of a block.
        xp: the module that computes, NumPy or TensorFlow.
    """
    inner = inner_axes(len(shape), axes)
    first, count = inner[0], prod(int(shape[axis]) for axis in inner)
    each = xp.repeat(numbers, size, axis=first)
    each = each[(*[slice(None)] * first, slice(0, count))]
    return xp.reshape(each, [int(n) for n in shape])


def firsts(values: NDArray, axes: Sequence[int], size: int) -> NDArray:
    """Return the first element of each block: what `spread` was given."""
    inner = inner_axes(values.ndim, axes)
    flat = _flat(values, inner)
    return flat[(*[slice(None)] * inner[0], slice(None, None, size))]


def in_blocks(weight: NDArray, axes: Sequence[int], size: int) -> tuple[NDArray, tuple[int, ...]]:
    """Return a weight with an axis for the blocks, filled up with zeros, and the kept axes.

    The elements of a block lie along the axis behind that; all others own a range.
    """
    inner = inner_axes(weight.ndim, axes)
    flat, first = _flat(weight, inner), inner[0]
    count = flat.shape[first]
    missing = -count % size
    pads = [(0, missing if axis == first else 0) for axis in range(flat.ndim)]
    padded = np.pad(flat, pads)
    shape = list(padded.shape)
    # The other inner axes are 1 now, and stand for the elements of a block.
    shape[first : first + 1] = [(count + missing) // size, size]
    made = padded.reshape(shape)
    return made, tuple(axis for axis in range(made.ndim) if axis != first + 1)


def multiples_of(scale: NDArray, axes: Sequence[int], bits: int) -> tuple[NDArray, NDArray]:
    """Return a scale per channel, and the whole multiples of it that come next to given scales.

    The largest scale of a channel is `2 ** bits` times its own.

    Args:
        scale: per block, float32.
        axes: of the channels.
        bits: of the multiples, which are 1 to `2 ** bits`.

    Reference:
        AIMET's low power blockwise quantization (LPBQ).
    """
    most = 2**bits
    inner = inner_axes(scale.ndim, axes)
    channel = scale.max(axis=inner, keepdims=True) / np.float32(most)
    multiples = np.clip(np.rint(scale / channel), 1, most)
    return channel.astype(np.float32), multiples.astype(np.float32)


def _flat(values: NDArray, inner: Sequence[int]) -> NDArray:
    """Return values with all inner axes on the first of them, and 1 on the others."""
    shape = list(values.shape)
    for axis in inner[1:]:
        shape[inner[0]] *= shape[axis]
        shape[axis] = 1
    return values.reshape(shape)
