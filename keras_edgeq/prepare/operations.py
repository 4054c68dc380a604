"""Functions without a kernel of their own, written with operations that have one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf
import tf_keras

from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.name_operations import name_operations, names_of_parts
from keras_edgeq.graph.rebuild import Call, calls, rebuild, symbols_in
from keras_edgeq.prepare import arithmetic, moves
from keras_edgeq.prepare.arguments import Rewrite
from keras_edgeq.prepare.low_pads import max_pool
from keras_edgeq.prepare.products import dot, einsum
from keras_edgeq.prepare.selects import select, softmax

L = tf_keras.layers


def write_with_known_operations(model: tf_keras.Model) -> tf_keras.Model:
    """Return the model with functions that have no kernel written with operations that have one.

    What a function becomes keeps its layer's name; the operations in front of it are its parts.

    Args:
        model: a functional model without models inside; it is not changed.
    """
    if not any(_rewrite(call.layer) for call in calls(model)):
        return model
    names: dict[int, Iterator[str]] = {}
    taken = {layer.name for layer in model.layers}

    def on_call(call: Call, new: Any, args: tuple, kwargs: dict) -> Any:
        function = _rewrite(call.layer)
        if function is None or not _is_real(call) or not _takes(function, args, kwargs):
            return new(*args, **kwargs)
        made = function(*args, **kwargs)
        if made is None or made.shape.as_list() != call.node.outputs.shape.as_list():
            return new(*args, **kwargs)
        read = symbols_in((args, kwargs))
        known = {id(keras_compat.producer(tensor)[0]) for tensor in read}
        name_operations(
            made, known, names.setdefault(id(call.layer), names_of_parts(call.layer.name, taken))
        )
        return made

    return rebuild(model, on_call=on_call)


def _rewrite(layer: Any) -> Rewrite | None:
    symbol = keras_compat.op_symbol(layer)
    if symbol is not None:
        symbol = symbol.removeprefix("compat.v1.")
        return FUNCTIONS.get(symbol) or TESTS.get(symbol)
    return LAYERS[type(layer)](layer) if type(layer) in LAYERS else None


def _takes(function: Rewrite, args: tuple, kwargs: dict) -> bool:
    """Tell whether a function has the arguments of a call; earlier versions of some have more."""
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def _is_real(call: Call) -> bool:
    """Tell whether a call makes or tests float32 tensors, of no other real ones, batch in front."""
    made = tf.nest.flatten(call.node.outputs)
    tests = keras_compat.op_symbol(call.layer) in TESTS
    types = {t.dtype for t in call.reads if t.dtype.is_floating}
    types |= set() if tests else {t.dtype for t in made}
    known = all(t.shape.rank for t in [*call.reads, *made])
    return bool(call.reads) and types == {tf.float32} and known


# Functions that answer with booleans.
TESTS: Mapping[str, Rewrite] = {
    "math.is_inf": arithmetic.is_infinite,
    "math.equal": arithmetic.equal,
    "__operators__.eq": arithmetic.equal,
    "math.not_equal": arithmetic.not_equal,
    "__operators__.ne": arithmetic.not_equal,
    "math.less": arithmetic.less,
    "math.greater": arithmetic.greater,
}
# By the public name of a function of TensorFlow, without `compat.v1.`.
FUNCTIONS: Mapping[str, Rewrite] = {
    "cast": moves.cast,
    "convert_to_tensor": moves.converted,
    "ensure_shape": moves.with_shape,
    "repeat": moves.repeat,
    "roll": moves.roll,
    "reverse": moves.reverse,
    "image.flip_left_right": moves.flip(2),
    "image.flip_up_down": moves.flip(1),
    "image.transpose": moves.transpose_image,
    "image.crop_to_bounding_box": moves.crop,
    "linalg.matrix_transpose": moves.transpose_matrix,
    "clip_by_value": arithmetic.clip,
    "math.maximum": arithmetic.maximum,
    "math.minimum": arithmetic.minimum,
    "math.negative": arithmetic.negative,
    "math.square": arithmetic.square,
    "math.pow": arithmetic.power,
    "math.squared_difference": arithmetic.squared_difference,
    "math.scalar_mul": arithmetic.scaled,
    "math.divide_no_nan": arithmetic.divide_no_nan,
    "math.multiply_no_nan": arithmetic.multiply_no_nan,
    "math.add_n": arithmetic.add_all,
    "math.accumulate_n": arithmetic.add_all,
    "math.reduce_sum": arithmetic.reduce_sum,
    "nn.bias_add": arithmetic.bias_add,
    "nn.max_pool": max_pool,
    "nn.max_pool2d": max_pool,
    "einsum": einsum,
    "where": select,
}
# By the class of a layer, for the layer.
LAYERS: Mapping[type, Callable[[Any], Rewrite]] = {
    L.Add: arithmetic.several(tf.add),
    L.Multiply: arithmetic.several(tf.multiply),
    L.Maximum: arithmetic.several(tf.maximum),
    L.Minimum: arithmetic.several(tf.minimum),
    L.Average: arithmetic.average,
    L.ReLU: arithmetic.relu,
    L.ThresholdedReLU: arithmetic.thresholded_relu,
    L.Dot: dot,
    L.Softmax: softmax,
    L.CenterCrop: moves.center_crop,
}
