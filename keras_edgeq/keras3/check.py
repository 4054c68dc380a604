"""Compare a converted model with its original: each layer on its own input, then the outputs."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import tensorflow as tf

from keras_edgeq.errors import SimMismatchError, UnsupportedModelError, first_words, warn
from keras_edgeq.graph import keras_compat
from keras_edgeq.keras3 import compat
from keras_edgeq.keras3.convert import Conversion, Step

# Differences relative to the largest number: of one layer, and of the outputs.
LAYER, OUTPUTS = 1e-5, 1e-4
HALF_TYPES, HALF = ("float16", "bfloat16"), 0.05
# Keras 3 on TensorFlow adds (n, 1) to (n, n) as if it was (1, n): n is no usual number of channels.
SAMPLES, OPEN_SIZE = 5, 32
# A file can declare tensors of any size; a gigabyte is more than networks for devices make.
MOST_NUMBERS = 2**28


def check_conversion(conversion: Conversion, model: Any) -> dict[str, float]:
    """Raise unless a converted model computes what the original does, on random inputs.

    Returns:
        Path of a layer -> the largest difference, relative to its largest number.

    Raises:
        SimMismatchError: names the first layer that differs, with both values.
    """
    large = _too_large(conversion)
    if large is not None:
        warn(
            f"Converted to tf_keras, {model.name!r} was not compared with its original: {large!r} "
            f"makes more than {MOST_NUMBERS} numbers. Compare both on inputs of your own.",
            UserWarning,
        )
        return {}
    inputs = _random(conversion.graph.inputs)
    if inputs is None:  # text
        return {}
    found: dict[str, float] = {}
    values = {id(k): v for k, v in zip(conversion.graph.inputs, inputs, strict=True)}
    _walk(conversion, conversion.graph, values, found)
    steps = conversion.steps.values()
    theirs = [values[id(symbol)] for symbol in conversion.graph.outputs]
    given = tf.nest.pack_sequence_as(
        keras_compat.structured_inputs(conversion.result), list(map(tf.constant, inputs))
    )
    ours = tf.nest.flatten(conversion.result(given, training=False))
    for name, one, other in zip(conversion.result.output_names, theirs, ours, strict=True):
        _compare(model.name, name, one, other, HALF if any(map(_is_half, steps)) else OUTPUTS)
    return found


def _too_large(conversion: Conversion) -> str | None:
    """Return the first layer that would fill the memory if it were computed, None if none would."""
    for graph in (conversion.graph, *conversion.graphs.values()):
        made = [(compat.input_layer(symbol).name, symbol) for symbol in graph.inputs]
        made += [(node.operation.name, s) for node in compat.nodes(graph) for s in node.outputs]
        for name, symbol in made:
            if prod(_shape(symbol)) > MOST_NUMBERS:
                return name
    return None


def _shape(symbol: Any) -> tuple[int, ...]:
    """Return the shape of random numbers for a symbolic tensor."""
    batch, *sizes = symbol.shape or (1,)
    return (batch or SAMPLES, *(OPEN_SIZE if size is None else size for size in sizes))


def _walk(conversion: Conversion, graph: Any, values: dict[int, Any], found: dict) -> None:
    """Compute a graph in Keras 3, and each of its layers in `tf_keras` on the same input."""
    import keras

    for node in compat.nodes(graph):
        step = conversion.steps[id(node.operation)]
        args, kwargs = compat.mapped(node, lambda k: values[id(k)])
        inner = conversion.graphs.get(id(node.operation))
        if inner is not None:
            flat = keras.tree.flatten((args, kwargs))
            inside = {id(k): v for k, v in zip(inner.inputs, flat, strict=False)}
            _walk(conversion, inner, inside, found)
            made = [inside[id(symbol)] for symbol in inner.outputs]
        else:
            made = _theirs(step, args, kwargs)
            ours = _ours(step, args, kwargs)
            for one, other in zip(made, ours, strict=True):
                most = HALF if _is_half(step) else LAYER
                gap = _compare(conversion.result.name, step.path, one, other, most)
                found[step.path] = max(gap, found.get(step.path, 0.0))
        values.update({id(k): v for k, v in zip(node.outputs, made, strict=True)})


def _is_half(step: Step) -> bool:
    """Tell whether a layer computes in half precision, whose noise is that of three digits."""
    return getattr(step.operation, "compute_dtype", "float32") in HALF_TYPES


def _theirs(step: Step, args: tuple, kwargs: dict) -> list[np.ndarray]:
    import keras

    operation = step.operation
    if compat.is_keras3(operation) and "training" in inspect.signature(operation.call).parameters:
        kwargs = {**kwargs, "training": False}
    try:
        made = operation(*_backend(args), **_backend(kwargs))
    except Exception as error:  # whatever Keras raises on a model that it could build
        raise UnsupportedModelError(
            f"Keras itself cannot compute {step.path!r} ({type(operation).__name__}) of the model: "
            f"{first_words(error)}"
        ) from error
    return [keras.ops.convert_to_numpy(part) for part in keras.tree.flatten(made)]


def _ours(step: Step, args: tuple, kwargs: dict) -> list[np.ndarray]:
    if step.layer is not None and keras_compat.training_argument(step.layer):
        kwargs = {**kwargs, "training": False}

    def leaf(value):
        return tf.constant(value) if isinstance(value, np.ndarray) else value

    args, kwargs = tf.nest.map_structure(leaf, (args, kwargs))
    try:
        made = step.compute(*args, **kwargs)
    except Exception as error:  # a form that TensorFlow has no kernel for, for example
        raise UnsupportedModelError(
            f"The tf_keras form of {step.path!r} ({type(step.operation).__name__}) cannot be "
            f"computed here: {first_words(error)}"
        ) from error
    return [np.asarray(part) for part in tf.nest.flatten(made)]


def _backend(given: Any) -> Any:
    import keras

    def leaf(value):
        return keras.ops.convert_to_tensor(value) if isinstance(value, np.ndarray) else value

    return keras.tree.map_structure(leaf, given)


def _random(symbols: Sequence[Any]) -> list[np.ndarray] | None:
    """Return random inputs, None where one is text."""
    rng, made = np.random.default_rng(0), []
    for symbol in symbols:
        shape = _shape(symbol)
        if symbol.dtype == "string":
            return None
        whole = symbol.dtype.startswith(("int", "uint", "bool"))
        values = rng.integers(0, 2, shape) if whole else rng.uniform(-1.0, 1.0, shape)
        made.append(values.astype(symbol.dtype))
    return made


def _compare(model: str, path: str, one: Any, other: Any, most: float) -> float:
    """Return the largest difference of two arrays, relative to the largest number."""
    wanted, got = np.asarray(one), np.asarray(other)
    if wanted.shape != got.shape:
        raise SimMismatchError(
            f"Converted to tf_keras, layer {path!r} of {model!r} would make shape {got.shape} "
            f"instead of {wanted.shape}. {FAULT}",
            path,
            float("nan"),
            float("nan"),
        )
    if wanted.dtype.kind not in "fiub" or not wanted.size:
        return 0.0
    wanted, got = wanted.astype(np.float64), got.astype(np.float64)
    distance = np.where(np.isnan(wanted) & np.isnan(got), 0.0, np.abs(wanted - got))
    largest = max(float(np.max(np.abs(np.nan_to_num(wanted)))), 1e-3)
    at = np.unravel_index(int(np.argmax(np.nan_to_num(distance, nan=np.inf))), distance.shape)
    gap = float(np.nan_to_num(distance, nan=np.inf)[at]) / largest
    if gap > most:
        raise SimMismatchError(
            f"Converted to tf_keras, layer {path!r} of {model!r} would make {got[at]:.6g} instead "
            f"of {wanted[at]:.6g}. {FAULT}",
            path,
            float(wanted[at]),
            float(got[at]),
        )
    return gap


FAULT = "This is a fault of keras_edgeq; please report it with model.to_json()."
