"""Layers of Keras 3 as layers of `tf_keras`: the same class with its settings in other words."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import tf_keras

from keras_edgeq.errors import UnsupportedModelError
from keras_edgeq.keras3 import activations, compat

L = tf_keras.layers
# Settings that say how training begins or runs, and not what a layer computes.
DROPPED = frozenset({
    "quantization_config", "lora_rank", "lora_alpha", "lora_enabled", "flash_attention",
    "use_cudnn", "use_gate", "gptq_unrolled",
})  # fmt: skip
RENAMED = {"LeakyReLU": {"negative_slope": "alpha"}}
NESTED = ("layer", "backward_layer", "cell")


def known_class(layer: Any) -> type | None:
    """Return the class of `tf_keras` that computes what a layer does; None for others.

    A layer of the user's, also one that inherits from a layer of Keras, is none.
    """
    if not type(layer).__module__.startswith("keras.src.layers."):
        return None
    found = getattr(L, type(layer).__name__, None)
    return found if isinstance(found, type) and found is not L.Lambda else None


def translated(layer: Any) -> tuple[tf_keras.layers.Layer, Callable[[Any], Any] | None]:
    """Return a layer as one of `tf_keras`, without weights yet, and the activation behind it.

    The activation is None where the layer has it inside: both have the same function then.

    Raises:
        UnsupportedModelError: the layer has a setting that `tf_keras` lacks; it is named.
    """
    cls = known_class(layer)
    assert cls is not None  # asked before
    if not layer.dtype_policy.name.startswith(("float", "mixed_", "bfloat")):
        raise UnsupportedModelError(
            f"Layer {layer.name!r} has policy {layer.dtype_policy.name!r}: Keras quantized it "
            "already. Give the float model."
        )
    if is_fixed(layer):
        return _normalization(layer), None
    config, behind = _config(layer, cls)
    if config.keys() & set(NESTED):
        return cls.from_config(config), behind
    return cls(**config), behind  # from_config of some layers wants the shapes they were built on


def is_fixed(layer: Any) -> bool:
    """Tell whether a layer computes with other numbers than its weights.

    Those of a Normalization are statistics: it took its mean and variance from them when it was
    adapted or loaded.
    """
    return known_class(layer) is L.Normalization and getattr(layer, "mean", None) is not None


def _normalization(layer: Any) -> tf_keras.layers.Layer:
    import keras

    numbers = [np.asarray(keras.ops.convert_to_numpy(v)) for v in (layer.mean, layer.variance)]
    # Keras 3 keeps the axes that it sums over, of size 1; tf_keras has none.
    shape = [size for size in numbers[0].shape if size != 1] or [1]
    mean, variance = (v.reshape(shape) for v in numbers)
    options = {"name": layer.name, "axis": layer.axis, "invert": layer.invert}
    return L.Normalization(mean=mean, variance=variance, **options)


def _config(layer: Any, cls: type) -> tuple[dict[str, Any], Callable[[Any], Any] | None]:
    """Return a layer's settings as `tf_keras` takes them, and its activation where it is apart."""
    given, config = compat.config_of(layer), {}
    behind = None
    names = RENAMED.get(cls.__name__, {})
    allowed = arguments(cls)
    for key, value in given.items():
        name = names.get(key, key)
        if key in DROPPED or key.endswith("_initializer"):
            continue
        if key == "dtype":
            config[name] = layer.dtype_policy.name
        elif key == "activation":
            config[name], behind = _activation(layer, cls)
        elif key == "recurrent_activation":
            config[name] = _inside(layer.recurrent_activation, layer)
        elif key.endswith(("_regularizer", "_constraint")):
            config[name] = _same_object(value, key)
        elif key in NESTED and isinstance(value, dict):
            config[name] = _nested(getattr(layer, _attribute(layer, key)))
        elif name in allowed:
            config[name] = value
        elif (key, value) == ("data_format", "channels_last"):
            continue  # as layers without that setting have it
        elif not compat.is_default(layer, key, value):
            raise UnsupportedModelError(
                f"Layer {layer.name!r} ({type(layer).__name__}) has {key}={value!r}, which "
                "tf_keras does not have."
            )
    return config, behind


def _attribute(layer: Any, key: str) -> str:
    return "forward_layer" if key == "layer" and hasattr(layer, "forward_layer") else key


def _nested(layer: Any) -> dict[str, Any]:
    """Return a layer inside of another as a configuration."""
    cls = known_class(layer)
    if cls is None:
        raise UnsupportedModelError(
            f"Layer {layer.name!r} ({type(layer).__name__}) inside of another one is not a layer "
            "of Keras."
        )
    config, behind = _config(layer, cls)
    if behind is not None:
        if compat.name_of(layer.activation) is None:
            raise UnsupportedModelError(
                f"Layer {layer.name!r} inside of another one has an activation of its own; put it "
                "behind the outer layer."
            )
        config["activation"] = behind
    made = cls.from_config(config)
    return tf_keras.layers.serialize(made)


def _activation(layer: Any, cls: type) -> tuple[Any, Callable[[Any], Any] | None]:
    """Return the activation that stays inside of a layer, and what goes behind it."""
    function = layer.activation
    name = compat.name_of(function)
    if name in activations.SAME:
        return activations.SAME[name], None
    if name is None:
        return "linear", function
    if name not in activations.FUNCTIONS:
        raise UnsupportedModelError(
            f"Layer {layer.name!r} has activation {name!r}, which keras_edgeq does not know."
        )
    if "recurrent_activation" in layer.get_config() or cls.__name__ == "SimpleRNN":
        return activations.FUNCTIONS[name], None
    return "linear", activations.FUNCTIONS[name]


def _inside(function: Any, layer: Any) -> Any:
    name = compat.name_of(function)
    if name in activations.SAME:
        return activations.SAME[name]
    if name in activations.FUNCTIONS:
        return activations.FUNCTIONS[name]
    raise UnsupportedModelError(
        f"Layer {layer.name!r} has recurrent activation {name or function!r}, which keras_edgeq "
        "does not know."
    )


def _same_object(value: Any, key: str) -> Any:
    """Return a regularizer or constraint, None where `tf_keras` has none of that class."""
    if not isinstance(value, dict):
        return None
    module = tf_keras.regularizers if key.endswith("_regularizer") else tf_keras.constraints
    cls = getattr(module, str(value.get("class_name")), None)
    try:
        return None if cls is None else cls(**value.get("config", {}))
    except TypeError:
        return None


def arguments(cls: type) -> set[str]:
    """Return the arguments that a class and the classes below it take."""
    found: set[str] = {"name", "trainable", "dtype"}
    for base in cls.__mro__:
        init = base.__dict__.get("__init__")
        if init is not None:
            found |= set(inspect.signature(init).parameters)
        if base is tf_keras.layers.Layer:
            break
    if issubclass(cls, L.RNN):
        found.add("zero_output_for_mask")  # among its keyword arguments
    return found - {"self", "args", "kwargs"}
