"""Run a functional model node by node, or make a new one that way.

`replay` is the walk. `rebuild` walks on symbolic tensors and so makes a model; the exporters, the
calibration and the comparison with an artifact walk on real ones. Nothing here touches the model
it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any

import tensorflow as tf
import tf_keras

from keras_edgeq.errors import UnsupportedModelError, first_words
from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.deep import count_calls, deep_graphs
from keras_edgeq.graph.known_outputs import known_outputs
from keras_edgeq.spec.tensor_ref import TensorRef


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer inside a model."""

    layer: Any
    number: int
    node: Any

    @property
    def reads(self) -> list[Any]:
        """Return the symbolic tensors among the call's arguments, in their order."""
        return symbols_in((self.node.call_args, self.node.call_kwargs))

    def output_ref(self, index: int = 0) -> TensorRef:
        """Name the call's output."""
        return TensorRef(self.layer.name, "output", self.number, index)

    def input_ref(self, index: int = 0) -> TensorRef:
        """Name the call's input."""
        return TensorRef(self.layer.name, "input", self.number, index)


def symbols_in(given: Any) -> list[Any]:
    """Return the symbolic tensors among nested arguments, in their order."""
    return [value for value in tf.nest.flatten(given) if keras_compat.is_keras_tensor(value)]


def calls(model: tf_keras.Model) -> list[Call]:
    """Return the calls of `model` in topological order, input layers included."""
    numbers = keras_compat.call_numbers(model)
    return [Call(n.layer, numbers[id(n)], n) for n in keras_compat.ordered_nodes(model)]


def replay(model: tf_keras.Model, inputs: Any, on_call: Callable[[Call, tuple, dict], Any]) -> Any:
    """Walk `model` in topological order and return its outputs.

    Args:
        model: a functional or Sequential model.
        inputs: tensors (real or symbolic) in the order of `model.inputs`.
        on_call: `(call, args, kwargs) -> outputs`; usually `call.layer(*args, **kwargs)` and more.
    """
    flat = tf.nest.flatten(inputs)
    values = {id(k): v for k, v in zip(model.inputs, flat, strict=True)}
    compute([call for call in calls(model) if not call.node.is_input], values, on_call)
    return tf.nest.map_structure(lambda k: values[id(k)], keras_compat.structured_outputs(model))


def compute(
    walked: Iterable[Call], values: dict[int, Any], on_call: Callable[[Call, tuple, dict], Any]
) -> None:
    """Compute calls one after the other and add what they make to `values`.

    Args:
        walked: in topological order.
        values: tensors by the id of their symbols.
        on_call: as for `replay`.
    """
    for call in walked:
        args, kwargs = keras_compat.arguments(call.node, values)
        outputs = tf.nest.flatten(on_call(call, args, kwargs))
        symbols = tf.nest.flatten(call.node.outputs)
        values.update({id(k): v for k, v in zip(symbols, outputs, strict=True)})


def call_layer(call: Call, args: tuple, kwargs: dict) -> Any:
    """Call the layer as the model does."""
    return call.layer(*args, **kwargs)


def infer(layer: Any, args: tuple, kwargs: dict) -> Any:
    """Call a layer in inference mode."""
    if keras_compat.takes_training(layer):
        kwargs = {**kwargs, "training": False}
    return layer(*args, **kwargs)


def run(model: tf_keras.Model, inputs: Any) -> Any:
    """Compute the model in inference mode, node by node."""
    return replay(model, inputs, lambda call, args, kwargs: infer(call.layer, args, kwargs))


def clone(layer: Any, kind: type | None = None, config: Any = None, **changes: Any) -> Any:
    """Return a fresh, unbuilt layer with the same configuration but for `changes`.

    With `kind` and `config`, it is of another class, made of that configuration.

    A partial function, which Keras cannot write into a configuration, is handed over.

    Raises:
        UnsupportedModelError: the layer does not tell its configuration, or cannot be made of it.
    """
    attributes = vars(layer)
    kept = {name: value for name, value in attributes.items() if isinstance(value, partial)}
    try:
        for name in kept:
            object.__setattr__(layer, name, tf_keras.activations.linear)
        settings: dict[str, Any] = layer.get_config() if config is None else config
        with tf_keras.utils.custom_object_scope(_own_objects(layer)):
            made_of = {**settings, **_taken(settings, changes)}
            new = (kind or layer.__class__).from_config(made_of)
    except (NotImplementedError, TypeError) as error:
        raise UnsupportedModelError(
            f"Layer {layer.name!r} ({type(layer).__name__}) cannot be copied: give each layer of "
            "your own a get_config() with all arguments of its __init__, and use named functions, "
            f"not lambdas, inside of layers. Keras says: {first_words(error)}"
        ) from error
    finally:
        for name, value in kept.items():
            object.__setattr__(layer, name, value)
    for name in kept.keys() - changes.keys():
        setattr(new, name, kept[name])
    if "name" not in settings:
        keras_compat.rename(new, changes.get("name", layer.name))
    return new


def _taken(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return the changes without a name for a layer whose `__init__` takes none."""
    return {key: value for key, value in changes.items() if key != "name" or "name" in config}


def is_users(function: Any) -> bool:
    """Tell whether a function is the user's, under any name."""
    packages = ("tensorflow", "tf_keras", "keras")
    return (function.__module__ or "").partition(".")[0] not in packages


def _own_objects(layer: Any) -> dict[str, Any]:
    """Return the user's functions (activations, initializers) and layers inside of a layer.

    Configurations only name them; Keras knows few of its own layers as activations by name.
    """
    found: dict[str, Any] = {}
    inside = keras_compat.all_layers(layer)
    for part in (layer, *inside):
        values = [v for v in vars(part).values() if isinstance(v, FunctionType)]
        found |= {f.__name__: f for f in values if is_users(f)}
    return found | {type(part).__name__: type(part) for part in inside}


def fresh_inputs(model: tf_keras.Model, real: str | None = None) -> list[Any]:
    """Return new symbolic inputs like the model's, in the order of `model.inputs`.

    With `real`, those of real numbers have that type.
    """
    layers = [keras_compat.producer(tensor)[0] for tensor in model.inputs]
    configs = [layer.get_config() for layer in layers]
    for tensor, config in zip(model.inputs, configs, strict=True):
        if real is not None and tensor.dtype.is_floating:
            config["dtype"] = real
    pairs = zip(layers, configs, strict=True)
    return [layer.__class__.from_config(config).output for layer, config in pairs]


def rebuild(
    model: tf_keras.Model,
    on_layer: Callable[[Any], Any | None] | None = None,
    on_output: Callable[[TensorRef, Any], Any] | None = None,
    on_input: Callable[[TensorRef, Any], Any] | None = None,
    on_call: Callable[[Call, Any, tuple, dict], Any] | None = None,
    make: Callable[..., tf_keras.Model] | None = None,
    real_inputs: str | None = None,
) -> tf_keras.Model:
    """Return a new model: every structural change of the package goes through here.

    Args:
        model: the model to copy; it is not changed.
        on_layer: `layer -> replacement` (a layer, or a function on tensors), None to copy it with
            its weights. Asked once per layer, so shared layers stay shared.
        on_output: `(ref, tensor) -> tensor` on every output of every call and on model inputs.
        on_input: `(ref, tensor) -> tensor` on every tensor that a call consumes.
        on_call: `(call, replacement, args, kwargs) -> outputs`, to call a replacement otherwise.
        make: builds the result from `inputs=`, `outputs=`, `name=`; default `tf_keras.Model`.
        real_inputs: type of inputs of real numbers, instead of their own.

    Returns:
        The new model; same input and output structure, names and weights where nothing was asked.
        What the callbacks make computes in float32 where they do not say otherwise.
    """
    replacements: dict[int, Any] = {}
    copies: list[tuple[Any, Any]] = []
    copied: set[int] = set()

    def replacement(layer):
        if id(layer) not in replacements:
            new = on_layer(layer) if on_layer else None
            if new is None:
                new = clone(layer)
                copies.append((layer, new))
                copied.add(id(new))
            replacements[id(layer)] = new
        return replacements[id(layer)]

    def visit(call, args, kwargs):
        if on_input is not None:
            args, kwargs = _map_consumed(call, on_input, args, kwargs)
        new = replacement(call.layer)
        if id(new) in copied and call.layer.weights and not symbols_in((args, kwargs)):
            new(*args, **kwargs)  # called on constants, it computes at once, with its weights
            copy_weights(call.layer, new)
        known = known_outputs(call.node, new) if id(new) in copied else nullcontext()
        with known:
            outputs = on_call(call, new, args, kwargs) if on_call else new(*args, **kwargs)
        return _map_outputs(call, on_output, outputs)

    inputs = fresh_inputs(model, real_inputs)
    fed = inputs
    if on_output is not None:
        names = [keras_compat.producer(tensor)[0].name for tensor in model.inputs]
        fed = [on_output(TensorRef(n), t) for n, t in zip(names, inputs, strict=True)]
    structure = keras_compat.structured_inputs(model)
    with keras_compat.float32_policy():
        outputs = replay(model, fed, visit)
        fed = tf.nest.pack_sequence_as(structure, inputs)
        with deep_graphs(count_calls(symbols_in(outputs))):
            result = (make or tf_keras.Model)(inputs=fed, outputs=outputs, name=model.name)
    for old, new in copies:
        copy_weights(old, new)
    return result


# Layer by its `id` -> what stands in its place: a layer, or a function on tensors.
Edits = dict[int, Any]


def edited(model: tf_keras.Model, edits: Edits) -> tf_keras.Model:
    """Return the model with some layers replaced; the same model where there are none."""
    return rebuild(model, lambda layer: edits.get(id(layer))) if edits else model


def copy_weights(old: Any, new: Any) -> None:
    """Give `new` the values of `old`, where it has any."""
    if old.weights:
        new.set_weights(old.get_weights())


def _map_consumed(call, on_input, args, kwargs):
    """Apply `on_input` to the symbolic tensors among the arguments, numbered in order."""
    count = 0

    def change(original, value):
        nonlocal count
        if not keras_compat.is_keras_tensor(original):
            return value
        count += 1
        return on_input(call.input_ref(count - 1), value)

    originals = (tuple(call.node.call_args), dict(call.node.call_kwargs))
    return tf.nest.map_structure(change, originals, (args, kwargs))


def _map_outputs(call, on_output, outputs):
    if on_output is None:
        return outputs
    flat = [on_output(call.output_ref(i), t) for i, t in enumerate(tf.nest.flatten(outputs))]
    return tf.nest.pack_sequence_as(outputs, flat)
