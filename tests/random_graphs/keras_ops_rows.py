"""Rows of `keras.ops`, by the name of the function and what is special about the call.

Rows of weight 0 are not drawn: steps, whose noise is that of their input's last bit, and numbers
that soon grow. They are converted by themselves.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import partial
from typing import Any

from keras import ops

from tests.random_graphs.rows import (
    Row,
    broadcasts,
    constant,
    draw_constant,
    drawn,
    known,
    pick,
    rank,
    real,
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


def _expression(function, takes=ANY, **rest: Any) -> Row:
    return written(function, takes, **rest)


# Functions of one tensor, of any value.
PLAIN = words("""
    abs absolute fabs arctan arcsinh celu conj conjugate copy cos elu erf erfc gelu
    hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu log_sigmoid log_softmax negative real
    relu relu6 selu sigmoid silu sin soft_shrink softmax softplus softsign sparse_plus
    sparse_sigmoid squareplus stop_gradient swish tanh tanh_shrink nan_to_num deg2rad sinc
""")
# Those of small values, and of positive ones.
BOUNDED = words("""
    exp exp2 expm1 cosh sinh tan arccos arcsin arctanh square i0 erfinv rad2deg
""")
POSITIVE = words("log log1p log2 log10 sqrt rsqrt reciprocal cbrt")
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
    "ops.hard_shrink": written(ops.hard_shrink, ANY, **NEVER),
    "ops.hard_shrink threshold": written(ops.hard_shrink, ANY, drawn(threshold=[0.3]), **NEVER),
    "ops.soft_shrink threshold": written(ops.soft_shrink, ANY, drawn(threshold=[0.3]), **RARE),
    "ops.squareplus b": written(ops.squareplus, ANY, drawn(b=[1.0]), **RARE),
    "ops.threshold": written(
        ops.threshold, ANY, drawn(threshold=[0.3], default_value=[0.0]), **NEVER
    ),
    # It adds up all sums of its support, and jumps where a number joins that.
    "ops.sparsemax": written(ops.sparsemax, ANY, **NEVER),
    "ops.sparsemax axis": written(ops.sparsemax, ANY, drawn(axis=[-1]), **NEVER),
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
}
