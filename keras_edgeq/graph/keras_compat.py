"""The one file that touches private tf_keras members."""

from __future__ import annotations

import inspect
import logging
import random
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, TypeAlias

import tensorflow as tf
import tf_keras
from tf_keras.src import backend as _backend
from tf_keras.src.engine import functional as _functional
from tf_keras.src.engine import node as _node
from tf_keras.src.layers.core import tf_op_layer as _tf_op_layer
from tf_keras.src.mixed_precision import policy as _policy

Functional = _functional.Functional
KerasNode: TypeAlias = _node.Node
# Lists of a layer that its symbolic calls add to.
LEFT_BY_CALLS = (
    *("_inbound_nodes_value", "_outbound_nodes_value"),
    *("_losses", "_callable_losses", "_metrics"),
)
OP_LAYERS = (_tf_op_layer.TFOpLambda, _tf_op_layer.ClassMethod, _tf_op_layer.InstanceProperty)


def is_graph_model(model: Any) -> bool:
    """Tell whether `model` is a functional or a built Sequential model."""
    return isinstance(model, tf_keras.Model) and bool(getattr(model, "_is_graph_network", False))


def is_revived(model: Any) -> bool:
    """Tell whether a model was read from a SavedModel without the code of its class."""
    return type(model).__module__.startswith("tf_keras.src.saving")


def takes_training(layer: Any) -> bool:
    """Tell whether a layer's call has an argument `training`."""
    return bool(layer._expects_training_arg)


def ordered_nodes(model: tf_keras.Model) -> list[KerasNode]:
    """Return the calls that make up `model` in topological order, inputs first.

    The calls of a shared layer come in the order in which they were made, so that a model that is
    rebuilt in this order numbers them alike.
    """
    by_depth = model._nodes_by_depth
    nodes = [producer(tensor)[1] for tensor in model.inputs]
    nodes += [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
    earlier = {id(node): list(node.parent_nodes) for node in nodes}
    for layer in {id(node.layer): node.layer for node in nodes}.values():
        calls = [node for node in layer._inbound_nodes if id(node) in earlier]
        for previous, node in pairwise(calls):
            earlier[id(node)].append(previous)
    ordered: dict[int, KerasNode] = {}
    waiting = nodes[::-1]
    while waiting:
        missing = [n for n in earlier[id(waiting[-1])] if id(n) not in ordered]
        if missing:
            waiting += missing[::-1]
        else:
            node = waiting.pop()
            ordered[id(node)] = node
    return list(ordered.values())


def call_numbers(model: tf_keras.Model) -> dict[int, int]:
    """Map `id(node)` to the number of that call among the calls of its layer in `model`."""
    nodes = ordered_nodes(model)
    inside = {id(node) for node in nodes}
    numbers = {}
    # Not model.layers: a Sequential model leaves its input layer out.
    for layer in {id(node.layer): node.layer for node in nodes}.values():
        calls = [node for node in layer._inbound_nodes if id(node) in inside]
        numbers.update({id(node): number for number, node in enumerate(calls)})
    return numbers


def is_keras_tensor(value: Any) -> bool:
    """Tell whether `value` is a symbolic tensor of a functional model."""
    return hasattr(value, "_keras_history")


def arguments(node: KerasNode, values: dict[int, Any]) -> tuple[tuple, dict]:
    """Return the call's arguments with every symbolic tensor exchanged for its value."""

    def value(leaf):
        return values[id(leaf)] if is_keras_tensor(leaf) else leaf

    return tf.nest.map_structure(value, (tuple(node.call_args), dict(node.call_kwargs)))


def operands(node: KerasNode) -> list[Any]:
    """Return what a call of an op layer computes with: tensors and constants, in order.

    `tf.maximum(a, b)` is recorded as `maximum(a, y=b)`, `a + b` as `add(a, b)`. A list of numbers
    is one constant, a list with tensors in it several operands.
    """
    named = [node.call_kwargs[n] for n in ("values", "x", "y", "a", "b") if n in node.call_kwargs]
    found: list[Any] = []
    for given in (*node.call_args, *named):
        flat = tf.nest.flatten(given)
        found += flat if any(is_keras_tensor(value) for value in flat) else [given]
    return found


def bound_arguments(node: KerasNode) -> dict[str, Any]:
    """Return what a call of an operation was given, by the names of its function's arguments."""
    function = inspect.unwrap(node.layer.function)
    return dict(inspect.signature(function).bind(*node.call_args, **node.call_kwargs).arguments)


def producer(tensor: Any) -> tuple[tf_keras.layers.Layer, KerasNode, int]:
    """Return the layer, the call and the output index that made a symbolic tensor."""
    history = tensor._keras_history
    return history.layer, history.layer._inbound_nodes[history.node_index], history.tensor_index


def structured_inputs(model: tf_keras.Model) -> Any:
    """Return the symbolic inputs in the structure the user gave."""
    return model._nested_inputs


def structured_outputs(model: tf_keras.Model) -> Any:
    """Return the symbolic outputs in the structure the user gave."""
    return model._nested_outputs


def op_symbol(layer: tf_keras.layers.Layer) -> str | None:
    """Return the TensorFlow symbol of an op layer (`"math.add"`), None for other layers."""
    if isinstance(layer, _tf_op_layer.TFOpLambda):
        return layer.symbol
    if isinstance(layer, OP_LAYERS):
        return layer.get_config().get("method_name") or layer.get_config().get("attr_name")
    return None


def takes_mask(layer: tf_keras.layers.Layer) -> bool:
    """Tell whether the layer's `call` takes `mask`."""
    return bool(layer._expects_mask_arg)


def passes_mask(layer: tf_keras.layers.Layer) -> bool:
    """Tell whether Keras asks a layer for the mask of what it makes; others lose it."""
    return bool(layer._supports_masking)


def mask_of(tensor: Any) -> Any:
    """Return the mask that Keras hung on a tensor, None if there is none."""
    return getattr(tensor, "_keras_mask", None)


def hang_mask(tensor: Any, mask: Any) -> None:
    """Hang a mask on a tensor, which layers that read it are given by Keras."""
    tensor._keras_mask = mask


def rename(layer: tf_keras.layers.Layer, name: str) -> None:
    """Give a layer without weights another name, before it is part of a model."""
    layer._name = name


def overrides_call(model: tf_keras.Model) -> bool:
    """Tell whether a functional model's class computes something else than its graph."""
    own = type(model).call
    return own not in (_functional.Functional.call, tf_keras.Sequential.call, tf_keras.Model.call)


def python_call(layer: tf_keras.layers.Layer) -> Any:
    """Return a layer's `call` as Python runs it, also where it is a `tf.function`."""
    return getattr(layer.call, "python_function", layer.call)


def first_call(model: tf_keras.Model) -> tuple[tuple, dict] | None:
    """Return the arguments of a subclassed model's first call as `tf.TensorSpec`s, batch open.

    A model that was only built has but the shapes of its first argument. None before that.
    """
    if model._saved_model_arg_spec is not None:
        args, kwargs = model.save_spec()
        return tuple(args), dict(kwargs)
    shapes = model._build_input_shape
    return None if shapes is None else ((_specs(shapes, model.compute_dtype),), {})


def _specs(shapes: Any, dtype: str) -> Any:
    """Return nested shapes, as `build` takes them, as nested `tf.TensorSpec`s."""
    if isinstance(shapes, dict):
        return {name: _specs(shape, dtype) for name, shape in shapes.items()}
    if isinstance(shapes, list | tuple) and isinstance(shapes[0], list | tuple | tf.TensorShape):
        return [_specs(shape, dtype) for shape in shapes]
    return tf.TensorSpec(tf.TensorShape(shapes), dtype)


@contextmanager
def kept_calls(layers: list[tf_keras.layers.Layer]):
    """Let layers be called symbolically, and forget those calls and what they left behind."""
    lists = [
        items
        for layer in layers
        for name in LEFT_BY_CALLS
        if isinstance(items := getattr(layer, name, None), list)
    ]
    kept = [list(items) for items in lists]
    logger, noise = tf.get_logger(), _VariablesInOperations()
    logger.addFilter(noise)
    try:
        yield
    finally:
        logger.removeFilter(noise)
        for items, before in zip(lists, kept, strict=True):
            items[:] = before


class _VariablesInOperations(logging.Filter):
    """Silences the advice to write a layer, where one that is written is followed."""

    def filter(self, record):
        return "were used in a Lambda layer" not in record.getMessage()


def flat_inputs(model: tf_keras.Model, inputs: Any) -> list[Any]:
    """Return what a nested model is called on, in the order of its `inputs`."""
    return model._flatten_to_reference_inputs(inputs)


def compile_arguments(model: tf_keras.Model) -> dict[str, Any] | None:
    """Return what the user gave to `compile`, as it was given; None before it."""
    config = getattr(model, "_compile_config", None)
    return None if config is None else dict(config.config)


def computing_in(dtype: tf.DType) -> dict[str, Any]:
    """Return the attributes of a layer that make it compute in `dtype`."""
    return {"_compute_dtype_object": dtype}


@contextmanager
def float32_policy():
    """Let layers that are made inside compute in float32 under any global policy of the user."""
    with _policy.policy_scope("float32"):
        yield


@contextmanager
def kept_seeds():
    """Let what is built inside draw no numbers from the streams that seed the user's layers."""
    keras_stream = getattr(_backend._SEED_GENERATOR, "generator", None)
    state, keras_state = random.getstate(), keras_stream and keras_stream.getstate()
    try:
        yield
    finally:
        random.setstate(state)
        if keras_stream is not None:
            keras_stream.setstate(keras_state)


def all_layers(model: tf_keras.Model) -> list[tf_keras.layers.Layer]:
    """Return every layer of a model or layer, those inside of others included."""
    return list(model._flatten_layers(include_self=False))


def weight_penalty(model: tf_keras.Model) -> float:
    """Return what the weight regularizers of a model add to its loss."""
    layers = model._flatten_layers()
    penalties = [penalty() for layer in layers for penalty in layer._callable_losses]
    return float(sum(float(value) for value in penalties if value is not None))


def forget(model: tf_keras.Model, name: str) -> None:
    """Delete an attribute of a model, and let checkpoints no longer save it."""
    delattr(model, name)
    model._delete_tracking(name)  # Keras itself leaves the dependency behind


def backup(model: tf_keras.Model) -> Any:
    """Return what `BackupAndRestore` saves with, None before it began its work on the model."""
    return getattr(model, "_training_state", None)


def backs_up_batches(state: Any) -> bool:
    """Tell whether a `backup` saves after batches, and not only at the end of epochs."""
    return isinstance(state._save_freq, int)


def skip_numpy_logs(callback: tf_keras.callbacks.Callback) -> None:
    """Let Keras not wait for the device after each batch, because the callback reads no logs."""
    callback._supports_tf_logs = True
