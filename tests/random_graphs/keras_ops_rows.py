"""Rows of `keras.ops`, by the name of the function and what is special about the call.

Rows of weight 0 are not drawn: steps, whose noise is that of their input's last bit, and numbers
that soon grow. They are converted by themselves.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from keras import ops

from tests.random_graphs.layer_rows import is_ids
from tests.random_graphs.op_rows import SLICES
from tests.random_graphs.rows import (
    Row,
    broadcasts,
    constant,
    draw_constant,
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

ANY = real(2, 3, 4, 5)
RARE: dict[str, Any] = {"weight": 0.4}
NEVER: dict[str, Any] = {"weight": 0.0}
EVEN = 2  # sizes that can be halved


def words(text: str) -> list[str]:
    """Return the words of a text."""
    return text.split()


def functions(names: list[str], call: Callable, *args: Any, **rest: Any) -> dict[str, Row]:
    """Return a row for each function: `call(function, *tensors)`."""
    return {
        f"ops.{name}": written(partial(call, getattr(ops, name)), *args, **rest) for name in names
    }


def _bounded(x):
    return 0.9 * ops.tanh(x)


def _positive(x):
    return ops.abs(x) + 0.2


def _even(*ranks: int):
    return lambda x: known(*ranks)(x) and all(size % EVEN == 0 for size in x.shape[1:])


def _matrices(x):
    return known(3)(x) and x.shape[1] == x.shape[2]


def _regular(x):
    """Return square matrices that can be inverted."""
    return ops.tanh(x) * 0.1 + ops.eye(x.shape[-1])


def _symmetric(x):
    y = ops.tanh(x)
    return ops.matmul(y, ops.swapaxes(y, 1, 2)) + ops.eye(x.shape[-1])


def _with_constant(function, sign):
    def make(options, name):
        del name

        def call(x):
            value = constant(options["kind"], x, options["seed"])
            a, b = (value, x) if options.get("left") else (x, value)
            return (sign if options["how"] == "operator" else function)(a, b)

        return call

    def draw(chance, x):
        options = {**draw_constant(chance, x), "how": chance.choice(("function", "operator"))}
        left = chance.random() < 0.3 and options["kind"] in ("scalar", "integer")
        return {**options, "left": True} if left and function is not ops.divide else options

    return Row(make, ANY, draw, weight=1.5)


def _axis(chance, x) -> dict[str, Any]:
    forms: list[Any] = [1, -1] + ([(1, 2), (2, 1), 2, (-3, -2)] if rank(x) == 4 else [])
    return {"axis": chance.choice(forms), **pick(chance, keepdims=[..., True, False])}


def _one_axis(chance, x) -> dict[str, Any]:
    return {"axis": chance.choice((1, -1))}


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


def _expression(function, takes=ANY, **rest: Any) -> Row:
    return written(function, takes, **rest)


# Functions of one tensor, of any value.
PLAIN = words("""
    abs absolute fabs arctan arcsinh celu conj conjugate copy cos elu erf erfc gelu hard_shrink
    hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu log_sigmoid log_softmax negative real
    relu relu6 selu sigmoid silu sin soft_shrink softmax softplus softsign sparse_plus
    sparse_sigmoid squareplus stop_gradient swish tanh tanh_shrink nan_to_num deg2rad sinc
""")
# Those of small values, and of positive ones.
BOUNDED = words("""
    exp exp2 expm1 cosh sinh tan arccos arcsin arctanh square i0 erfinv cbrt rad2deg sparsemax
""")
POSITIVE = words("log log1p log2 log10 sqrt rsqrt reciprocal")
# Steps and answers about numbers; real again by `+ 0 * x`.
STEPS = words("""
    angle ceil floor round trunc sign signbit imag isfinite isinf isnan isneginf isposinf isreal
    logical_not zeros_like ones_like
""")
REDUCING = words("mean sum max min amax amin std var logsumexp")
NAN_REDUCING = words("nanmax nanmin nanmean nansum nanstd nanvar nanprod")
BITS = words("""
    bitwise_and bitwise_or bitwise_xor bitwise_left_shift left_shift bitwise_right_shift right_shift
""")
SIGNS: dict[str, Any] = {
    "add": operator.add, "subtract": operator.sub, "multiply": operator.mul,
    "divide": operator.truediv, "true_divide": operator.truediv, "maximum": ops.maximum,
    "minimum": ops.minimum,
}  # fmt: skip
COMPARING = words("""
    equal not_equal greater greater_equal less less_equal isclose logical_and logical_or logical_xor
""")


def _as_real(function, *xs, **options):
    return ops.cast(function(*xs, **options), "float32")


def _integers(x):
    return ops.cast(ops.round(x * 8.0), "int32")


# Slices without `tf.newaxis`, which Keras 3 calls `None`.
_KEYS = [key for key in SLICES if "newaxis" not in key]

OPS: dict[str, Row] = {
    **{f"ops.{n} constant": _with_constant(getattr(ops, n), sign) for n, sign in SIGNS.items()},
    **{
        f"ops.{n}": spelled(getattr(ops, n), "x1 x2", ANY, pairs=broadcasts)
        for n in ("add", "subtract", "multiply", "maximum", "minimum")
    },
    **{
        sign: written(function, ANY, pairs=broadcasts, weight=1.5)
        for sign, function in (("+", operator.add), ("-", operator.sub), ("*", operator.mul))
    },
    "/": written(lambda x, y: x / (ops.abs(y) + 1.0), ANY, pairs=broadcasts),
    **{f"ops.{n}": spelled(getattr(ops, n), "x", ANY, **RARE) for n in PLAIN},
    **functions(BOUNDED, lambda f, x: f(_bounded(x)), ANY, **RARE),
    **functions(POSITIVE, lambda f, x: f(_positive(x)), ANY, **RARE),
    "ops.arccosh": _expression(lambda x: ops.arccosh(ops.abs(x) + 1.2), **RARE),
    **functions(STEPS, _as_real, ANY, **NEVER),
    **functions(
        COMPARING,
        lambda f, x, y: _as_real(f, ops.round(x), ops.round(y)),
        ANY,
        pairs=same,
        **NEVER,
    ),
    **functions(
        BITS, lambda f, x: _as_real(f, _integers(x), ops.abs(_integers(x)) + 1), ANY, **NEVER
    ),
    **functions(
        ["bitwise_not", "bitwise_invert"], lambda f, x: _as_real(f, _integers(x)), ANY, **NEVER
    ),
    **functions(
        ["gcd", "lcm"], lambda f, x: _as_real(f, _integers(x), _integers(x + 1.0)), ANY, **NEVER
    ),
    **{
        f"ops.{n}": spelled(getattr(ops, n), "x axis keepdims", real(2, 3, 4), _axis)
        for n in REDUCING
    },
    **{
        f"ops.{n}": spelled(getattr(ops, n), "x axis keepdims", real(2, 3, 4), _axis, **NEVER)
        for n in NAN_REDUCING
    },
    "ops.prod": spelled(ops.prod, "x axis keepdims", real(2, 3, 4), _axis, **NEVER),
    **functions(
        ["all", "any"],
        lambda f, x, **options: _as_real(f, x > 0.0, **options),
        known(3, 4),
        _axis,
        **NEVER,
    ),
    "ops.count_nonzero": _expression(
        lambda x: ops.cast(ops.count_nonzero(ops.relu(x), axis=-1), "float32"), known(3, 4), **NEVER
    ),
    "ops.softmax axis": spelled(ops.softmax, "x axis", ANY, _one_axis, **RARE),
    "ops.log_softmax axis": spelled(ops.log_softmax, "x axis", ANY, _one_axis, **RARE),
    "ops.gelu exact": written(ops.gelu, ANY, drawn(approximate=[True, False]), **RARE),
    "ops.leaky_relu slope": written(ops.leaky_relu, ANY, drawn(negative_slope=[0.1, 0.3]), **RARE),
    "ops.elu alpha": written(ops.elu, ANY, drawn(alpha=[0.5, 1.5]), **RARE),
    "ops.celu alpha": written(ops.celu, ANY, drawn(alpha=[0.5, 1.5]), **RARE),
    "ops.hard_shrink threshold": written(ops.hard_shrink, ANY, drawn(threshold=[0.3]), **NEVER),
    "ops.soft_shrink threshold": written(ops.soft_shrink, ANY, drawn(threshold=[0.3]), **RARE),
    "ops.squareplus b": written(ops.squareplus, ANY, drawn(b=[1.0]), **RARE),
    "ops.threshold": written(
        ops.threshold, ANY, drawn(threshold=[0.3], default_value=[0.0]), **NEVER
    ),
    "ops.sparsemax axis": written(ops.sparsemax, ANY, drawn(axis=[-1]), **RARE),
    "ops.glu": _expression(lambda x: ops.glu(x, axis=-1), _even(2, 3, 4), **RARE),
    "ops.normalize": written(
        lambda x, **options: ops.normalize(x + 0.1, **options),
        ANY,
        drawn(axis=[..., 1], order=[..., 1, 2]),
        **NEVER,
    ),
    "ops.clip": spelled(ops.clip, "x x_min x_max", ANY, drawn(x_min=[-1.0, 0.0], x_max=[1.0, 6.0])),
    "ops.power": _expression(lambda x: ops.sigmoid(x) ** 2, **RARE),
    "ops.power root": _expression(lambda x: ops.power(_positive(x), 0.5), **RARE),
    "ops.where": _expression(lambda x: ops.where(x > 0.0, x, 0.2 * x), **RARE),
    "ops.select": _expression(lambda x: ops.select([x > 1.0, x > 0.0], [x, x], 0.2 * x), **NEVER),
    "ops.heaviside": _expression(lambda x: ops.heaviside(x, ops.ones_like(x)) * x, **NEVER),
    "ops.divide_no_nan": _expression(lambda x: ops.divide_no_nan(x, ops.relu(x) + 1.0), **RARE),
    "ops.floor_divide": _expression(lambda x: ops.floor_divide(x, 0.7), **NEVER),
    "ops.mod": _expression(lambda x: ops.mod(x, 0.7), **NEVER),
    "ops.fmod": _expression(lambda x: ops.fmod(x, 0.7), **NEVER),
    "ops.arctan2": _expression(lambda x: ops.arctan2(x, _positive(x)), **RARE),
    "ops.hypot": _expression(lambda x: ops.hypot(x, 0.5 * x + 1.0), **RARE),
    "ops.logaddexp": _expression(lambda x: ops.logaddexp(x, 0.5 * x), **RARE),
    "ops.logaddexp2": _expression(lambda x: ops.logaddexp2(x, 0.5 * x), **RARE),
    "ops.ldexp": _expression(lambda x: ops.ldexp(x, 1), **NEVER),
    "ops.nextafter": _expression(lambda x: ops.nextafter(x, 1.0), **NEVER),
    "ops.fmax": _expression(lambda x: ops.fmax(x, 0.2), **RARE),
    "ops.fmin": _expression(lambda x: ops.fmin(x, 0.2), **RARE),
    "ops.cast": _expression(lambda x: ops.cast(ops.cast(x, "float16"), "float32"), **RARE),
    "ops.saturate_cast": _expression(
        lambda x: ops.cast(ops.saturate_cast(x * 8.0, "uint8"), "float32"), **NEVER
    ),
    "ops.full_like": _expression(lambda x: x + ops.full_like(x, 0.5), **RARE),
    "ops.empty_like": _expression(lambda x: x + 0.0 * ops.zeros_like(ops.empty_like(x)), **NEVER),
    "ops.convert_to_tensor": _expression(ops.convert_to_tensor, **RARE),
    "ops.array": _expression(ops.array, **RARE),
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
