"""Normalization written with operations, for targets that have kernels for those alone.

A variance spans the square of what its tensor spans, more than any grid of 8 or 16 bits has steps
for. So each vector is brought to a largest number of about 1 first; the inverse root of what is
left of its variance, by which it is multiplied then, makes up for any error in that.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.rebuild import Call, calls, clone, rebuild
from keras_edgeq.ops import op_type
from keras_edgeq.ops.inverse import Inverse, InverseRoot
from keras_edgeq.prepare.affine import affine, can_be_affine
from keras_edgeq.prepare.arguments import axes_of
from keras_edgeq.prepare.written_norms import ENDS, Norm, written_norm
from keras_edgeq.profiles.target_profile import TargetProfile
from keras_edgeq.spec.tensor_ref import part_name

L = tf_keras.layers
# The operations that a normalization is written with.
WRITTEN_WITH = ("Abs", "Mean", "Mul", "ReduceMax", "Sub")
# Added to the largest number of a vector, so that zeros have an inverse, and one that is not far
# above those of other vectors.
LEAST_REACH = 0.01
# What `tf.math.l2_normalize` takes a sum of squares for at least.
LEAST_SUM = 1e-12


def normalizations_in_parts(model: tf_keras.Model, profile: TargetProfile) -> tf_keras.Model:
    """Return the model with normalization as operations, where a target computes those alone.

    A layer whose operation is one that the target computes stays whole, as does one with a mask or
    with sizes that are not known. Normalization that is written by hand is found from the inverse
    root and the product with it. The last operation keeps its name, the others are its parts.

    Args:
        model: a functional model without models inside; it is not changed.
        profile: the target.
    """
    if not _writes_out(profile):
        return model
    named: dict[int, _Names] = {}

    def names_of(layer: Any) -> _Names:
        return named.setdefault(id(layer), _Names(layer.name))

    def on_call(call: Call, new: Any, args: tuple, kwargs: dict) -> Any:
        if type(call.layer) in LAYERS and not profile.computes(op_type(call.layer)):
            made = _layer_in_parts(call, names_of(call.layer), args, kwargs)
        else:
            made = _written_in_parts(call, lambda: names_of(call.layer), args, kwargs)
        return new(*args, **kwargs) if made is None else made

    if not any(type(c.layer) in LAYERS or op_type(c.layer) in ENDS for c in calls(model)):
        return model
    return rebuild(model, on_layer=_copy, on_call=on_call)


def _copy(layer: Any) -> Any | None:
    """Return a copy of what may end up without a call, and so without a place for its weights."""
    return clone(layer, weights=layer.get_weights()) if type(layer) in LAYERS else None


def _writes_out(profile: TargetProfile) -> bool:
    """Tell whether a target computes normalization with integer kernels of its operations."""
    inside = profile.parts.get("normalization")
    has_kernels = all(map(profile.computes, WRITTEN_WITH))
    return has_kernels and inside is not None and profile.own.is_integer


def _layer_in_parts(call: Call, names: _Names, args: tuple, kwargs: dict) -> Any:
    """Return what a layer makes of its input; None where it stays whole."""
    x: Any = args[0] if args else kwargs.get("inputs")
    if not keras_compat.is_keras_tensor(x):
        return None
    shape = tuple(x.shape)
    if x.dtype != tf.float32 or None in shape[1:] or len(shape) < 2:
        return None
    if kwargs.get("mask") is not None or len(args) > 1:
        return None
    return LAYERS[type(call.layer)](call.layer, x, names)


class _Names:
    """Names for the parts of a layer: of each call its own, the operation that ends it first."""

    def __init__(self, layer: str):
        self.layer = layer
        self.counts: dict[str, Iterator[int]] = {}
        self.affine: Any = None

    def __call__(self, tensor: Any, part: str = "") -> Any:
        """Name the operation that made a tensor, and return the tensor."""
        count = next(self.counts.setdefault(part, itertools.count()))
        name = part_name(self.layer, part) if part else self.layer
        number = "" if not count else f"_{count}" if part else f"/{count}"
        keras_compat.rename(keras_compat.producer(tensor)[0], name + number)
        return tensor


def normalized(norm: Norm, names: _Names, end: str = "") -> Any:
    """Return a symbolic tensor over the root of its variance, mean square or sum of squares.

    Args:
        norm: which; without its factor, gain and offset.
        names: names the operations.
        end: name of the last one among the parts; that of the layer by default.
    """
    x, axes = norm.source, norm.axes
    if norm.centered:
        x = names(x - names(tf.reduce_mean(x, axes, keepdims=True), "mean"), "centered")
    count = float(prod(x.shape[axis] for axis in axes)) if norm.is_unit else 1.0
    largest = names(tf.reduce_max(names(tf.abs(x), "size"), axes, keepdims=True), "largest")
    factor = names(Inverse(LEAST_REACH)(largest), "factor")
    scaled = names(x * factor, "scaled")
    square = names(tf.reduce_mean(names(scaled * scaled, "square"), axes, keepdims=True), "power")
    added = {"least" if norm.is_unit else "epsilon": norm.epsilon / count}
    root = names(InverseRoot(**added)([square, factor]), "inverse_root")
    made = names(scaled * root, "normal" if norm.is_unit else end)
    return names(made * count**-0.5, end) if norm.is_unit else made


def _layer_normalization(layer: Any, x: Any, names: _Names) -> Any:
    rank = x.shape.rank
    axes = tuple(sorted(int(axis) % rank for axis in np.ravel(layer.axis)))
    weights = _gain(layer, tuple(x.shape[axis] for axis in axes))
    norm = Norm(x, axes, True, layer.epsilon)
    if weights is None:
        return normalized(norm, names)
    return _with_gain(normalized(norm, names, "normal"), axes, weights, layer, names)


def _group_normalization(layer: Any, x: Any, names: _Names) -> Any:
    """Normalize groups on four axes: samples, pixels, groups, members of a group."""
    shape = tuple(x.shape)
    axis = layer.axis % len(shape)
    pixels, after = prod(shape[1:axis]), prod(shape[axis + 1 :])
    members = shape[axis] // layer.groups * after
    grouped = names(tf.reshape(x, [-1, pixels, layer.groups, members]), "groups")
    made = normalized(Norm(grouped, (1, 3), True, layer.epsilon), names, "normal")
    weights = _gain(layer, (shape[axis],))
    made = names(tf.reshape(made, [-1, *shape[1:]]), "" if weights is None else "together")
    return made if weights is None else _with_gain(made, [axis], weights, layer, names)


def _unit_normalization(layer: Any, x: Any, names: _Names) -> Any:
    axes = axes_of(x, layer.axis)
    return normalized(Norm(x, axes, False, LEAST_SUM, is_unit=True), names) if axes else None


def _gain(layer: Any, sizes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the gamma and beta of a layer, None if it has neither."""
    if layer.gamma is None and layer.beta is None:
        return None
    gamma = np.ones(sizes) if layer.gamma is None else layer.gamma.numpy()
    beta = np.zeros(sizes) if layer.beta is None else layer.beta.numpy()
    return gamma.ravel(), beta.ravel()


def _with_gain(x: Any, axes: Sequence[int], weights: tuple, layer: Any, names: _Names) -> Any:
    """Multiply by gamma and add beta, as a convolution over the last axis."""
    if names.affine is None:
        names.affine = affine(layer.name, *weights, layer.trainable)
    rank, shape = x.shape.rank, tuple(x.shape)
    kept = [axis for axis in range(rank) if axis not in axes]
    order, turned = [*kept, *axes], [*kept, *axes] != list(range(rank))
    if turned:
        x = names(tf.transpose(x, order), "turned")
    flat = [-1, *(shape[axis] for axis in kept[1:]), len(weights[0])]
    if len(axes) > 1 or not can_be_affine(tuple(x.shape)):
        x = names(tf.reshape(x, [-1, prod(flat[1:-1]), flat[-1]]), "flat")
    x = names.affine(x)
    if tuple(x.shape) != tuple(shape[axis] for axis in order):
        x = names(tf.reshape(x, [-1, *(shape[axis] for axis in order[1:])]), "whole")
    return names(tf.transpose(x, np.argsort(order).tolist()), "back") if turned else x


def _written_in_parts(call: Call, names: Callable, args: tuple, kwargs: dict) -> Any:
    """Return the normalization that ends with a call, None if none does."""
    found = written_norm(call, args, kwargs)
    if found is None:
        return None
    name = names()
    gain = np.asarray(found.gain, np.float32) * np.float32(found.factor**-0.5)
    offset = np.asarray(0.0 if found.offset is None else found.offset, np.float32)
    is_plain = not np.any(offset) and bool(np.all(gain == 1.0))
    made = normalized(found, name, "" if is_plain else "normal")
    return made if is_plain else _moved(made, gain, offset, name)


def _moved(x: Any, gain: np.ndarray, offset: np.ndarray, names: _Names) -> Any:
    """Multiply by a constant and add another one, as a convolution where they are per channel."""
    shape = tuple(x.shape)
    sizes = {value.size for value in (gain, offset) if value.shape[-1:] == (value.size,)}
    if sizes - {1} == {shape[-1]} and can_be_affine(shape):
        scale, shift = (np.broadcast_to(value.ravel(), shape[-1:]) for value in (gain, offset))
        return affine(names.layer, scale, shift, trainable=False)(x)
    scale, shift = (float(v.ravel()[0]) if v.size == 1 else v for v in (gain, offset))
    if not np.any(offset):
        return names(x * scale)
    return names((names(x * scale, "gained") if np.any(gain != 1.0) else x) + shift)


# By the class of a layer; each takes the layer, its input and what names the operations.
LAYERS: Mapping[type, Callable[[Any, Any, _Names], Any]] = {
    L.LayerNormalization: _layer_normalization,
    L.GroupNormalization: _group_normalization,
    L.UnitNormalization: _unit_normalization,
}
