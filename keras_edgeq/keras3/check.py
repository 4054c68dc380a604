"""Compare a converted model with its original: each layer on its own input, then the outputs."""

from __future__ import annotations

import inspect
from math import prod
from typing import Any

import numpy as np
import tensorflow as tf

from keras_edgeq.errors import SimMismatchError, UnsupportedModelError, first_words, warn
from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.compare import is_half, largest_gap, random_arrays, sizes_of
from keras_edgeq.keras3 import compat
from keras_edgeq.keras3.convert import Conversion, Step
from keras_edgeq.keras3.open_batch import BATCH

# Differences relative to the largest number: of one layer, and of the outputs.
LAYER, OUTPUTS = 1e-5, 1e-4
HALF = 0.05
# Keras 3 on TensorFlow adds (n, 1) to (n, n) as if it was (1, n): n is no usual number of channels.
SAMPLES = 5
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
    samples = BATCH if conversion.opened_batch else SAMPLES
    inputs = random_arrays(((k.shape, k.dtype) for k in conversion.graph.inputs), samples)
    if inputs is None:  # text
        return {}
    found: dict[str, float] = {}
    values = {id(k): v for k, v in zip(conversion.graph.inputs, inputs, strict=True)}
    _walk(conversion, conversion.graph, values, found)
    theirs = _outputs(conversion, inputs)  # with the masks, which the walk has not
    given = tf.nest.pack_sequence_as(
        keras_compat.structured_inputs(conversion.result), list(map(tf.constant, inputs))
    )
    ours = tf.nest.flatten(conversion.result(given, training=False))
    for name, one, other in zip(conversion.result.output_names, theirs, ours, strict=True):
        _compare(model.name, name, one, other, _noise(conversion))
    if conversion.opened_batch:
        _check_other_batch(conversion, model.name, inputs)
    return found


def _outputs(conversion: Conversion, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Return what Keras 3 makes of inputs."""
    import keras

    given = keras.tree.pack_sequence_as(compat.structure(conversion.graph)[0], _backend(inputs))
    made = keras.tree.flatten(conversion.graph(given, training=False))
    return [keras.ops.convert_to_numpy(one) for one in made]


def _noise(conversion: Conversion) -> float:
    halves = (is_half(step.operation) for step in conversion.steps.values())
    return HALF if any(halves) else OUTPUTS


def _check_other_batch(conversion: Conversion, name: str, inputs: list[np.ndarray]) -> None:
    """Compare on one more sample: layers were called on a batch as large as that of the inputs."""
    more = [np.concatenate([part, part[::-1][:1]]) for part in inputs]
    theirs = _outputs(conversion, more)
    structure = keras_compat.structured_inputs(conversion.result)
    most = _noise(conversion)
    try:
        ours = conversion.result(tf.nest.pack_sequence_as(structure, more), training=False)
        for output, one, other in zip(
            conversion.result.output_names, theirs, tf.nest.flatten(ours), strict=True
        ):
            _compare(name, output, one, other, most)
    except (SimMismatchError, tf.errors.OpError, ValueError) as error:
        layers = ", ".join(map(repr, conversion.opened_batch))
        raise UnsupportedModelError(
            f"Model {name!r} has layers of its own that read the size of their batch ({layers}), "
            "and what they do with it holds for one size only. Write them with -1 for the batch in "
            "ops.reshape, and without ops.shape(x)[0]."
        ) from error


def _too_large(conversion: Conversion) -> str | None:
    """Return the first layer that would fill the memory if it were computed, None if none would."""
    for graph in (conversion.graph, *conversion.graphs.values()):
        made = [(compat.input_layer(symbol).name, symbol) for symbol in graph.inputs]
        made += [(node.operation.name, s) for node in compat.nodes(graph) for s in node.outputs]
        for name, symbol in made:
            if prod(sizes_of(symbol.shape, SAMPLES)) > MOST_NUMBERS:
                return name
    return None


def _walk(conversion: Conversion, graph: Any, values: dict[int, Any], found: dict) -> None:
    """Compute a graph in Keras 3, and each of its layers in `tf_keras` on the same input."""
    import keras

    for node in compat.nodes(graph):
        step = conversion.steps[id(node.operation)]
        args, kwargs = compat.mapped(node, lambda k: values[id(k)])
        inner = conversion.graphs.get(id(node.operation))
        if inner is not None:
            rest = {key: value for key, value in kwargs.items() if key != "mask"}
            flat = keras.tree.flatten((args, rest))
            if compat.graph_of(node.operation) is None:  # an opened layer: each tensor once
                read: dict[int, Any] = {}
                compat.mapped(node, lambda k, read=read: read.update({id(k): values[id(k)]}))
                flat = list(read.values())
            wanted = ((symbol.shape, symbol.dtype) for symbol in inner.inputs[len(flat) :])
            masks = random_arrays(wanted, len(flat[0])) or []
            inside = {id(k): v for k, v in zip(inner.inputs, [*flat, *masks], strict=True)}
            _walk(conversion, inner, inside, found)
            made = [inside[id(symbol)] for symbol in inner.outputs[: len(node.outputs)]]
        else:
            made = _theirs(step, args, kwargs)
            ours = _ours(step, args, kwargs)
            for one, other in zip(made, ours, strict=True):
                most = HALF if is_half(step.operation) else LAYER
                gap = _compare(conversion.result.name, step.path, one, other, most)
                found[step.path] = max(gap, found.get(step.path, 0.0))
        values.update({id(k): v for k, v in zip(node.outputs, made, strict=True)})


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
    if step.layer is not None and keras_compat.takes_training(step.layer):
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
    gap = largest_gap(wanted, got)
    if gap.distance > most:
        raise SimMismatchError(
            f"Converted to tf_keras, layer {path!r} of {model!r} would make {gap.got:.6g} instead "
            f"of {gap.wanted:.6g}. {FAULT}",
            path,
            gap.wanted,
            gap.got,
        )
    return gap.distance


FAULT = "This is a fault of keras_edgeq; please report it with model.to_json()."
