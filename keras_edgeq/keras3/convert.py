"""`from_keras3`: the equal `tf_keras` model of a model of Keras 3, checked layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count
from typing import Any

import tensorflow as tf
import tf_keras

from keras_edgeq.errors import EdgeqError, UnsupportedModelError, first_words
from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.name_operations import name_operations
from keras_edgeq.keras3 import activations, compat
from keras_edgeq.keras3.layers import is_fixed, known_class, translated
from keras_edgeq.keras3.open_batch import for_any_batch
from keras_edgeq.keras3.operations import function_of
from keras_edgeq.keras3.tensors import as_arrays, like_symbol
from keras_edgeq.keras3.trace import opened, traced
from keras_edgeq.spec.tensor_ref import part_name


@dataclass(frozen=True, eq=False)
class Step:
    """A layer or operation of the model and what it became.

    Args:
        operation: the layer or operation of Keras 3.
        path: its name behind those of the models it is in.
        compute: the same on tensors of TensorFlow.
        layer: the layer of `tf_keras`, None for an operation.
    """

    operation: Any
    path: str
    compute: Callable[..., Any]
    layer: tf_keras.layers.Layer | None


class Conversion:
    """Translates a model; layers that are called twice are translated once.

    Args:
        model: a built functional or Sequential model of Keras 3, or one that can be opened.

    Attributes:
        steps: by the `id` of the layer or operation.
        graph: of the model.
        graphs: of nested models and opened layers, likewise.
        pairs: path of a layer -> it, and what it became.
        result: the model of `tf_keras`.
        opened_batch: layers that were called on a batch of a fixed size, and opened again.
    """

    def __init__(self, model: Any):
        self.steps: dict[int, Step] = {}
        self.graphs: dict[int, Any] = {}
        self.pairs: dict[str, tuple[Any, tf_keras.layers.Layer]] = {}
        self.opened_batch: list[str] = []
        self._path, self._has_fixed_batch = "", False
        self.graph = opened(model)
        self.result = self._model(model.name, self.graph)
        for theirs, ours in self.pairs.values():
            give_weights(theirs, ours)

    def _model(self, name: str, graph: Any) -> tf_keras.Model:
        given, made = compat.structure(graph)
        inputs = [_input(symbol, self._has_fixed_batch) for symbol in graph.inputs]
        values = {id(k): v for k, v in zip(graph.inputs, inputs, strict=True)}
        self._run(graph, values)
        return tf_keras.Model(
            _packed(given, inputs), _mapped(made, lambda k: values[id(k)]), name=name
        )

    def _run(self, graph: Any, values: dict[int, Any]) -> None:
        import keras

        walked = compat.nodes(graph)
        taken = {node.operation.name for node in walked if compat.is_keras3(node.operation)}
        known: set[int] = set()
        for node in walked:
            args, kwargs = compat.mapped(node, lambda k: values[id(k)])
            with self._named(node.operation):
                made = self._compute(node)(*as_arrays(args), **as_arrays(kwargs))
                outputs = [
                    like_symbol(one, symbol, self._has_fixed_batch)
                    for one, symbol in zip(keras.tree.flatten(made), node.outputs, strict=True)
                ]
            for output in filter(keras_compat.is_keras_tensor, outputs):
                name_operations(output, known, _names(node.operation, taken))
            values.update({id(k): v for k, v in zip(node.outputs, outputs, strict=True)})

    @contextmanager
    def _named(self, operation: Any) -> Iterator[None]:
        """Say which layer it was that `tf_keras` or TensorFlow refused."""
        try:
            yield
        except EdgeqError:
            raise
        except Exception as error:  # of many kinds
            raise UnsupportedModelError(
                f"{self._path + operation.name!r} ({type(operation).__name__}) has no tf_keras "
                f"form as it is used in this model: {first_words(error)}"
            ) from error

    def _compute(self, node: Any) -> Callable[..., Any]:
        """Return the function of a call on tensors of TensorFlow."""
        operation = node.operation
        if id(operation) in self.steps:
            return self.steps[id(operation)].compute
        layer = None
        path = f"{self._path}{operation.name}"
        if not compat.is_keras3(operation):
            compute = function_of(operation, node.outputs)
            compute = for_any_batch(node, compute) if self._has_fixed_batch else compute
        elif compat.graph_of(operation) is not None or known_class(operation) is None:
            compute = layer = self._nested(operation, node)
            if compat.graph_of(operation) is None:
                compute = _of_tensors(layer)
        elif _holds_model(operation):
            outer, self._path = self._path, f"{path}/"
            inner = self._nested(operation.layer, node)
            self._path = outer
            compute = layer = tf_keras.layers.TimeDistributed(inner, name=operation.name)
        else:
            layer, behind = translated(operation)
            if not is_fixed(operation):
                self.pairs[path] = (operation, layer)
            compute = self._activated(layer, behind)
        self.steps[id(operation)] = Step(operation, path, compute, layer)
        return compute

    def _nested(self, operation: Any, node: Any) -> tf_keras.Model:
        """Return a nested model, or a layer of the user's opened as one."""
        graph, outer = compat.graph_of(operation), (self._path, self._has_fixed_batch)
        if graph is None:
            graph = traced(operation, node)
            self._has_fixed_batch |= graph.inputs[0].shape[:1] != _batch(node)
            if self._has_fixed_batch:
                self.opened_batch.append(f"{self._path}{operation.name}")
        self.graphs[id(operation)] = graph
        self._path = f"{self._path}{operation.name}/"
        try:
            return self._model(operation.name, graph)
        finally:
            self._path, self._has_fixed_batch = outer

    def _activated(self, layer: Any, behind: Any) -> Callable[..., Any]:
        if behind is None:
            return layer
        ours = behind in activations.FUNCTIONS.values()
        function = behind if ours else self._opened(behind)
        if isinstance(layer, tf_keras.layers.Activation):  # it was only there for its function
            return lambda x, training=None: function(x)
        return lambda *args, **kwargs: function(layer(*args, **kwargs))

    def _opened(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return an activation layer, or a function of the user's, on tensors of TensorFlow.

        A function may be of Keras 3 or of TensorFlow.
        """

        def compute(made):
            import keras

            symbol = keras.KerasTensor(tuple(made.shape), made.dtype.name)
            try:
                graph = keras.Function([symbol], [function(symbol)])
            except Exception:  # of many kinds; a function of TensorFlow takes its own tensors
                return function(made)
            values = {id(symbol): made}
            self._run(graph, values)
            return values[id(graph.outputs[0])]

        return compute


def _of_tensors(graph: tf_keras.Model) -> Callable[..., Any]:
    """Return what calls the graph of an opened layer as the layer is called."""

    def compute(*args, **kwargs):
        given = filter(tf.is_tensor, tf.nest.flatten((args, kwargs)))
        tensors = list({id(tensor): tensor for tensor in given}.values())
        return graph(tensors if len(tensors) > 1 else tensors[0])

    return compute


def _holds_model(layer: Any) -> bool:
    """Tell whether a layer computes a functional model for every step."""
    if known_class(layer) is not tf_keras.layers.TimeDistributed:
        return False
    return compat.is_keras3_model(layer.layer) and compat.graph_of(layer.layer) is not None


def _batch(node: Any) -> tuple[int | None, ...]:
    """Return the size of the batch that a call reads; none of a single number."""
    found: list[Any] = []
    compat.mapped(node, lambda tensor: found.append(tensor.shape[:1]))
    return found[0] if found else (None,)


def give_weights(theirs: Any, ours: tf_keras.layers.Layer) -> None:
    """Give a layer of `tf_keras` the weights of the one it was made of.

    Raises:
        UnsupportedModelError: they have other shapes, which is a fault of this package.
    """
    values = [weight.numpy() for weight in compat.own_weights(theirs)]
    if [v.shape for v in values] != [tuple(w.shape) for w in ours.weights]:
        raise UnsupportedModelError(
            f"Layer {theirs.name!r} ({type(theirs).__name__}) has weights of shapes "
            f"{[v.shape for v in values]} where tf_keras has "
            f"{[tuple(w.shape) for w in ours.weights]}. This is a fault of keras_edgeq; please "
            "report it."
        )
    if values:
        ours.set_weights(values)


def _names(operation: Any, taken: set[str]) -> Iterator[str]:
    """Yield names for what a call became: that of the operation first, none twice in a model."""
    own = operation.name
    first = part_name(own, "activation") if compat.is_keras3(operation) else own
    parts = (part_name(own, str(number)) for number in count(1))
    for wanted in chain([first], parts):
        if wanted not in taken:
            taken.add(wanted)
            yield wanted


def _input(symbol: Any, is_open: bool) -> Any:
    layer = compat.input_layer(symbol)
    if getattr(symbol, "sparse", False) or getattr(symbol, "ragged", False):
        raise UnsupportedModelError(
            f"Input {layer.name!r} is sparse or ragged; give dense tensors."
        )
    shape = tuple(symbol.shape)
    shape = (None, *shape[1:]) if is_open and shape else shape
    return tf_keras.Input(batch_shape=shape, dtype=symbol.dtype, name=layer.name)


def _mapped(made: Any, value: Callable[[Any], Any]) -> Any:
    import keras

    return keras.tree.map_structure(value, made)


def _packed(given: Any, inputs: list[Any]) -> Any:
    import keras

    packed = keras.tree.pack_sequence_as(given, inputs)
    return packed[0] if isinstance(packed, list | tuple) and len(packed) == 1 else packed
