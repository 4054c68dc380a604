"""Normalization written with operations, for targets that have kernels for those alone.

A variance spans the square of what its tensor spans, more than any grid of 8 or 16 bits has steps
for. So each vector is brought to a largest number of about 1 first; the inverse root of what is
left of its variance, by which it is multiplied then, makes up for any error in that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.name_operations import PartNames
from keras_edgeq.graph.rebuild import Call, calls, clone, rebuild
from keras_edgeq.ops import op_type
from keras_edgeq.ops.inverse import Inverse, InverseRoot
from keras_edgeq.ops.norm_parts import WRITTEN_WITH
from keras_edgeq.ops.rms_normalization import RmsNormalization
from keras_edgeq.plan.kernel import names_layer
from keras_edgeq.prepare.affine import affine, can_be_affine
from keras_edgeq.prepare.arguments import axes_of
from keras_edgeq.profiles.target_profile import TargetProfile

L = tf_keras.layers
NARROW = 8
# Added to the largest number of a vector, so that zeros have an inverse, and one that is not far
# above those of other vectors.
LEAST_REACH = 0.01
# What `tf.math.l2_normalize` takes a sum of squares for at least.
LEAST_SUM = 1e-12


def normalizations_in_parts(
    model: tf_keras.Model, profile: TargetProfile, asked: Mapping[str, str]
) -> tf_keras.Model:
    """Return the model with normalization as operations, where those compute in 16 bits.

    That is where `asked` says so, or the profile's own precision; a layer whose operation is one
    that the target computes stays whole, as does one with a mask or with sizes that are not known.
    The last operation keeps the layer's name, the others are its parts.

    Args:
        model: a functional model without models inside; it is not changed.
        profile: the target.
        asked: glob over layer names -> precision, as in `resolve`.
    """
    parts = {
        id(call.layer): PartNames(call.layer.name)
        for call in calls(model)
        if type(call.layer) in LAYERS
        and not profile.computes(op_type(call.layer))
        and _is_wide(call.layer.name, profile, asked)
    }
    if not parts or not all(map(profile.computes, WRITTEN_WITH)):
        return model

    def copied(layer: Any) -> Any | None:
        # It may end up without a call, and so without a place for its weights.
        return clone(layer, weights=layer.get_weights()) if id(layer) in parts else None

    def on_call(call: Call, new: Any, args: tuple, kwargs: dict) -> Any:
        names = parts.get(id(call.layer))
        made = None if names is None else _in_parts(call, names, args, kwargs)
        return new(*args, **kwargs) if made is None else made

    return rebuild(model, on_layer=copied, on_call=on_call)


def _is_wide(layer: str, profile: TargetProfile, asked: Mapping[str, str]) -> bool:
    """Tell whether a normalization computes in integers: of 16 bits, 8 would be too few."""
    globs = [glob for glob in asked if names_layer(layer, glob)]
    named = profile.of_kind(asked[globs[-1]], "normalization") if globs else profile.own.name
    names = [named]
    if profile.precision(named).is_integer and layer not in globs[-1:]:
        names += [name for kind, name in profile.parts.items() if kind == "normalization"]
    found = map(profile.precision, names)
    return any(one.is_integer and one.activation_bits > NARROW for one in found)


def can_be_written(layer: Any, shape: Sequence[int | None]) -> bool:
    """Tell whether the sizes that a normalization needs are known.

    Args:
        layer: of a class in `LAYERS`.
        shape: of its input, with the batch.
    """
    rank, are_known = len(shape), None not in shape[1:]
    if type(layer) is L.GroupNormalization:
        return are_known and rank > 1
    axes = {int(axis) % rank for axis in np.ravel(layer.axis)}
    has_gain = type(layer) is L.LayerNormalization and (layer.scale or layer.center)
    if has_gain and axes != {rank - 1}:
        return are_known and 0 not in axes
    if has_gain and not can_be_affine(tuple(shape)):
        return False
    return 0 not in axes and None not in [shape[axis] for axis in axes]


def _in_parts(call: Call, names: PartNames, args: tuple, kwargs: dict) -> Any:
    """Return what a layer makes of its input; None where it stays whole."""
    x: Any = args[0] if args else kwargs.get("inputs")
    if not keras_compat.is_keras_tensor(x) or x.dtype != tf.float32:
        return None
    if (
        kwargs.get("mask") is not None
        or len(args) > 1
        or not can_be_written(call.layer, tuple(x.shape))
    ):
        return None
    return LAYERS[type(call.layer)](call.layer, x, names)


def _rms_normalization(layer: Any, x: Any, names: PartNames) -> Any:
    axes = axes_of(x, layer.axis)
    return _over_root(x, axes, names, epsilon=layer.epsilon, least=layer.least)


def _unit_normalization(layer: Any, x: Any, names: PartNames) -> Any:
    axes = axes_of(x, layer.axis)
    count = float(prod(x.shape[axis] for axis in axes))
    made = _over_root(x, axes, names, "normal", least=LEAST_SUM / count)
    return names(made * count**-0.5)


def _centered(x: Any, axes: Sequence[int], epsilon: float, names: PartNames, end: str) -> Any:
    """Return a tensor without its mean over the root of its variance."""
    mean = names(tf.reduce_mean(x, axes, keepdims=True), "mean")
    return _over_root(names(x - mean, "centered"), axes, names, end, epsilon=epsilon)


def _over_root(x: Any, axes: Sequence[int], names: PartNames, end: str = "", **added: float) -> Any:
    """Return a tensor over the root of its mean square, to which `InverseRoot` adds `added`."""
    largest = names(tf.reduce_max(names(tf.abs(x), "size"), axes, keepdims=True), "largest")
    factor = names(Inverse(LEAST_REACH)(largest), "factor")
    scaled = names(x * factor, "scaled")
    square = names(tf.reduce_mean(names(scaled * scaled, "square"), axes, keepdims=True), "power")
    root = names(InverseRoot(**added)([square, factor]), "inverse_root")
    return names(scaled * root, end)


def _layer_normalization(layer: Any, x: Any, names: PartNames) -> Any:
    rank = x.shape.rank
    axes = tuple(sorted(int(axis) % rank for axis in np.ravel(layer.axis)))
    weights = _gain(layer, tuple(x.shape[axis] for axis in axes))
    made = _centered(x, axes, layer.epsilon, names, "" if weights is None else "normal")
    return made if weights is None else _with_gain(made, axes, weights, layer, names)


def _group_normalization(layer: Any, x: Any, names: PartNames) -> Any:
    """Normalize groups on four axes: samples, pixels, groups, members of a group."""
    shape = tuple(x.shape)
    axis = layer.axis % len(shape)
    pixels, after = prod(shape[1:axis]), prod(shape[axis + 1 :])
    members = shape[axis] // layer.groups * after
    grouped = names(tf.reshape(x, [-1, pixels, layer.groups, members]), "groups")
    made = _centered(grouped, (1, 3), layer.epsilon, names, "normal")
    weights = _gain(layer, (shape[axis],))
    made = names(tf.reshape(made, [-1, *shape[1:]]), "" if weights is None else "together")
    return made if weights is None else _with_gain(made, [axis], weights, layer, names)


def _gain(layer: Any, sizes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the gamma and beta of a layer, None if it has neither."""
    if layer.gamma is None and layer.beta is None:
        return None
    gamma = np.ones(sizes) if layer.gamma is None else layer.gamma.numpy()
    beta = np.zeros(sizes) if layer.beta is None else layer.beta.numpy()
    return gamma.ravel(), beta.ravel()


def _with_gain(x: Any, axes: Sequence[int], weights: tuple, layer: Any, names: PartNames) -> Any:
    """Multiply by gamma and add beta, as a convolution over the last axis."""
    gamma, beta = weights
    gain = names.layers.setdefault("gain", affine(layer.name, gamma, beta, layer.trainable))
    rank, shape = x.shape.rank, tuple(x.shape)
    kept = [axis for axis in range(rank) if axis not in axes]
    order, turned = [*kept, *axes], [*kept, *axes] != list(range(rank))
    if turned:
        x = names(tf.transpose(x, order), "turned")
    flat = [-1, *(shape[axis] for axis in kept[1:]), len(gamma)]
    if len(axes) > 1 or not can_be_affine(tuple(x.shape)):
        x = names(tf.reshape(x, [-1, prod(flat[1:-1]), flat[-1]]), "flat")
    x = gain(x)
    if tuple(x.shape) != tuple(shape[axis] for axis in order):
        x = names(tf.reshape(x, [-1, *(shape[axis] for axis in order[1:])]), "whole")
    return names(tf.transpose(x, np.argsort(order).tolist()), "back") if turned else x


# By the class of a layer; each takes the layer, its input and what names the operations.
LAYERS: Mapping[type, Callable[[Any, Any, PartNames], Any]] = {
    L.LayerNormalization: _layer_normalization,
    L.GroupNormalization: _group_normalization,
    L.UnitNormalization: _unit_normalization,
    RmsNormalization: _rms_normalization,
}
