"""Sums of products of two tensors, `tf.einsum` and `Dot`, as products of matrices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import tensorflow as tf

from keras_edgeq.graph import keras_compat


def einsum(equation, *inputs, **_):
    """Return `tf.einsum` of two tensors as a matrix product between transposes and reshapes.

    Letters are axes: of the batch, where both tensors and the result have them; summed over, where
    both tensors have them alone; rows and columns, where one tensor and the result have them.

    Returns:
        The result; None for what is no product of matrices, sums over the axes of one tensor, has
        the samples of the model anywhere but in front, or merges axes of unknown size.
    """
    first, second, result = _terms(equation)
    if not all(map(keras_compat.is_keras_tensor, inputs)) or not _is_product(
        (first, second, result), [x.shape.rank for x in inputs]
    ):
        return None
    batch = "".join(c for c in result if c in first and c in second)
    summed = "".join(c for c in first if c in second and c not in result)
    rows = "".join(c for c in result if c not in second)
    columns = "".join(c for c in result if c not in first)
    if rows and columns and result == batch + columns + rows:  # no transpose behind the product
        (first, second), (rows, columns), inputs = (second, first), (columns, rows), inputs[::-1]
    sizes: dict[str, Any] = {}
    for term, x in zip((first, second), inputs, strict=True):
        sizes.update({c: n or sizes.get(c) for c, n in zip(term, x.shape, strict=True)})
    merges = any(len(group) != 1 for group in (rows, summed, columns))
    if merges and any(sizes[c] is None for c in sizes if c != batch[0]):
        return None
    left = _matrix(inputs[0], first, (batch, rows, summed), sizes)
    is_plain = second == batch + summed + columns
    groups = (batch, summed, columns) if is_plain else (batch, columns, summed)
    right = _matrix(inputs[1], second, groups, sizes)
    product = tf.matmul(left, right, transpose_b=not is_plain)
    if len(rows) != 1 or len(columns) != 1:
        made = batch[1:] + rows + columns
        product = tf.reshape(product, [-1, *(sizes[c] for c in made)])
    return _transposed(product, batch + rows + columns, result)


def dot(layer: Any) -> Callable[..., Any]:
    """Return what computes the function of a `Dot` layer; on more than three axes it is None."""

    def product(inputs):
        ranks = [x.shape.rank for x in inputs]
        given = (layer.axes, layer.axes) if isinstance(layer.axes, int) else layer.axes
        if not set(ranks) <= {2, 3}:
            return None
        axes = [axis % rank for axis, rank in zip(given, ranks, strict=True)]
        if layer.normalize:
            pairs = zip(inputs, axes, strict=True)
            inputs = [tf.math.l2_normalize(x, axis=axis) for x, axis in pairs]
        terms = [list(letters[:rank]) for letters, rank in zip(("bij", "bkl"), ranks, strict=True)]
        for term, axis in zip(terms, axes, strict=True):
            term[axis] = "s"
        first, second = map("".join, terms)
        result = "b" + "".join(c for c in first + second if c not in "bs")
        made = einsum(f"{first},{second}->{result}", *inputs)
        return tf.expand_dims(made, -1) if made is not None and result == "b" else made

    return product


def _terms(equation: str) -> tuple[str, str, str]:
    """Return the letters of both tensors and of the result; none where there is no arrow."""
    tensors, _, result = equation.replace(" ", "").partition("->")
    first, _, second = tensors.partition(",")
    return first, second, result


def _is_product(terms: tuple[str, str, str], ranks: list[int]) -> bool:
    """Tell whether each letter stands once in a term and is none of one tensor alone."""
    if not all(term.isalpha() and len(set(term)) == len(term) for term in terms):
        return False
    first, second, result = map(set, terms)
    same_batch = len({term[0] for term in terms}) == 1
    fits = ranks == [len(first), len(second)]
    return same_batch and fits and first ^ second <= result <= first | second


def _matrix(x: Any, term: str, groups: tuple[str, str, str], sizes: Mapping[str, Any]) -> Any:
    """Return a tensor with the axes of the batch, and one axis for each of two other groups."""
    batch, one, other = groups
    x = _transposed(x, term, batch + one + other)
    if len(one) == len(other) == 1:
        return x
    merged = [prod(sizes[c] for c in group) for group in (one, other)]
    return tf.reshape(x, [-1, *(sizes[c] for c in batch[1:]), *merged])


def _transposed(x: Any, have: str, want: str) -> Any:
    """Return a tensor with its axes in another order; the same if it has that."""
    return x if have == want else tf.transpose(x, [have.index(c) for c in want])
