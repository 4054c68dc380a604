"""Open a layer or model of the user's by one symbolic call, and say what stands in the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras

from keras_edgeq.errors import QuantizationWarning, UnsupportedModelError, first_words, warn
from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.compare import Gap, is_half, largest_gap, random_arrays
from keras_edgeq.graph.rebuild import calls, infer
from keras_edgeq.prepare.why_not_followed import reason

# Largest difference between a layer and its opened form, relative to its largest number.
NOISE, HALF_NOISE = 1e-4, 0.05
PLAIN = (bool, int, float, str, type(None), tf.DType)


class Trace(NamedTuple):
    """What a layer is made of.

    Args:
        graph: a model whose inputs are the tensors among the arguments, in their order.
        loses_variables: whether it holds numbers of variables that train, and not the variables.
        shares_variables: whether operations compute with weights of layers in it.
        masks: the same with the masks that `compute_mask` makes of what it makes behind it; None
            where masks are those of the layers inside, or there are none.
    """

    graph: tf_keras.Model
    loses_variables: bool
    shares_variables: bool
    masks: tf_keras.Model | None = None


def trace(
    layer: Any,
    args: tuple,
    kwargs: dict,
    name: str | None = None,
    mask_of: Callable[[Any], Any] = keras_compat.mask_of,
) -> Trace:
    """Return what a layer's `call` does as a functional model of the same layers and variables.

    The model is for a walk inside of `keras_compat.kept_calls`: it holds calls of the user's own
    layers, which are forgotten afterwards.

    Args:
        layer: built; it is not changed.
        args: what it is called on: symbolic tensors, or `tf.TensorSpec`s, in any structure.
        kwargs: likewise.
        name: of the model.
        mask_of: returns the mask of a tensor, a symbolic one, or None. Masks of tensors among the
            arguments become inputs, too, behind the others (`with_masks`).

    Raises:
        UnsupportedModelError: it cannot be followed; says where, by file and line, and why.
    """
    if keras_compat.takes_training(layer):
        kwargs = {"training": None, **kwargs}
    for value in tf.nest.flatten((args, kwargs)):
        if isinstance(value, tf.TypeSpec) and not isinstance(value, tf.TensorSpec):
            raise UnsupportedModelError("its input is ragged or sparse; give dense tensors")
    symbols: list[Any] = []

    def fresh(value):
        if not _is_tensor(value):
            return value
        dtype, name = value.dtype, getattr(value, "name", None)
        name = name if isinstance(value, tf.TensorSpec) else None
        symbols.append(tf_keras.Input(batch_shape=value.shape, dtype=dtype, name=name))
        return symbols[-1]

    tensors = with_masks((args, kwargs), mask_of)
    args, kwargs = tf.nest.map_structure(fresh, (args, kwargs))
    for mask in tensors[len(symbols) :]:
        fresh(mask)
    hang_masks(tensors, symbols, mask_of)
    masks = None
    with _unchanged(layer):
        try:
            with tf.GradientTape() as tape:
                made = keras_compat.python_call(layer)(*args, **kwargs)
            inputs = _structured(args, kwargs, symbols)
            graph = tf_keras.Model(inputs, made, name=name)
            own = _own_masks(layer, args, kwargs, made)
            masks = None if own is None else tf_keras.Model(inputs, [made, own])
        except Exception as error:  # whatever the user's code meets in symbolic tensors
            raise UnsupportedModelError(reason(error)) from error
    _check_layers_known(layer, graph)
    given = _variables(graph)
    kept = given | {id(weight) for weight in graph.weights}
    read = {id(variable) for variable in tape.watched_variables()}
    own = {id(weight) for weight in layer.trainable_weights}
    # TensorFlow reads a variable at once where nothing symbolic is computed with it first.
    shared = bool(given & {id(w) for w in graph.weights})
    return Trace(graph, bool(read & own - kept), shared, masks)


def signature(args: tuple, kwargs: dict) -> tuple:
    """Return what a trace depends on: sizes and types of tensors, and constants."""

    def leaf(value):
        if keras_compat.is_keras_tensor(value):
            return f"{value.shape} {value.dtype.name}"
        return repr(value) if isinstance(value, PLAIN) else f"{id(value)}"

    given = (args, kwargs)
    return (repr(tf.nest.map_structure(leaf, given)),)


def with_masks(given: Any, mask_of: Callable[[Any], Any]) -> list[Any]:
    """Return the tensors among nested arguments, and behind them the masks that some have."""
    tensors = [value for value in tf.nest.flatten(given) if _is_tensor(value)]
    return tensors + [mask for mask in map(mask_of, tensors) if mask is not None]


def hang_masks(tensors: list[Any], values: list[Any], mask_of: Callable[[Any], Any]) -> None:
    """Hang on values the masks of the tensors of `with_masks` that they stand for."""
    masked = [n for n, tensor in enumerate(tensors) if mask_of(tensor) is not None]
    for n, mask in zip(masked, values[len(values) - len(masked) :], strict=True):
        keras_compat.hang_mask(values[n], mask)


def _own_masks(layer: Any, args: tuple, kwargs: dict, made: Any) -> Any:
    """Return the masks that a layer computes itself of what it makes, as Keras asks for them."""
    flat = tf.nest.flatten(made)
    if not keras_compat.passes_mask(layer) or not args or keras_compat.is_graph_model(layer):
        return None
    if all(keras_compat.mask_of(tensor) is not None for tensor in flat):
        return None
    mask = kwargs.get("mask")
    if mask is None:
        found = tf.nest.map_structure(keras_compat.mask_of, args[0])
        mask = found if any(one is not None for one in tf.nest.flatten(found)) else None
    masks = layer.compute_mask(args[0], mask)
    found = [one for one in tf.nest.flatten(masks) if one is not None]
    return masks if found and all(map(keras_compat.is_keras_tensor, found)) else None


def _variables(graph: tf_keras.Model) -> set[int]:
    """Return the ids of the variables among the arguments of operations."""
    nodes = [call.node for call in calls(graph)]
    given = tf.nest.flatten([(node.call_args, node.call_kwargs) for node in nodes])
    return {id(value) for value in given if isinstance(value, tf.Variable)}


def warn_frozen(names: Iterable[str]) -> None:
    """Warn that variables of layers became constants; not where there are none."""
    if found := ", ".join(names):
        warn(
            f"Variables of {found} are constants from here on and do not train: the code there "
            "computes with them in a way that no layer of Keras has.",
            QuantizationWarning,
        )


def warn_shared(names: Iterable[str]) -> None:
    """Warn that operations and layers no longer share weights; not where there are none."""
    if found := ", ".join(names):
        warn(
            f"The code of {found} computes with weights of a layer that is called as well (tied "
            "weights): they are copies of each other from here on, and training moves them apart.",
            QuantizationWarning,
        )


def first_difference(
    layer: Any,
    other: Any,
    args: tuple,
    kwargs: dict,
    samples: Sequence[Any] | None = None,
    mask_of: Callable[[Any], Any] = keras_compat.mask_of,
) -> tuple[int, Gap] | None:
    """Return the number of the first output that differs, and how; None where none does.

    Args:
        layer: a layer, called as its user calls it.
        other: takes the tensors among the arguments as a list, with their masks (`with_masks`), and
            the arguments.
        args: symbolic tensors or `tf.TensorSpec`s, in any structure.
        kwargs: likewise.
        samples: values of the tensors; random ones by default.
        mask_of: as for `trace`.
    """
    flat = with_masks((args, kwargs), mask_of)
    arrays = samples or _values(flat)
    if arrays is None:  # text
        return None
    known = dict(zip(map(id, flat), arrays, strict=True))  # a mask may be among the arguments, too
    values = [tf.constant(known[id(tensor)]) for tensor in flat]
    hang_masks(flat, values, mask_of)
    rest = iter(values)
    args, kwargs = tf.nest.map_structure(
        lambda value: next(rest) if _is_tensor(value) else value, (args, kwargs)
    )
    try:
        wanted = tf.nest.flatten(infer(layer, args, kwargs))
    except (tf.errors.OpError, TypeError, ValueError) as error:
        raise UnsupportedModelError(f"it fails on random inputs: {first_words(error)}") from error
    got = tf.nest.flatten(other(values, args, kwargs))
    parts = (layer, *keras_compat.all_layers(layer))
    noise = HALF_NOISE if any(map(is_half, parts)) else NOISE
    for number, (one, two) in enumerate(zip(wanted, got, strict=True)):
        gap = largest_gap(one, two)
        if gap.distance > noise:
            return number, gap
    return None


def _values(flat: list[Any]) -> list[Any] | None:
    """Return random values of tensors; where only code knows a size, those of random inputs."""
    if all(None not in tuple(t.shape)[1:] for t in flat) or not all(
        map(keras_compat.is_keras_tensor, flat)
    ):
        return random_arrays((value.shape, value.dtype.name) for value in flat)
    inputs = _inputs_of(flat)
    arrays = random_arrays((value.shape, value.dtype.name) for value in inputs)
    if arrays is None:
        return None
    made = tf_keras.Model(inputs, flat)(list(map(tf.constant, arrays)), training=False)
    return list(tf.nest.flatten(made))


def _inputs_of(tensors: list[Any]) -> list[Any]:
    """Return the inputs of the graph that symbolic tensors are made in."""
    waiting, found = list(tensors), {}
    while waiting:
        tensor = waiting.pop()
        if id(tensor) not in found:
            found[id(tensor)] = tensor
            waiting += keras_compat.producer(tensor)[1].keras_inputs
    return [t for t in found.values() if keras_compat.producer(t)[1].is_input]


def _structured(args: tuple, kwargs: dict, symbols: list[Any]) -> Any:
    """Return the inputs as the first argument has them, as a list where there are others."""
    alone = len(tf.nest.flatten(args[:1])) == len(symbols)
    return args[0] if alone else symbols


def _is_tensor(value: Any) -> bool:
    return keras_compat.is_keras_tensor(value) or isinstance(value, tf.TensorSpec)


@contextmanager
def _unchanged(layer: Any) -> Iterator[None]:
    """Raise where a symbolic call changes variables of a layer, which get their values back."""
    before = [(weight, weight.numpy()) for weight in layer.weights]
    changed = None
    try:
        yield
    finally:
        for weight, value in before:
            if not np.array_equal(weight.numpy(), value, equal_nan=value.dtype.kind == "f"):
                weight.assign(value)
                changed = weight.name.removesuffix(":0")
    if changed is not None:
        raise UnsupportedModelError(
            f"it assigns to its variable {changed!r} in each call: state that outlives a call, "
            "which no exported file holds"
        )


def _check_layers_known(layer: Any, graph: tf_keras.Model) -> None:
    """Raise where a call makes layers with weights anew, so that each call has others."""
    own = {id(weight) for weight in layer.weights}
    for part in graph.layers:
        if any(id(weight) not in own for weight in part.weights):
            raise UnsupportedModelError(
                f"it calls layer {part.name!r} ({type(part).__name__}), which is not among its "
                "own layers: make it once, in __init__, as an attribute"
            )
