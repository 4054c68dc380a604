"""Rows of `keras.ops` that move numbers, multiply matrices, and compute layers."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from tests.random_graphs.keras_ops_rows import (
    ANY,
    NEVER,
    RARE,
    _as_real,
    _bounded,
    _even,
    _expression,
    functions,
)
from tests.random_graphs.layer_rows import is_ids
from tests.random_graphs.op_rows import SLICES
from tests.random_graphs.rows import (
    Row,
    drawn,
    is_of,
    joins,
    known,
    pick,
    rank,
    real,
    roomy,
    same,
    spelled,
    written,
)


def _matrices(x):
    return known(3)(x) and x.shape[1] == x.shape[2]


def _regular(x):
    """Return square matrices that can be inverted."""
    return ops.tanh(x) * 0.1 + ops.eye(x.shape[-1])


def _symmetric(x):
    y = ops.tanh(x)
    return ops.matmul(y, ops.swapaxes(y, 1, 2)) + ops.eye(x.shape[-1])


def _newshape(chance, x) -> dict[str, Any]:
    count, channels = int(np.prod(x.shape[1:])), x.shape[-1]
    return {
        "newshape": chance.choice([(-1, count), (-1, count // channels, channels), (-1, 1, count)])
    }


def _axes(chance, x) -> dict[str, Any]:
    order = list(range(1, rank(x)))
    chance.shuffle(order)
    return {"axes": (0, *order)}


def _pad(chance, x) -> dict[str, Any]:
    widths = ((0, 0), *((chance.randint(0, 1), 1) for _ in x.shape[1:-1]), (0, 0))
    options = {"pad_width": widths, **pick(chance, mode=[..., "constant", "reflect", "symmetric"])}
    if options.get("mode", "constant") == "constant":
        options |= pick(chance, constant_values=[..., 1.0, -0.5])
    return options


def _parts(chance, x) -> dict[str, Any]:
    channels = x.shape[-1]
    forms: list[Any] = [channels] if channels < 4 else []
    forms += [2] if channels % 2 == 0 else [[1]]
    return {"indices_or_sections": chance.choice(forms), "axis": -1}


def _kernel(x, filters, *sizes):
    values = np.random.default_rng(filters).normal(size=(*sizes, x.shape[-1], filters))
    return (values / np.sqrt(x.shape[-1])).astype(np.float32)


def _pool(chance, x) -> dict[str, Any]:
    return pick(chance, pool_size=[2, 1], strides=[..., 1, 2], padding=["valid", "same"])


def _conv(chance, x) -> dict[str, Any]:
    return pick(chance, strides=[1, 2], padding=["valid", "same"])


def _separable(x, **options):
    depthwise = np.full((2, 2, x.shape[-1], 1), 0.5, np.float32)
    return ops.separable_conv(x, depthwise, _kernel(x, 3, 1, 1), **options)


def _batch_norm(x):
    size = x.shape[-1]
    mean, variance = np.linspace(0.0, 0.2, size, dtype=np.float32), np.ones(size, np.float32)
    return ops.batch_normalization(x, mean, variance + mean, axis=-1, offset=mean, scale=variance)


# Slices without `tf.newaxis`, which Keras 3 calls `None`.
_KEYS = [key for key in SLICES if "newaxis" not in key]

SHAPES: dict[str, Row] = {
    # Shapes.
    "ops.reshape": spelled(ops.reshape, "x newshape", known(2, 3, 4), _newshape),
    "ops.ravel": _expression(
        lambda x: ops.reshape(ops.ravel(x), (-1, x.shape[-1])), known(2, 3), **RARE
    ),
    "ops.transpose": spelled(ops.transpose, "x axes", real(3, 4), _axes),
    "ops.swapaxes": _expression(lambda x: ops.swapaxes(x, 1, -1), real(3, 4)),
    "ops.moveaxis": _expression(lambda x: ops.moveaxis(x, (1, 2), (2, 1)), real(3, 4), **RARE),
    "ops.expand_dims": spelled(ops.expand_dims, "x axis", real(2, 3), drawn(axis=[1, -1, 2])),
    "ops.squeeze": spelled(
        ops.squeeze,
        "x axis",
        lambda x: real(3, 4)(x) and x.shape[1] == 1,
        drawn(axis=[1]),
        weight=6,
    ),
    "ops.concatenate": spelled(
        ops.concatenate,
        "xs axis",
        ANY,
        drawn(axis=[-1]),
        listed=True,
        pairs=joins,
        most=3,
        weight=2,
    ),
    "ops.concatenate 1": spelled(
        ops.concatenate, "xs axis", real(3, 4), drawn(axis=[1]), listed=True, pairs=same
    ),
    "ops.append": _expression(lambda x, y: ops.append(x, y, axis=-1), pairs=joins, **RARE),
    "ops.stack": spelled(
        ops.stack, "x axis", real(2, 3), drawn(axis=[1, -1]), listed=True, pairs=same
    ),
    "ops.hstack": _expression(lambda x, y: ops.hstack([x, y]), real(2, 3), pairs=same, **RARE),
    "ops.vstack": _expression(
        lambda x, y: ops.reshape(ops.vstack([x, y]), (-1, 2 * x.shape[1])),
        known(2),
        pairs=same,
        **NEVER,
    ),
    "ops.dstack": _expression(lambda x, y: ops.dstack([x, y]), real(3, 4), pairs=same, **RARE),
    "ops.split": spelled(
        ops.split,
        "x indices_or_sections axis",
        lambda x: known(2, 3, 4)(x) and x.shape[-1] > 1,
        _parts,
        weight=2,
    ),
    "ops.array_split": written(
        lambda x: ops.array_split(x, 2, axis=-1),
        lambda x: known(2, 3, 4)(x) and x.shape[-1] > 1,
        **RARE,
    ),
    "ops.hsplit": written(lambda x: ops.hsplit(x, 2), _even(2, 3, 4), **RARE),
    "ops.dsplit": written(lambda x: ops.dsplit(x, 2), _even(3, 4), **RARE),
    "ops.unstack": written(
        lambda x: ops.unstack(x, axis=-1), lambda x: known(3)(x) and x.shape[-1] > 1, **RARE
    ),
    "[]": Row(
        lambda options, _: SLICES[options["at"]],
        roomy(3, 2),
        lambda chance, x: {"at": chance.choice(_KEYS)},
        weight=0.8,
    ),
    "[] map": Row(
        lambda options, _: SLICES[options["at"]],
        roomy(4, 3),
        lambda chance, x: {"at": chance.choice(_KEYS)},
    ),
    "ops.get_item": _expression(lambda x: ops.get_item(x, (slice(None), 0)), known(3, 4), **RARE),
    "ops.repeat": _expression(lambda x: ops.repeat(x, 2, axis=1), real(3), **RARE),
    "ops.tile": _expression(lambda x: ops.tile(x, [1, 2, 1]), real(3), **RARE),
    "ops.flip": written(ops.flip, real(3, 4), drawn(axis=[1, -1, (1, 2)]), **RARE),
    "ops.fliplr": _expression(ops.fliplr, real(3, 4), **RARE),
    "ops.flipud": _expression(ops.flipud, real(2, 3), **NEVER),
    "ops.rot90": _expression(lambda x: ops.rot90(x, axes=(1, 2)), real(4), **RARE),
    "ops.roll": _expression(lambda x: ops.roll(x, 1, axis=1), real(3, 4), **RARE),
    "ops.pad": spelled(ops.pad, "x pad_width mode constant_values", roomy(4, 2), _pad, weight=2),
    "ops.take": written(ops.take, roomy(3, 2), drawn(indices=[[1, 0], 0], axis=[1, -1]), **RARE),
    "ops.take_along_axis": _expression(
        lambda x: ops.take_along_axis(x, ops.argsort(x, axis=-1), axis=-1), known(3), **RARE
    ),
    "ops.diff": _expression(lambda x: ops.diff(x, axis=1), roomy(3, 3), **RARE),
    "ops.cumsum": _expression(lambda x: ops.cumsum(x, axis=1), roomy(3, 2), **RARE),
    "ops.cumprod": _expression(lambda x: ops.cumprod(_bounded(x), axis=1), roomy(3, 2), **RARE),
    "ops.nancumsum": _expression(lambda x: ops.nancumsum(x, axis=1), roomy(3, 2), **NEVER),
    "ops.nancumprod": _expression(
        lambda x: ops.nancumprod(_bounded(x), axis=1), roomy(3, 2), **NEVER
    ),
    "ops.ptp": _expression(lambda x: ops.ptp(x, axis=-1), known(3, 4), **RARE),
    "ops.average": _expression(lambda x: ops.average(x, axis=1), real(3, 4), **RARE),
    "ops.average weights": _expression(
        lambda x: ops.average(x, axis=1, weights=np.arange(1.0, x.shape[1] + 1.0, dtype="float32")),
        known(2),
        **RARE,
    ),
    "ops.moments": written(lambda x: list(ops.moments(x, axes=[1])), known(3, 4), **RARE),
    "ops.median": _expression(lambda x: ops.median(x, axis=-1), known(3, 4), **RARE),
    "ops.quantile": _expression(lambda x: ops.quantile(x, 0.3, axis=-1), known(3), **RARE),
    "ops.percentile": _expression(lambda x: ops.percentile(x, 30, axis=-1), known(3), **RARE),
    "ops.nanmedian": _expression(lambda x: ops.nanmedian(x, axis=-1), known(3), **NEVER),
    "ops.nanquantile": _expression(lambda x: ops.nanquantile(x, 0.3, axis=-1), known(3), **NEVER),
    "ops.nanpercentile": _expression(
        lambda x: ops.nanpercentile(x, 30, axis=-1), known(3), **NEVER
    ),
    **functions(
        ["argmax", "argmin", "nanargmax", "nanargmin"],
        lambda f, x: _as_real(f, x, axis=-1),
        known(3, 4),
        **NEVER,
    ),
    "ops.argsort": _expression(
        lambda x: ops.cast(ops.argsort(x, axis=-1), "float32"), known(3), **NEVER
    ),
    "ops.sort": _expression(lambda x: ops.sort(x, axis=-1), known(3, 4), **RARE),
    "ops.top_k": _expression(lambda x: ops.top_k(x, 1)[0], known(3, 4), **RARE),
    "ops.in_top_k": _expression(
        lambda x: (
            ops.cast(ops.in_top_k(ops.argmax(x, axis=-1), x, 1), "float32")[:, None] + 0.0 * x
        ),
        known(2),
        **NEVER,
    ),
    "ops.one_hot": written(lambda x: ops.one_hot(ops.cast(x, "int32"), 10), is_ids, weight=1.5),
    "ops.multi_hot": written(lambda x: ops.multi_hot(ops.cast(x, "int32"), 10), is_ids, **RARE),
    "ops.cast ids": written(lambda x: ops.cast(x, "float32") * 0.1, is_ids),
    "ops.cast uint8": written(
        lambda x: ops.cast(x, "float32") / 255.0, lambda x: is_of(x, "uint8"), weight=3
    ),
    "ops.digitize": _expression(
        lambda x: ops.cast(ops.digitize(x, np.array([0.0, 0.5, 1.0])), "float32"), **NEVER
    ),
    "ops.searchsorted": _expression(
        lambda x: (
            ops.cast(ops.searchsorted(np.array([0.0, 0.5], "float32"), ops.ravel(x)), "float32")
            + 0.0 * ops.ravel(x)
        ),
        **NEVER,
    ),
    "ops.isin": _expression(
        lambda x: ops.cast(ops.isin(x, [0.0, 1.0]), "float32") + 0.0 * x, **NEVER
    ),
    "ops.tril": _expression(ops.tril, real(3), **RARE),
    "ops.triu": _expression(ops.triu, real(3), **RARE),
    "ops.trace": _expression(lambda x: ops.trace(x, axis1=1, axis2=2), _matrices, **NEVER),
    "ops.diagonal": _expression(lambda x: ops.diagonal(x, axis1=1, axis2=2), _matrices, **NEVER),
    # Products.
    "ops.matmul constant": written(
        lambda x, columns: ops.matmul(x, _kernel(x, columns)), real(2, 3), drawn(columns=[2, 3])
    ),
    "ops.matmul": written(
        lambda x, y: ops.matmul(x, ops.swapaxes(y, 1, 2)) * (1.0 / np.sqrt(x.shape[-1])),
        real(3),
        pairs=lambda x, y: real(3)(y) and y.shape[-1] == x.shape[-1],
    ),
    "ops.dot": written(lambda x: ops.dot(x, _kernel(x, 3)), real(2, 3), **RARE),
    "ops.tensordot": written(lambda x: ops.tensordot(x, _kernel(x, 3), axes=1), real(2, 3), **RARE),
    "ops.inner": written(lambda x: ops.inner(x, _kernel(x, 3).T), real(2), **RARE),
    "ops.outer": written(
        lambda x: ops.reshape(ops.outer(x, np.array([1.0, 2.0], "float32")), (-1, 2 * x.shape[1])),
        known(2),
        **NEVER,
    ),
    "ops.cross": written(
        lambda x: ops.cross(x, np.ones(3, "float32")),
        lambda x: known(3)(x) and x.shape[-1] == 3,
        **NEVER,
    ),
    "ops.einsum": written(
        lambda x, y: ops.einsum("bic,bjc->bij", x, y) * 0.3,
        real(3),
        pairs=lambda x, y: real(3)(y) and y.shape[-1] == x.shape[-1],
        **RARE,
    ),
    "ops.einsum constant": written(
        lambda x: ops.einsum("bic,cd->bid", x, _kernel(x, 3)), real(3), **RARE
    ),
    "ops.kron": written(
        lambda x: ops.reshape(ops.kron(x, np.ones((1, 2), "float32")), (-1, 2 * x.shape[1])),
        known(2),
        **NEVER,
    ),
    "ops.cdist": written(lambda x: ops.cdist(x, x + 1.0), known(3), **NEVER),
    "ops.trapezoid": written(lambda x: ops.trapezoid(x, axis=-1), known(3), **NEVER),
    # Neural networks.
    "ops.conv": written(
        lambda x, **options: ops.conv(x, _kernel(x, 3, 2, 2), **options),
        roomy(4, 2),
        _conv,
        weight=1.5,
    ),
    "ops.conv 1d": written(
        lambda x, **options: ops.conv(x, _kernel(x, 3, 2), **options), roomy(3, 2), _conv, **RARE
    ),
    "ops.depthwise_conv": written(
        lambda x, **options: ops.depthwise_conv(
            x, np.full((2, 2, x.shape[-1], 1), 0.5, np.float32), **options
        ),
        roomy(4, 2),
        _conv,
    ),
    "ops.separable_conv": written(_separable, roomy(4, 2), _conv, **RARE),
    "ops.conv_transpose": written(
        lambda x, **options: ops.conv_transpose(
            x, np.full((2, 2, 3, x.shape[-1]), 0.3, np.float32), **options
        ),
        known(4),
        _conv,
        **RARE,
    ),
    "ops.max_pool": written(ops.max_pool, roomy(4, 2), _pool),
    "ops.average_pool": written(ops.average_pool, roomy(4, 2), _pool),
    "ops.max_pool 1d": written(ops.max_pool, roomy(3, 2), _pool, **RARE),
    "ops.average_pool 1d": written(ops.average_pool, roomy(3, 2), _pool, **RARE),
    "ops.adaptive_average_pool": written(
        ops.adaptive_average_pool, known(4), drawn(output_size=[(1, 1), (2, 2)]), **RARE
    ),
    "ops.adaptive_max_pool": written(
        ops.adaptive_max_pool, known(4), drawn(output_size=[(1, 1), (2, 2)]), **RARE
    ),
    "ops.batch_normalization": _expression(_batch_norm, known(2, 3, 4), **RARE),
    "ops.layer_normalization": _expression(
        lambda x: ops.layer_normalization(x, epsilon=0.1), known(2, 3, 4), **RARE
    ),
    "ops.rms_normalization": _expression(
        lambda x: ops.rms_normalization(x, epsilon=0.1), known(2, 3, 4), **RARE
    ),
    "ops.dot_product_attention": _expression(
        lambda x: ops.dot_product_attention(x[:, :, None], x[:, :, None], x[:, :, None])[:, :, 0],
        known(3),
        **RARE,
    ),
    "ops.depth_to_space": _expression(
        lambda x: ops.depth_to_space(x, 2), lambda x: known(4)(x) and x.shape[-1] % 4 == 0, weight=2
    ),
    "ops.space_to_depth": _expression(lambda x: ops.space_to_depth(x, 2), _even(4), weight=2),
    "ops.image.resize": written(
        ops.image.resize,
        real(4),
        drawn(size=[(3, 4), (7, 5)], interpolation=["bilinear", "nearest", "bicubic"]),
    ),
    "ops.image.rgb_to_grayscale": _expression(
        ops.image.rgb_to_grayscale, lambda x: known(4)(x) and x.shape[-1] == 3, weight=2
    ),
    "ops.image.pad_images": _expression(
        lambda x: ops.image.pad_images(x, 1, 1, 1, 1), known(4), **RARE
    ),
    "ops.image.crop_images": _expression(
        lambda x: ops.image.crop_images(x, 1, 1, target_height=1, target_width=1),
        lambda x: known(4)(x) and roomy(4, 3)(x),
        **RARE,
    ),
    "ops.image.extract_patches": _expression(
        lambda x: ops.image.extract_patches(x, (2, 2)),
        lambda x: known(4)(x) and roomy(4, 2)(x),
        **RARE,
    ),
    # Matrices.
    **functions(["det", "inv", "logdet"], lambda f, x: f(_regular(x)), _matrices, **NEVER),
    "ops.cholesky": _expression(lambda x: ops.cholesky(_symmetric(x)), _matrices, **NEVER),
    "ops.solve": _expression(lambda x: ops.solve(_regular(x), x), _matrices, **NEVER),
    "ops.norm": _expression(lambda x: ops.norm(x + 0.1, axis=-1), known(3, 4), **RARE),
}
