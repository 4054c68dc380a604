"""Graphs of models and layers of Keras 3 whose code is the user's, by a symbolic call."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import Any, NamedTuple

from keras_edgeq.errors import UnsupportedModelError, first_words
from keras_edgeq.keras3 import compat
from keras_edgeq.keras3.open_batch import BATCH, reads_batch

VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Traced(NamedTuple):
    """What a layer of the user's is made of.

    Args:
        graph: reads the tensors that the layer reads, and behind them their masks; makes what the
            layer makes, and behind it the masks of that.
        masked: of which of the tensors that it makes the layer itself makes masks.
    """

    graph: Any
    masked: tuple[int, ...]


def opened(model: Any) -> Any:
    """Return the graph of a model, of a subclassed one by a symbolic call.

    Raises:
        UnsupportedModelError: it is not built, or its call cannot be followed.
    """
    graph = compat.graph_of(model)
    if graph is not None:
        return graph
    import keras

    if isinstance(model, keras.Sequential):
        raise UnsupportedModelError(
            f"Sequential model {model.name!r} is not built: its input shape is unknown. Start it "
            "with keras.Input(shape), or call model.build((None, ...))."
        )
    shapes = compat.build_shapes(model)
    if not shapes or not model.built:
        raise UnsupportedModelError(
            f"Model {model.name!r} ({type(model).__name__}) is subclassed and was not called yet: "
            "its graph is not known. Call it once on a batch of data, model(x)."
        )
    parameters = inspect.signature(model.call).parameters
    if len(shapes) == 1:  # Keras notes it under another name
        shapes = {next(iter(parameters)): shape for shape in shapes.values()}
    given = {name.removesuffix("_shape"): shape for name, shape in shapes.items()}
    missing = [p.name for p in parameters.values() if p.default is p.empty and p.name not in given]
    if missing := [name for name in missing if parameters[name].kind not in VARIADIC]:
        raise UnsupportedModelError(
            f"Model {model.name!r} ({type(model).__name__}) is subclassed, and Keras did not note "
            f"the sizes of its arguments {', '.join(missing)}. Give keras.Model([x, y], "
            "model(x, y)), with x and y from keras.Input(shape)."
        )
    symbols = {name: _symbols(name, shape) for name, shape in given.items()}
    inputs = next(iter(symbols.values())) if len(symbols) == 1 else list(symbols.values())
    return _graph(model, (), symbols, inputs)


def _symbols(name: str, shapes: Any) -> Any:
    """Return inputs of nested shapes, the batch open, named by their place."""
    import keras

    if isinstance(shapes, dict):
        return {key: _symbols(key, shape) for key, shape in shapes.items()}
    if all(size is None or isinstance(size, int) for size in shapes):
        return keras.Input(batch_shape=(None, *shapes[1:]), name=name)
    parts = (_symbols(f"{name}_{number}", shape) for number, shape in enumerate(shapes, 1))
    return type(shapes)(parts)


def traced(layer: Any, node: Any, masked: Collection[int] = ()) -> Traced:
    """Return what a layer of the user's is made of, from a symbolic call as in the model.

    Args:
        layer: the layer.
        node: its call.
        masked: which of the tensors that it reads, in their order, have masks.
    """
    import keras

    def graph(batch: int | None) -> Traced:
        symbols: dict[int, Any] = {}

        def fresh(tensor):
            if id(tensor) not in symbols:
                shape = tuple(tensor.shape)
                shape = (shape[0] or batch, *shape[1:]) if shape else shape
                symbols[id(tensor)] = keras.Input(batch_shape=shape, dtype=tensor.dtype)
            return symbols[id(tensor)]

        args, kwargs = compat.mapped(node, fresh)
        inputs = list(symbols.values())
        masks = [keras.Input(batch_shape=inputs[n].shape[:2], dtype="bool") for n in masked]
        for n, mask in zip(masked, masks, strict=True):
            compat.hang_mask(inputs[n], mask)
        return _graph_with_masks(layer, args, kwargs, [*inputs, *masks])

    try:
        made = graph(None)
        return graph(BATCH) if reads_batch(made.graph) else made
    except UnsupportedModelError:
        try:
            return graph(BATCH)
        except UnsupportedModelError:
            pass
        raise


def _graph_with_masks(layer: Any, args: tuple, kwargs: dict, inputs: list[Any]) -> Traced:
    import keras

    given = compat.call_with_masks(layer, args, kwargs)
    try:
        made = keras.tree.flatten(layer.call(*args, **given))
        masks = compat.own_masks(layer, args, given, made)
        return Traced(keras.Model(inputs, [*made, *masks.values()]), tuple(masks))
    except Exception as error:  # whatever the user's code meets in symbolic tensors
        raise _not_followed(layer, error) from error


def _graph(layer: Any, args: tuple, kwargs: dict, inputs: Any) -> Any:
    import keras

    try:
        outputs = layer.call(*args, **kwargs)
        return keras.Model(inputs, outputs)
    except Exception as error:  # whatever the user's code meets in symbolic tensors
        raise _not_followed(layer, error) from error


def _not_followed(layer: Any, error: Exception) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"Layer {layer.name!r} ({type(layer).__name__}) is of a class of its own, and its call "
        "cannot be followed symbolically. Write it with layers and keras.ops, without conditions "
        "on values and without functions of one backend, or leave it out of the model. Keras says: "
        f"{first_words(error)}"
    )
