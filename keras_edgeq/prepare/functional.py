"""The door for float models: any that can be one becomes a functional model of `tf_keras`."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from keras_edgeq.errors import UnsupportedModelError, first_words
from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.rebuild import rebuild
from keras_edgeq.keras3 import as_tf_keras
from keras_edgeq.prepare.constant_ops import constants_to_layers
from keras_edgeq.prepare.flatten import flatten_nested, not_followed
from keras_edgeq.prepare.float32 import OTHER_TYPES
from keras_edgeq.prepare.own_layers import is_own
from keras_edgeq.prepare.trace import first_difference, trace, warn_frozen, warn_shared


def as_functional(model: Any) -> Any:
    """Return the functional `tf_keras` model that computes what a model does.

    Every function of the package that takes a float model does this by itself; the result here can
    be kept, saved, trained and compared. A functional or Sequential model comes back as it is. A
    model of Keras 3 is translated (`from_keras3`). A subclassed model, also one inside of another,
    is rebuilt from one symbolic call of it and then compared with it on random inputs; its layers
    are named by their path, `encoder/dense`. The given model is not changed.

    Args:
        model: a subclassed one has been called or built once, so that its sizes are known. Its call
            may take one tensor, several, a list or a dict of them, and keyword arguments, and is
            made of layers and operations on whole tensors, without conditions on their values.

    Returns:
        A model with inputs in the structure of the first argument, or a list of all tensors where
        there are several arguments. Weights that the model's own code multiplies with are those of
        layers. Losses, metrics and optimizers are not taken over.

    Raises:
        UnsupportedModelError: the call cannot be followed, or computes something else than the
            model; says where, by file and line, and why.

    Example:
        >>> import numpy as np, tf_keras, keras_edgeq as eq
        >>> class Gated(tf_keras.Model):
        ...     def __init__(self):
        ...         super().__init__(name="gated")
        ...         self.gate = tf_keras.layers.Dense(4, "sigmoid", name="gate")
        ...     def call(self, inputs):
        ...         return inputs * self.gate(inputs)
        >>> model = Gated()
        >>> _ = model(np.zeros((1, 4), "float32"))
        >>> [layer.name for layer in eq.as_functional(model).layers]
        ['input_1', 'gate', 'multiply']
    """
    model = as_tf_keras(model)
    if not isinstance(model, tf_keras.Model):
        return model
    if not is_own(model):
        model = _of_float32(model)
        inside = (layer for layer in keras_compat.all_layers(model) if _is_model(layer))
        return constants_to_layers(flatten_nested(model))[0] if any(map(is_own, inside)) else model
    if keras_compat.is_revived(model):
        raise UnsupportedModelError(
            f"Model {model.name!r} is subclassed and was loaded from a SavedModel, which holds no "
            "code of its classes. Load it with custom_objects={name: class}."
        )
    given = _first_call(model)
    return model if given is None else _rebuilt(model, *given)


def _of_float32(model: tf_keras.Model) -> tf_keras.Model:
    """Return a functional model with inputs of float32, which files have, where it has others."""
    others = [t for t in getattr(model, "inputs", None) or () if t.dtype in OTHER_TYPES]
    if not keras_compat.is_graph_model(model) or not others:
        return model
    try:
        return rebuild(model, real_inputs="float32")
    except (TypeError, ValueError) as error:
        name, dtype = keras_compat.producer(others[0])[0].name, others[0].dtype.name
        raise UnsupportedModelError(
            f"Input {name!r} of {model.name!r} is {dtype}, and the model does not compute on "
            f"float32, which files take: {first_words(error, 200)} Build it with inputs "
            "of float32 and a tf.cast."
        ) from error


def _rebuilt(model: tf_keras.Model, args: tuple, kwargs: dict) -> tf_keras.Model:
    with keras_compat.kept_calls([model, *keras_compat.all_layers(model)]):
        try:
            traced = trace(model, args, kwargs, model.name)
            flat = constants_to_layers(flatten_nested(traced.graph, is_traced=True))[0]
        except UnsupportedModelError as error:
            raise not_followed(model, model.name, error) from error
    _check(model, flat, args, kwargs)
    warn_frozen([model.name] if traced.loses_variables else [])
    warn_shared([model.name] if traced.shares_variables else [])
    return flat


def check_rebuilt(given: Any, model: tf_keras.Model, samples: Sequence[np.ndarray]) -> None:
    """Raise unless what `as_functional` made computes what the given model does on samples.

    Raises:
        UnsupportedModelError: names the output that differs, with both values.
    """
    if given is not model and isinstance(given, tf_keras.Model):
        found = _first_call(given)
        assert found is not None  # as when it was rebuilt
        _check(given, model, *found, samples)


def _check(
    given: Any, model: tf_keras.Model, args: tuple, kwargs: dict, samples: Any = None
) -> None:
    def compute(inputs: list[Any], *_: Any) -> Any:
        return model(inputs, training=False)

    found = first_difference(given, compute, args, kwargs, samples)
    if found is not None:
        number, gap = found
        raise UnsupportedModelError(
            f"Model {given.name!r} ({type(given).__name__}) is subclassed, and output {number} of "
            f"what its call is made of has {gap.got:.6g} where the model has {gap.wanted:.6g}: its "
            "call depends on more than its inputs, such as random numbers or state."
        )


def _is_model(layer: Any) -> bool:
    return isinstance(layer, tf_keras.Model)


def _first_call(model: tf_keras.Model) -> tuple[tuple, dict] | None:
    """Return what a model was first called on as named `tf.TensorSpec`s.

    None for a Sequential model without sizes, of which `check_model` says more.

    Raises:
        UnsupportedModelError: the model was never called.
    """
    if keras_compat.is_graph_model(model):
        given: Any = (keras_compat.structured_inputs(model),), {}
        given = tf.nest.map_structure(_named_as_made, given)
    else:
        given = keras_compat.first_call(model)
        given = given and tf.nest.map_structure(_float32, given)
    if given is None:
        if isinstance(model, tf_keras.Sequential):
            return None
        raise UnsupportedModelError(
            f"Model {model.name!r} ({type(model).__name__}) is subclassed and was not called yet: "
            "its sizes are not known. Call it once on a batch of data, model(x)."
        )
    return _named(keras_compat.python_call(model), *given)


def _float32(spec: Any) -> Any:
    """Return what data has where the model casts it: it noted what it computes in."""
    is_other = isinstance(spec, tf.TensorSpec) and spec.dtype in OTHER_TYPES
    return tf.TensorSpec(spec.shape, tf.float32, spec.name) if is_other else spec


def _named_as_made(symbol: Any) -> tf.TensorSpec:
    layer = keras_compat.producer(symbol)[0]
    return tf.TensorSpec(symbol.shape, symbol.dtype, layer.name)


def _named(function: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Return the arguments of a call with inputs named by arguments, where there are several."""
    names = [name for name in inspect.signature(function).parameters if name != "self"]
    several = len(args) + len(kwargs) > 1

    def named(name, value):
        if isinstance(value, tf.TensorSpec) and not several and value.name:
            return value  # as Keras named it
        numbers = count(1)
        single = isinstance(value, tf.TensorSpec)

        def leaf(spec):
            if not isinstance(spec, tf.TensorSpec) or (spec.name and not several):
                return spec
            number = next(numbers)
            return tf.TensorSpec(spec.shape, spec.dtype, name if single else f"{name}_{number}")

        return tf.nest.map_structure(leaf, value)

    args = tuple(map(named, names, args)) + args[len(names) :]
    return args, {name: named(name, value) for name, value in kwargs.items()}
