"""Normalization written by hand as layers, which targets and techniques know."""

from __future__ import annotations

from typing import Any

import numpy as np
import tf_keras

from keras_edgeq.graph.name_operations import PartNames
from keras_edgeq.graph.rebuild import Call, calls, rebuild
from keras_edgeq.ops import op_type
from keras_edgeq.ops.rms_normalization import RmsNormalization
from keras_edgeq.prepare.affine import affine, can_be_affine
from keras_edgeq.prepare.written_norms import ENDS, Norm, written_norm

L = tf_keras.layers


def norms_to_layers(model: tf_keras.Model) -> tf_keras.Model:
    """Return the model with normalization that is written by hand as layers.

    The last operation's name is that of what the normalization ends with: the layer, or what
    multiplies by a gain and adds an offset.

    Args:
        model: a functional model without models inside; it is not changed.
    """
    if not any(op_type(call.layer) in ENDS for call in calls(model)):
        return model
    parts: dict[int, PartNames] = {}

    def on_call(call: Call, new: Any, args: tuple, kwargs: dict) -> Any:
        found = written_norm(call, args, kwargs)
        if found is None:
            return new(*args, **kwargs)
        return _made(found, parts.setdefault(id(call.layer), PartNames(call.layer.name)))

    return rebuild(model, on_call=on_call)


def _made(norm: Norm, names: PartNames) -> Any:
    """Return what a normalization makes, by layers."""
    gain, offset = (np.asarray(value, np.float32) for value in (norm.gain, norm.offset))
    is_plain = not np.any(offset) and bool(np.all(gain == 1.0))
    made = names(_layer(norm)(norm.source), "" if is_plain else "normal")
    return made if is_plain else _moved(made, gain, offset, names)


def _layer(norm: Norm) -> Any:
    axes = list(norm.axes)
    if norm.centered:
        return L.LayerNormalization(axis=axes, epsilon=norm.epsilon, center=False, scale=False)
    return RmsNormalization(axes, norm.epsilon, norm.least)


def _moved(x: Any, gain: np.ndarray, offset: np.ndarray, names: PartNames) -> Any:
    """Multiply by a constant and add another one, as a convolution where they are per channel."""
    shape = tuple(x.shape)
    sizes = {value.size for value in (gain, offset) if value.shape[-1:] == (value.size,)}
    if sizes - {1} == {shape[-1]} and can_be_affine(shape):
        scale, shift = (np.broadcast_to(value.ravel(), shape[-1:]) for value in (gain, offset))
        moved = affine(names.layer, scale, shift, trainable=False)
        return names.layers.setdefault("gain", moved)(x)
    scale, shift = (float(v.ravel()[0]) if v.size == 1 else v for v in (gain, offset))
    if not np.any(offset):
        return names(x * scale)
    return names((names(x * scale, "gained") if np.any(gain != 1.0) else x) + shift)
