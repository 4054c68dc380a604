"""Operations that move values and compute none: exact on any type, floats too."""

from __future__ import annotations

import numpy as np

from keras_edgeq.runtime.integer.call import Call


def reshape(call: Call) -> np.ndarray:
    """Give the values another shape, from the second input or else the options."""
    given = call.values[1] if len(call.values) > 1 else None
    shape = call.option("newShape") if given is None else given
    return call.values[0].reshape([int(size) for size in np.ravel(shape)])


def squeeze(call: Call) -> np.ndarray:
    """Drop axes of size 1: those named, or all."""
    axes = call.option("squeezeDims", None)
    named = None if axes is None or not len(axes) else tuple(int(a) for a in axes)
    return np.squeeze(call.values[0], named)


def expand_dims(call: Call) -> np.ndarray:
    """Insert an axis of size 1."""
    return np.expand_dims(call.values[0], int(np.ravel(call.values[1])[0]))


def transpose(call: Call) -> np.ndarray:
    """Permute the axes."""
    return np.transpose(call.values[0], [int(a) for a in call.values[1]])


def concatenation(call: Call) -> np.ndarray:
    """Join along an axis; the kernels want one grid for all."""
    for grid in call.inputs:
        if grid.is_integer and (grid.step, grid.zero_point) != (call.out.step, call.out.zero_point):
            raise call.unlike(f"with inputs on different grids ({grid.name!r})")
    return np.concatenate(call.values, call.option("axis"))


def pack(call: Call) -> np.ndarray:
    """Stack along a new axis."""
    return np.stack(call.values, call.option("axis"))


def unpack(call: Call) -> list[np.ndarray]:
    """Take an axis apart."""
    axis = call.option("axis")
    return list(np.moveaxis(call.values[0], axis, 0))


def split(call: Call) -> list[np.ndarray]:
    """Cut into equal parts."""
    axis = int(np.ravel(call.values[0])[0])
    return np.split(call.values[1], call.option("numSplits", len(call.outputs)), axis)


def split_v(call: Call) -> list[np.ndarray]:
    """Cut into parts of given sizes; one of them may be -1, the rest."""
    x, axis = call.values[0], int(np.ravel(call.values[2])[0])
    sizes = call.values[1].astype(int)
    sizes = np.where(sizes < 0, x.shape[axis] - sizes[sizes >= 0].sum(), sizes)
    return np.split(x, np.cumsum(sizes)[:-1], axis)


def slice_(call: Call) -> np.ndarray:
    """Cut out a block; a size of -1 goes to the end."""
    x, begin, size = call.values
    ends = [None if s < 0 else b + s for b, s in zip(begin, size, strict=True)]
    return x[tuple(slice(int(b), e) for b, e in zip(begin, ends, strict=True))]


def strided_slice(call: Call) -> np.ndarray:
    """Cut as Python does; bits of the masks leave out begin or end, add or drop axes."""
    x, begins, ends, strides = call.values
    parts: list = []
    for bit in range(len(begins)):
        on = 1 << bit
        if call.option("ellipsisMask") & on:
            parts.append(Ellipsis)
        elif call.option("newAxisMask") & on:
            parts.append(None)
        elif call.option("shrinkAxisMask") & on:
            parts.append(int(begins[bit]))
        else:
            begin = None if call.option("beginMask") & on else int(begins[bit])
            end = None if call.option("endMask") & on else int(ends[bit])
            if end is not None and call.option("offset", False):
                end += int(begins[bit])
            parts.append(slice(begin, end, int(strides[bit])))
    return x[tuple(parts)]


def gather(call: Call) -> np.ndarray:
    """Pick along an axis."""
    if call.option("batchDims"):
        raise call.unlike("with batch dimensions")
    return np.take(call.values[0], call.values[1], axis=call.option("axis"))


def select(call: Call) -> np.ndarray:
    """Take the elements of one operand or of the other; a vector picks whole rows."""
    condition, x, y = call.values
    if call.name == "SELECT" and condition.ndim == 1 < x.ndim:
        condition = condition.reshape(-1, *[1] * (x.ndim - 1))
    return np.where(condition, x, y).astype(call.out.dtype)


def tile(call: Call) -> np.ndarray:
    """Repeat."""
    return np.tile(call.values[0], call.values[1])


def broadcast_to(call: Call) -> np.ndarray:
    """Repeat axes of size 1."""
    return np.broadcast_to(call.values[0], tuple(int(s) for s in call.values[1]))


def pad(call: Call) -> np.ndarray:
    """Surround with zeros, or with the value of a third input."""
    x, amounts = call.values[0], [tuple(int(a) for a in row) for row in call.values[1]]
    if len(call.values) > 2 and call.values[2] is not None:
        fill = np.ravel(call.values[2])[0]
    else:
        fill = call.out.zero_point if call.out.is_integer else 0
    return np.pad(x, amounts, constant_values=fill)


def mirror_pad(call: Call) -> np.ndarray:
    """Surround with the values near the border, mirrored."""
    mode = "symmetric" if call.option("mode") else "reflect"
    amounts = [tuple(int(a) for a in row) for row in call.values[1]]
    return np.pad(call.values[0], amounts, mode=mode)


def space_to_depth(call: Call) -> np.ndarray:
    """Move blocks of pixels into channels."""
    x, size = call.values[0], call.option("blockSize")
    b, h, w, c = x.shape
    x = x.reshape(b, h // size, size, w // size, size, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // size, w // size, size * size * c)


def depth_to_space(call: Call) -> np.ndarray:
    """Move channels into blocks of pixels."""
    x, size = call.values[0], call.option("blockSize")
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, size, size, c // (size * size))
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h * size, w * size, c // (size * size))


def space_to_batch_nd(call: Call) -> np.ndarray:
    """Move every n-th pixel into a sample of its own."""
    x, blocks, amounts = call.values
    blocks = [int(b) for b in blocks]
    pads = [(0, 0), *(tuple(int(a) for a in row) for row in amounts)]
    pads += [(0, 0)] * (x.ndim - len(pads))
    fill = call.out.zero_point if call.out.is_integer else 0
    x = np.pad(x, pads, constant_values=fill)
    count, rest = len(blocks), x.shape[1 + len(blocks) :]
    cut = [part for n, b in zip(x.shape[1:], blocks, strict=False) for part in (n // b, b)]
    split_up = x.reshape(len(x), *cut, *rest)
    inner = [2 + 2 * i for i in range(count)]
    outer = [1 + 2 * i for i in range(count)]
    last = list(range(1 + 2 * count, split_up.ndim))
    moved = split_up.transpose([*inner, 0, *outer, *last])
    return moved.reshape(-1, *(split_up.shape[o] for o in outer), *rest)


def batch_to_space_nd(call: Call) -> np.ndarray:
    """Undo `space_to_batch_nd` and crop."""
    x, blocks, crops = call.values
    blocks = [int(b) for b in blocks]
    count, rest = len(blocks), x.shape[1 + len(blocks) :]
    batch = len(x) // int(np.prod(blocks))
    x = x.reshape(*blocks, batch, *x.shape[1:])
    order = [count, *(axis for i in range(count) for axis in (count + 1 + i, i))]
    x = x.transpose([*order, *range(2 * count + 1, x.ndim)])
    sizes = [x.shape[1 + 2 * i] * blocks[i] for i in range(count)]
    x = x.reshape(batch, *sizes, *rest)
    cuts = [slice(int(a), n - int(b)) for (a, b), n in zip(crops, sizes, strict=True)]
    return x[(slice(None), *cuts)]


def reverse_v2(call: Call) -> np.ndarray:
    """Reverse axes."""
    return np.flip(call.values[0], tuple(int(a) for a in np.ravel(call.values[1])))


def shape(call: Call) -> np.ndarray:
    """Return the sizes of a tensor."""
    return np.asarray(call.values[0].shape, call.out.dtype)


def fill(call: Call) -> np.ndarray:
    """Return a tensor of one value."""
    value = np.ravel(call.values[1])[0]
    return np.full([int(s) for s in call.values[0]], value, call.out.dtype)


def arg_max(call: Call) -> np.ndarray:
    """Return the index of the largest value, the lowest of equal ones."""
    axis = int(np.ravel(call.values[1])[0])
    return np.argmax(call.values[0], axis).astype(call.out.dtype)
