"""How each operation reads its operands: in steps of a grid or in real numbers, and constants."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.layer_graph import GraphNode
from keras_edgeq.ops.plain import CAPPED_RELU, CLIP, DIV, RELU, RELU6
from keras_edgeq.ops.table import op_of

L = tf_keras.layers
# The methods of TensorFlow 1's resizing functions, by the end of their names and by number.
V1_METHODS = {
    "_bilinear": "bilinear",
    "_nearest_neighbor": "nearest",
    "_bicubic": "bicubic",
    "_area": "area",
}
V1_NUMBERS = ("bilinear", "nearest", "bicubic", "area")


def takes_constants(keras_node: Any) -> bool:
    """Tell whether the target's kernel takes the constants among the operands of a call."""
    taken = op_of(keras_node.layer).operands
    if taken is None:
        return True
    for value in keras_compat.operands(keras_node)[int(taken.condition) : taken.count]:
        if keras_compat.is_keras_tensor(value):
            continue
        # The axis of a concatenation is not an operand.
        is_axis = taken.count is None and np.ndim(value) == 0
        if not is_axis and (not taken.scalars or np.size(value) != 1):
            return False
    return True


def pads_on_grid(keras_node: Any) -> bool:
    """Tell whether what a call of a padding adds lies on the grid: zeros, or what it copies."""
    layer = keras_node.layer
    if keras_compat.op_symbol(layer) is None:
        return True
    options = pad_options(layer, keras_node.call_args, keras_node.call_kwargs)
    value = np.asarray(options.get("constant_values", 0))
    return str(options.get("mode", "CONSTANT")).upper() != "CONSTANT" or bool(np.all(value == 0))


def pad_options(layer: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """Return the arguments of a call of `tf.pad` by name; that of TensorFlow 1 orders them so."""
    names = ["tensor", "paddings", "mode", "name", "constant_values"]
    if keras_compat.op_symbol(layer) == "pad":
        names[3:] = names[:2:-1]
    return dict(zip(names, args, strict=False)) | dict(kwargs)


def resampling(keras_node: Any) -> str | None:
    """Return how a call resizes images: `"bilinear"`, `"area"`; None if it does not.

    `"antialias"` stands for each method that smooths before it samples.
    """
    layer, symbol = keras_node.layer, keras_compat.op_symbol(keras_node.layer)
    if symbol is None:
        is_resize = isinstance(layer, L.Resizing | L.UpSampling2D)
        return str(layer.interpolation) if is_resize else None
    kind = symbol.rpartition("image.resize")[2]
    if "image.resize" not in symbol or kind.startswith("_with_crop"):
        return None
    if kind in V1_METHODS:
        return V1_METHODS[kind]
    options = keras_compat.bound_arguments(keras_node)
    method = options.get("method", "bilinear")
    if options.get("antialias") and symbol == "image.resize" and method != "nearest":
        return "antialias"
    return V1_NUMBERS[method] if isinstance(method, int) else str(method)


def picks_constantly(keras_node: Any) -> bool:
    """Tell whether a call of `tf.gather` picks the same places of a tensor for all samples."""
    params = keras_compat.bound_arguments(keras_node).get("params")
    tensors = [v for v in keras_compat.operands(keras_node) if keras_compat.is_keras_tensor(v)]
    given = tf.nest.flatten(dict(keras_node.call_kwargs))
    others = [v for v in given if keras_compat.is_keras_tensor(v) and v is not params]
    return keras_compat.is_keras_tensor(params) and len(tensors) <= 1 and not others


def selected_numbers(keras_node: Any) -> list[float]:
    """Return the numbers that a call of `tf.where(condition, x, y)` takes for some elements."""
    numbers = map(as_number, keras_compat.operands(keras_node)[1:3])
    return [number for number in numbers if number is not None]


def divides_by_number(keras_node: Any) -> bool:
    """Tell whether a call divides by constants, none of which is zero."""
    if op_of(keras_node.layer) is not DIV:
        return False
    divisor = keras_compat.operands(keras_node)[1]
    return not keras_compat.is_keras_tensor(divisor) and bool(np.all(np.asarray(divisor)))


def caps(keras_node: Any) -> tuple[float, float] | None:
    """Return the least and greatest result of a call that cuts numbers off; None of any other.

    A clip between tensors has none.
    """
    layer, op = keras_node.layer, op_of(keras_node.layer)
    if op in (RELU, RELU6):
        return op.bounds or (0.0, np.inf)
    if op is CAPPED_RELU:
        return 0.0, float(layer.max_value)
    if op is not CLIP:
        return None
    options = keras_compat.bound_arguments(keras_node)
    low, high = (as_number(options.get(name)) for name in ("clip_value_min", "clip_value_max"))
    return None if low is None or high is None or low > high else (low, high)


def as_number(value: Any) -> float | None:
    """Return a constant of one number, None for anything else."""
    tensors = map(keras_compat.is_keras_tensor, tf.nest.flatten(value))
    return None if any(tensors) or np.size(value) != 1 else float(np.ravel(value)[0])


def reads_mask(keras_node: Any) -> bool:
    """Tell whether a call is given a mask."""
    given: Iterable[Any] = (keras_node.call_kwargs.get(n) for n in ("mask", "attention_mask"))
    return any(value is not None for value in given)


def keeps_channels(node: GraphNode) -> bool:
    """Tell whether a pool, mean or resize leaves the last axis alone."""
    if getattr(node.layer, "data_format", "channels_last") != "channels_last":
        return False
    shape = tuple(node.call.reads[0].shape)
    if not (keras_compat.op_symbol(node.layer) or "").startswith("math.reduce"):
        return shape[-1] == node.shapes[0][-1]
    named, positional = node.call.node.call_kwargs, node.call.node.call_args[1:2]
    axis = named.get("axis", positional[0] if positional else None)
    return axis is not None and all(int(a) % len(shape) != len(shape) - 1 for a in np.ravel(axis))
