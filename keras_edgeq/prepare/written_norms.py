"""Normalization written by hand: found from the inverse root of a mean square."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.rebuild import Call, symbols_in
from keras_edgeq.ops import op_of, op_type
from keras_edgeq.ops.norm_parts import (
    ADD,
    BOUND,
    DEVIATION,
    DIV,
    MEAN,
    MUL,
    NORM,
    POWER,
    RECIPROCAL,
    RSQRT,
    SQRT,
    SUB,
    UNIT,
    VARIANCE,
)
from keras_edgeq.ops.operands import as_number
from keras_edgeq.prepare.arguments import axes_of, is_constant
from keras_edgeq.prepare.arithmetic import FARTHEST


@dataclass(frozen=True, eq=False)
class Norm:
    """Holds `gain * source / sqrt(max(variance + epsilon, least)) + offset`.

    Args:
        source: the symbolic tensor.
        axes: over which the variance is taken, or the mean square where it is not centered.
        centered: whether the mean is subtracted first.
        epsilon: added to the variance.
        least: what it is taken for at least.
        gain: a constant.
        offset: a constant.
    """

    source: Any
    axes: tuple[int, ...]
    centered: bool
    epsilon: float = 0.0
    least: float = 0.0
    gain: Any = 1.0
    offset: Any = 0.0


class _Squared(NamedTuple):
    """The square of a deviation or a norm."""

    of: Any


def written_norm(call: Call, args: tuple, kwargs: dict) -> Norm | None:
    """Return the normalization that a call ends, None if it ends none.

    Args:
        call: of an operation.
        args: the tensors that it is given, from which the operations in front of it are followed.
        kwargs: likewise.
    """
    op = op_type(call.layer)
    if op == UNIT:
        return _unit(keras_compat.bound_arguments(call.node), symbols_in((args, kwargs)))
    pair = _flat(args, kwargs)[:2]
    if op not in PAIRS or len(pair) < 2 or not all(map(keras_compat.is_keras_tensor, pair)):
        return None
    one, other = map(_seen, pair)
    found = PAIRS[op](one, other)
    return found or (PAIRS[op](other, one) if op != DIV else None)


def _unit(given: dict[str, Any], read: list[Any]) -> Norm | None:
    """Read a call of `tf.math.l2_normalize`."""
    axes = axes_of(read[0], given.get("axis"))
    count, least = _count(read[0], axes), float(given.get("epsilon", 1e-12))
    if not axes or len(read) != 1 or not np.isfinite(count):
        return None
    return Norm(read[0], axes, False, 0.0, least / count, count**-0.5)


def _product(x: Any, root: Any) -> Norm | None:
    """Read `x * (gain / sqrt(variance + epsilon))`."""
    root, gain = _with_constant(root)
    inside = _inverse_root(root)
    return None if inside is None else _over_root(x, inside, gain)


def _quotient(x: Any, root: Any) -> Norm | None:
    """Read `x / sqrt(variance + epsilon)`."""
    inside = _root(root)
    return None if inside is None else _over_root(x, inside)


def _sum(product: Any, rest: Any) -> Norm | None:
    """Read `x * root + (offset - mean * root)`, as `tf.nn.batch_normalization` is written."""
    offset: Any = 0.0
    parts = _operands(rest, SUB)
    if parts is not None and is_constant(parts[0]):
        offset, rest, sign = parts[0], parts[1], 1.0
    else:
        sign = -1.0
    for x, root in _orders(product):
        for mean, other in _orders(rest):
            minus, factor = (mean, 1.0) if sign > 0 else _with_number(mean)
            if other is not root or factor * sign < 0.0 or abs(factor) != 1.0:
                continue
            inverse, gain = _with_constant(root)
            inside = _inverse_root(inverse)
            axes = _mean_of(minus, x)
            if inside is None or not axes:
                continue
            return _over_root(x, inside, gain, offset, axes)
    return None


def _over_root(
    x: Any, inside: Any, gain: Any = 1.0, offset: Any = 0.0, centered: tuple[int, ...] = ()
) -> Norm | None:
    """Read `inside` as a mean square of `x`, or of `x` without its mean over `centered`."""
    square, added, factor, is_bound = _inside(inside)
    if square is None or added < 0.0 or factor <= 0.0:
        return None
    source, axes, is_centered = square
    if centered:
        is_same = is_centered and source is x and centered == axes
    else:
        is_same = (_centered(x, axes) if is_centered else x) is source
    if not is_same or not np.isfinite(factor) or (is_bound and is_centered):
        return None
    epsilon, least = (0.0, added / factor) if is_bound else (added / factor, 0.0)
    gain = np.asarray(gain, np.float32) * np.float32(factor**-0.5)
    return Norm(source, axes, is_centered, epsilon, least, gain, offset)


def _inside(inside: Any) -> tuple[Any, float, float, bool]:
    """Return the mean square under a root, what is added, its factor, and whether it is bounded."""
    if isinstance(inside, _Squared):
        tensor = inside.of
        axes, read = _kept_axes(tensor), _operands(tensor, DEVIATION, NORM) or [None]
        is_norm = _operands(tensor, NORM) is not None
        square = (read[0], axes, not is_norm) if axes else None
        return square, 0.0, _count(read[0], axes) if is_norm and axes else 1.0, False
    bounds = _operands(inside, BOUND)
    if bounds is None:
        plain, epsilon = _with_number(inside, ADD, 0.0)
    else:
        plain, epsilon = bounds[0], as_number(bounds[1]) or 0.0
        if (as_number(bounds[2]) or 0.0) < FARTHEST or epsilon == 0.0:
            return None, 0.0, 1.0, False
    plain, factor = _with_number(plain)
    return _mean_square(plain), epsilon, factor, bounds is not None


def _mean_square(tensor: Any) -> tuple[Any, tuple[int, ...], bool] | None:
    """Return what a tensor is the mean square of, over which axes, and whether of differences."""
    if read := _operands(tensor, VARIANCE):
        axes = _kept_axes(tensor)
        return (read[0], axes, True) if axes else None
    mean = _operands(tensor, MEAN)
    pair = None if mean is None else _operands(mean[0], MUL)
    axes = () if mean is None else _kept_axes(tensor)
    if not axes or pair is None or len(pair) < 2 or pair[0] is not pair[1]:
        return None
    without = _centered(pair[0], axes)
    return (pair[0], axes, False) if without is None else (without, axes, True)


def _count(x: Any, axes: tuple[int, ...]) -> float:
    sizes = [x.shape[axis] for axis in axes]
    return float("nan") if None in sizes else float(np.prod(sizes))


def _inverse_root(tensor: Any) -> Any | None:
    """Return what a tensor is the inverse root of."""
    if (inside := _operands(tensor, RSQRT)) is not None:
        return inside[0]
    if (inside := _operands(tensor, RECIPROCAL)) is not None:
        return _root(inside[0])
    quotient = _operands(tensor, DIV)
    if quotient is not None and as_number(quotient[0]) == 1.0:
        return _root(quotient[1])
    power = _operands(tensor, POWER)
    return power[0] if power is not None and as_number(power[1]) == -0.5 else None


def _root(tensor: Any) -> Any | None:
    """Return what a tensor is the root of."""
    if _operands(tensor, DEVIATION, NORM) is not None:
        return _Squared(tensor)
    if (inside := _operands(tensor, SQRT)) is not None:
        return inside[0]
    power = _operands(tensor, POWER)
    return power[0] if power is not None and as_number(power[1]) == 0.5 else None


def _centered(tensor: Any, axes: tuple[int, ...]) -> Any | None:
    """Return the tensor that another one is without its mean over axes."""
    pair = _operands(tensor, SUB)
    if pair is None or not keras_compat.is_keras_tensor(pair[0]):
        return None
    return pair[0] if _mean_of(pair[1], pair[0]) == axes else None


def _mean_of(mean: Any, x: Any) -> tuple[int, ...]:
    """Return the axes over which a tensor is the mean of another one, with its axes kept."""
    source = _operands(mean, MEAN)
    return _kept_axes(mean) if source is not None and _seen(source[0]) is _seen(x) else ()


def _kept_axes(mean: Any) -> tuple[int, ...]:
    """Return the axes of a mean or norm that keeps them, none for others."""
    layer, node, _ = keras_compat.producer(_seen(mean))
    if keras_compat.op_symbol(layer) is None:
        return ()
    given = keras_compat.bound_arguments(node)
    x = given.get("input_tensor", given.get("tensor"))
    is_known = given.get("ord", "euclidean") in ("euclidean", 2) and given.get("keepdims")
    return tuple(sorted(axes_of(x, given.get("axis")))) if is_known else ()


def _with_constant(tensor: Any) -> tuple[Any, Any]:
    """Return a tensor and the constant that it is multiplied by."""
    for one, other in _orders(tensor):
        if is_constant(other) and not is_constant(one):
            return _seen(one), other
    return tensor, 1.0


def _with_number(tensor: Any, op: str = MUL, default: float = 1.0) -> tuple[Any, float]:
    """Return a tensor and the number that it is multiplied by, or that is added to it."""
    found, total = tensor, default
    while True:
        for one, other in _orders(found, op):
            number = as_number(other)
            if number is not None and not is_constant(one):
                found, total = _seen(one), total * number if op == MUL else total + number
                break
        else:
            quotient = _operands(found, DIV) if op == MUL else None
            number = None if quotient is None else as_number(quotient[1])
            if quotient is None or not number:
                return found, total
            found, total = _seen(quotient[0]), total / number


def _orders(tensor: Any, op: str = MUL) -> list[tuple[Any, Any]]:
    """Return the two operands of what made a tensor in both orders, nothing for others."""
    pair = _operands(tensor, op)
    return [] if pair is None or len(pair) < 2 else [(pair[0], pair[1]), (pair[1], pair[0])]


def _operands(tensor: Any, *ops: str) -> list[Any] | None:
    """Return what an operation read that made a tensor, None if another one did."""
    tensor = _seen(tensor)
    if not keras_compat.is_keras_tensor(tensor):
        return None
    layer, node, _ = keras_compat.producer(tensor)
    if op_type(layer) not in ops:
        return None
    return [_seen(value) for value in _flat(node.call_args, node.call_kwargs)]


def _flat(args: Any, kwargs: Any) -> list[Any]:
    """Return the arguments of a call, those that a layer has in a list one by one."""
    given = [*args, *kwargs.values()]
    return list(given[0]) if given and isinstance(given[0], list | tuple) else given


def _seen(tensor: Any) -> Any:
    """Return the tensor that one equals: what reads it computes the same of the other."""
    while keras_compat.is_keras_tensor(tensor):
        layer, node, _ = keras_compat.producer(tensor)
        if keras_compat.op_symbol(layer) is None or not op_of(layer).transparent:
            break  # a layer such as Dropout does something while a model trains
        tensor = node.keras_inputs[0]
    return tensor


# What ends a normalization, given two tensors -> its reader.
PAIRS: dict[str, Callable[[Any, Any], Norm | None]] = {
    MUL: _product,
    DIV: _quotient,
    ADD: _sum,
}
ENDS = (*PAIRS, UNIT)
