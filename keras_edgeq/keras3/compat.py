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


def mask_of(symbol: Any) -> Any:
    """Return the mask of a symbolic tensor of Keras 3, None if there is none."""
    return getattr(symbol, "_keras_mask", None)


def hang_mask(symbol: Any, mask: Any) -> None:
    """Give a symbolic tensor of Keras 3 a mask."""
    symbol._keras_mask = mask


def call_with_masks(layer: Any, args: tuple, kwargs: dict) -> dict[str, Any]:
    """Return the keyword arguments of a call with the masks that Keras 3 gives the layer."""
    import keras

    names = list(inspect.signature(layer.call).parameters)
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    tensors = {k: v for k, v in given.items() if any(map(is_symbol, keras.tree.flatten(v)))}
    wanted = {"mask": next(iter(tensors), "")} if len(tensors) == 1 else {}
    wanted = wanted or {f"{name}_mask": name for name in tensors}
    found = {
        argument: keras.tree.map_structure(mask_of, tensors[name])
        for argument, name in wanted.items()
        if argument in names and given.get(argument) is None
    }
    return {**kwargs, **found}


def own_masks(layer: Any, args: tuple, kwargs: dict, made: list[Any]) -> dict[int, Any]:
    """Return the masks that a layer itself makes of what it made; those of layers inside go first.

    Args:
        layer: of a class of the user's.
        args: of the call.
        kwargs: of the call, masks among them.
        made: tensors.

    Returns:
        Number of a tensor -> mask.
    """
    import keras

    if not layer.supports_masking or all(mask_of(tensor) is not None for tensor in made):
        return {}
    first = args[0] if args else next(iter(kwargs.values()))
    previous = kwargs.get("mask")
    if previous is None:
        previous = keras.tree.map_structure(mask_of, first)
    masks = keras.tree.flatten(layer.compute_mask(first, previous))
    pairs = enumerate(zip(made, masks, strict=False))
    return {n: m for n, (tensor, m) in pairs if is_symbol(m) and mask_of(tensor) is None}


def makes_mask(node: Any, is_masked: Callable[[Any], bool]) -> bool:
    """Tell whether the layer of a call makes a mask where some of the tensors it reads have one."""
    import keras

    given = node.arguments
    first = given.args[0] if given.args else next(iter(given.kwargs.values()))

    def mask(symbol):
        return keras.KerasTensor(symbol.shape[:2], "bool") if is_masked(symbol) else None

    previous = given.kwargs.get("mask")
    if previous is None:
        previous = keras.tree.map_structure(mask, first)
    made = keras.tree.flatten(node.operation.compute_mask(first, previous))
    return any(one is not None for one in made)


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


def symbols(node: Any) -> list[Any]:
    """Return the symbolic tensors among the arguments of a call."""
    found: list[Any] = []
    mapped(node, found.append)
    return found


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
