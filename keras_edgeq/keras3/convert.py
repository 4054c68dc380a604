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
from keras_edgeq.graph.masks import Masks
from keras_edgeq.graph.name_operations import name_operations
from keras_edgeq.keras3 import activations, compat
from keras_edgeq.keras3.inside import (
    Inside,
    as_model,
    mask_inputs,
    passes_mask,
    read,
    unmasked_by,
    without_lost_mask,
    without_mask,
)
from keras_edgeq.keras3.layers import is_fixed, known_class, translated
from keras_edgeq.keras3.open_batch import batch_of, for_any_batch
from keras_edgeq.keras3.operations import function_of
from keras_edgeq.keras3.tensors import as_arrays, input_like, like_symbol
from keras_edgeq.keras3.trace import Traced, opened, traced
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
        self._inner: dict[tuple[int, tuple[int, ...]], Callable[..., Any]] = {}
        self._known: set[int] = set()
        self._masks = Masks(self._known)
        self.pairs: dict[str, tuple[Any, tf_keras.layers.Layer]] = {}
        self.opened_batch: list[str] = []
        self._path, self._has_fixed_batch = "", False
        self.graph = opened(model)
        self.result = self._model(model.name, self.graph)
        for theirs, ours in self.pairs.values():
            give_weights(theirs, ours)

    def _model(self, name: str, graph: Any) -> tf_keras.Model:
        inputs = [input_like(symbol, self._has_fixed_batch) for symbol in graph.inputs]
        values = {id(k): v for k, v in zip(graph.inputs, inputs, strict=True)}
        self._run(graph, values)
        return as_model(name, graph, inputs, values)

    def _inside(self, name: str, traced: Traced, masked: tuple[int, ...], is_opened: bool) -> Any:
        """Return a graph inside as a model, or what calls it with masks where there are any."""
        graph = traced.graph
        inputs = [input_like(symbol, self._has_fixed_batch) for symbol in graph.inputs]
        values = {id(k): v for k, v in zip(graph.inputs, inputs, strict=True)}
        if not is_opened:
            inputs += mask_inputs(inputs, masked)
        masks = inputs[len(inputs) - len(masked) :]
        for n, mask in zip(masked, masks, strict=True):
            self._masks.hold(name, [inputs[n]], [mask])
        self._run(graph, values)
        made = [values[id(symbol)] for symbol in graph.outputs]
        made, own = made[: len(made) - len(traced.masked)], made[len(made) - len(traced.masked) :]
        found = dict(zip(traced.masked, own, strict=True))  # those of layers inside go first
        inner = enumerate(map(self._masks.mask, made))
        found |= {n: mask for n, mask in inner if mask is not None}
        if not masked and not found:
            return as_model(name, graph, inputs, values)
        model = tf_keras.Model(inputs, [*made, *found.values()], name=name)
        return Inside(model, self._masks, is_opened, tuple(found))

    def _run(self, graph: Any, values: dict[int, Any]) -> None:
        import keras

        walked = compat.nodes(graph)
        taken = {node.operation.name for node in walked if compat.is_keras3(node.operation)}
        for node in walked:
            given = compat.mapped(node, lambda k: values[id(k)])
            args, kwargs = as_arrays(given[0]), as_arrays(given[1])
            with self._named(node.operation):
                compute = self._compute(node, values)
                layer = self.steps[id(node.operation)].layer
                if layer is not None and not isinstance(layer, tf_keras.Model):
                    kwargs = self._masks.given(layer, args, kwargs)
                made = keras.tree.flatten(compute(*args, **kwargs))
                outputs = [
                    like_symbol(one, symbol, self._has_fixed_batch)
                    for one, symbol in zip(made, node.outputs, strict=False)
                ]
            if isinstance(compute, Inside):
                compute.hold(node.operation.name, outputs, made[len(outputs) :])
            elif layer is not None and passes_mask(node, values, self._masks):
                self._masks.add(layer, layer.name, args, kwargs, outputs)
            outputs = [without_lost_mask(output, self._masks) for output in outputs]
            for output in filter(keras_compat.is_keras_tensor, outputs):
                name_operations(output, self._known, _names(node.operation, taken))
            values.update({id(k): v for k, v in zip(node.outputs, outputs, strict=True)})
            for symbol in unmasked_by(node):
                values[id(symbol)] = without_mask(values[id(symbol)], self._masks)
                name_operations(values[id(symbol)], self._known, _names(node.operation, taken))

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

    def _compute(self, node: Any, values: dict[int, Any]) -> Callable[..., Any]:
        """Return the function of a call on tensors of TensorFlow."""
        operation = node.operation
        path = f"{self._path}{operation.name}"
        is_inside = compat.is_keras3(operation) and (
            compat.graph_of(operation) is not None or known_class(operation) is None
        )
        if id(operation) in self.steps and not is_inside:
            return self.steps[id(operation)].compute
        layer = None
        if not compat.is_keras3(operation):
            compute = function_of(operation, node.outputs)
            compute = for_any_batch(node, compute) if self._has_fixed_batch else compute
        elif is_inside:
            compute = self._nested(operation, node, values)
            layer = compute.graph if isinstance(compute, Inside) else compute
            if layer is compute and compat.graph_of(operation) is None:
                compute = _of_tensors(layer)
        elif _holds_model(operation):
            outer, self._path = self._path, f"{path}/"
            inner = self._nested(operation.layer, node, {})
            self._path = outer
            compute = layer = tf_keras.layers.TimeDistributed(inner, name=operation.name)
        else:
            layer, behind = translated(operation)
            if not is_fixed(operation):
                self.pairs[path] = (operation, layer)
            compute = self._activated(layer, behind)
        self.steps[id(operation)] = Step(operation, path, compute, layer)
        return compute

    def _nested(self, operation: Any, node: Any, values: dict[int, Any]) -> Any:
        """Return a nested model, or a layer of the user's opened as one; once per set of masks."""
        graph, outer = compat.graph_of(operation), (self._path, self._has_fixed_batch)
        is_opened = graph is None
        given = compat.mapped(node, lambda k: values.get(id(k)))
        _, masks = read(*given, self._masks, is_opened)
        masked = tuple(n for n, mask in enumerate(masks) if mask is not None)
        if (id(operation), masked) in self._inner:
            return self._inner[id(operation), masked]
        found = traced(operation, node, masked) if is_opened else Traced(graph, ())
        graph = self.graphs[id(operation)] = found.graph
        if is_opened:
            self._has_fixed_batch |= graph.inputs[0].shape[:1] != batch_of(node)
            if self._has_fixed_batch:
                self.opened_batch.append(f"{self._path}{operation.name}")
        self._path = f"{self._path}{operation.name}/"
        again = sum(key == id(operation) for key, _ in self._inner)
        name = f"{operation.name}_{again}" if again else operation.name
        try:
            made = self._inner[id(operation), masked] = self._inside(name, found, masked, is_opened)
            return made
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
