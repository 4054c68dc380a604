"""The one file that touches private members of Keras 3."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable
from operator import attrgetter
from typing import Any


def is_instance(value: Any, module: str, name: str) -> bool:
    """Tell whether a value is of a class of Keras 3, without importing it."""
    keras = sys.modules.get("keras")
    if keras is None or not str(getattr(keras, "__version__", "")).startswith("3."):
        return False
    return isinstance(value, attrgetter(f"{module}.{name}")(keras))


def is_keras3(value: Any) -> bool:
    """Tell whether a value is a layer or model of Keras 3."""
    return is_instance(value, "layers", "Layer")


def is_keras3_model(value: Any) -> bool:
    """Tell whether a value is a model of Keras 3."""
    return is_keras3(value) and isinstance(value, sys.modules["keras"].Model)


def is_symbol(value: Any) -> bool:
    """Tell whether a value is a symbolic tensor of Keras 3."""
    return type(value).__name__ == "KerasTensor" and type(value).__module__.startswith("keras.")


def has_mask(symbol: Any) -> bool:
    """Tell whether a symbolic tensor of Keras 3 has a mask, which who reads it is given."""
    return getattr(symbol, "_keras_mask", None) is not None


def graph_of(model: Any) -> Any | None:
    """Return the functional graph of a functional or built Sequential model, None without one."""
    inner = getattr(model, "_functional", model)
    return inner if hasattr(inner, "_nodes_by_depth") else None


def build_shapes(model: Any) -> dict[str, Any]:
    """Return the shapes that a subclassed model was first called on, by argument."""
    return model._build_shapes_dict or {}


def nodes(graph: Any) -> list[Any]:
    """Return the calls of a graph in topological order, without its inputs."""
    depths = sorted(graph._nodes_by_depth, reverse=True)
    found = [node for depth in depths for node in graph._nodes_by_depth[depth]]
    return [node for node in found if not node.is_input]


def structure(graph: Any) -> tuple[Any, Any]:
    """Return the inputs and outputs of a graph in the structure the user gave."""
    return graph._inputs_struct, graph._outputs_struct


def input_layer(symbol: Any) -> Any:
    """Return the layer that makes a symbolic input."""
    return symbol._keras_history.operation


def mapped(node: Any, value: Callable[[Any], Any]) -> tuple[tuple, dict]:
    """Return the arguments of a call with each symbolic tensor exchanged.

    Without `training`, which Keras 3 notes with its value while the model was made, and exchanges
    when the model is called.
    """
    import keras

    def leaf(part):
        return value(part) if is_symbol(part) else part

    given = node.arguments.kwargs
    kwargs = {k: v for k, v in given.items() if k != "training" and (k, v) != ("mask", None)}
    return keras.tree.map_structure(leaf, (tuple(node.arguments.args), kwargs))


def own_weights(layer: Any) -> list[Any]:
    """Return the variables of a layer, without those of a layer that is its activation."""
    activation = getattr(layer, "activation", None)
    inside = getattr(activation, "weights", ()) if is_keras3(activation) else ()
    others = {id(weight) for weight in inside}
    return [weight for weight in layer.weights if id(weight) not in others]


def counterparts(model: Any, copy: Any) -> dict[int, Any]:
    """Return the layers of a copy, nested ones included, by the `id` of the original."""
    pairs = zip(model._flatten_layers(), copy._flatten_layers(), strict=True)
    return {id(one): other for one, other in pairs}


def take_statistics(model: Any) -> None:
    """Let each adapted Normalization compute with its weights, as after loading."""
    for layer in model._flatten_layers():
        if is_instance(layer, "layers", "Normalization"):
            layer.finalize_state()


def name_of(function: Any) -> str | None:
    """Return the name of an activation function of Keras 3, None for a layer or the user's own."""
    module = str(getattr(function, "__module__", ""))
    return getattr(function, "__name__", None) if module.startswith("keras.") else None


def config_of(layer: Any) -> dict[str, Any]:
    """Return the settings of a layer, without a warning of functions that nobody will save."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The object being serialized includes a `lambda`")
        return dict(layer.get_config())


def is_default(given: Any, key: str, value: Any) -> bool:
    """Tell whether a setting is what the class of an object has anyway, or turns nothing on."""
    for base in type(given).__mro__:
        init = base.__dict__.get("__init__")
        parameter = inspect.signature(init).parameters.get(key) if init else None
        if parameter is not None and parameter.default is not inspect.Parameter.empty:
            return parameter.default == value
    return value in (None, False)


def training_settings(given: Any) -> dict[str, Any]:
    """Return the settings of a loss, metric, optimizer or schedule, schedules in it as objects."""
    # Some losses leave what their function is called with out of their configuration.
    config = {**given.get_config(), **getattr(given, "_fn_kwargs", {})}
    if is_instance(getattr(given, "_learning_rate", None), "optimizers.schedules",
                   "LearningRateSchedule"):  # fmt: skip
        config["learning_rate"] = given._learning_rate
    if any(getattr(given, f"_exclude_from_weight_decay{end}", None) for end in ("", "_pattern")):
        config["exclude_from_weight_decay"] = True
    return config


def steps_taken(optimizer: Any) -> int:
    """Return how often an optimizer of Keras 3 was applied."""
    return int(optimizer.iterations.numpy()) if optimizer.built else 0
