"""Operations with constant weights as layers that own them: `tf.nn.conv2d(x, kernel)` and the like.

Functions written with operations of TensorFlow, and layers of the user's that were opened, compute
with constants and variables among their arguments, where no technique and no kernel finds them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.layer_graph import GraphNode, LayerGraph
from keras_edgeq.graph.rebuild import Call, rebuild, symbols_in
from keras_edgeq.prepare.constant_forms import ConstantForm, form_of, holds_numbers
from keras_edgeq.prepare.trace import warn_frozen
from keras_edgeq.spec.tensor_ref import part_name

L = tf_keras.layers
ADDS = ("__operators__.add", "math.add", "nn.bias_add")
MULTIPLIES = ("math.multiply", "multiply", "__operators__.mul")


@dataclass(frozen=True, eq=False)
class _Change:
    """A call that adds a constant per channel, or multiplies by it.

    Args:
        call: the `id` of its node.
        is_factor: whether it multiplies.
        value: the constant.
    """

    call: int
    is_factor: bool
    value: Any

    @property
    def same(self) -> tuple:
        """What two calls that do the same have in common."""
        return self.is_factor, id(self.value)


def constants_to_layers(model: tf_keras.Model) -> tuple[tf_keras.Model, frozenset[str]]:
    """Return the model with operations on a tensor and constants as layers, and their names.

    Matrix products, convolutions and look-ups in a table become layers with the operation's name;
    a constant per channel that is added behind becomes their bias. Variables, which opened layers
    compute with, train as before where they become weights of one layer. All others become
    constants.

    Args:
        model: a functional model without models inside; it is not changed.

    Returns:
        The model, and the layers whose weights are constants of the user's.

    Warns:
        QuantizationWarning: names the layers whose variables do not train any more.
    """
    graph = LayerGraph.of(model)
    if not any(map(_held, graph.nodes)):
        return model, frozenset()
    walk = _Walk(graph, model.name)
    result = rebuild(model, on_call=walk.on_call)
    warn_frozen(walk.frozen)
    return result, frozenset(walk.constants)


class _Walk:
    """One rebuild on its way.

    Attributes:
        constants: layers whose weights are constants.
        frozen: layers of the user's whose variables became constants.
    """

    def __init__(self, graph: LayerGraph, name: str):
        self._model = name
        self.constants: set[str] = set()
        self.frozen: dict[str, None] = {}
        self._layers: dict[tuple, Any] = {}
        self._forms = {
            id(node.call.node): form
            for node in graph.nodes
            if (form := form_of(node.call.node)) is not None
        }
        self._changes: dict[tuple, list[_Change]] = {}  # key of a form -> what follows each call
        self._dropped: set[int] = set()  # calls that only do that
        self._merge(graph)
        self._uses: dict[int, set] = {}
        for node in graph.nodes:
            form = self._forms.get(id(node.call.node))
            for value in filter(_is_variable, _held(node)):
                use = id(node.layer) if form is None else form.key
                self._uses.setdefault(id(value), set()).add(use)

    def _merge(self, graph: LayerGraph) -> None:
        """Find what constants scale and shift every call of a form alike."""
        behind: dict[tuple, list[list[_Change]]] = {}
        for node in graph.nodes:
            form = self._forms.get(id(node.call.node))
            if form is not None and form.has_bias:
                behind.setdefault(form.key, []).append(_changes(graph, node, form))
        for key, (first, *others) in behind.items():
            if all([c.same for c in other] == [c.same for c in first] for other in others):
                self._changes[key] = first
                self._dropped |= {c.call for changes in (first, *others) for c in changes}

    def on_call(self, call: Call, new: Any, args: tuple, kwargs: dict) -> Any:
        form = self._forms.get(id(call.node))
        tensors = symbols_in((args, kwargs))
        if form is not None:
            layer = self._layer(form, call.layer.name)
            if form.pads is None:
                return layer(tensors[0])
            name = part_name(call.layer.name, f"pad_{call.number}" if call.number else "pad")
            return layer(L.ZeroPadding2D(form.pads, name=name)(tensors[0]))
        if id(call.node) in self._dropped:
            return tensors[0]

        def leaf(value):
            if not _is_variable(value):
                return value
            if value.trainable:
                self._freeze(call.layer.name)
            return tf.constant(value.numpy())

        args, kwargs = tf.nest.map_structure(leaf, (args, kwargs))
        return new(*args, **kwargs)

    def _freeze(self, operation: str) -> None:
        self.frozen[operation.rpartition("/")[0] or self._model] = None

    def _layer(self, form: ConstantForm, name: str) -> Any:
        if form.key not in self._layers:
            changes, options = self._changes.get(form.key, []), dict(form.options)
            kernel, bias = _changed(form, changes)
            if form.kind is not L.EinsumDense and form.has_bias:
                options["use_bias"] = bool(changes)
            elif form.kind is L.EinsumDense and not changes:
                options["bias_axes"] = None
            held = [form.held, *(change.value for change in changes)]
            variables = list(filter(_is_variable, held))
            trains = _is_variable(form.held) and all(
                v.trainable and len(self._uses[id(v)]) == 1 for v in variables
            )
            if not variables:
                self.constants.add(name)
            elif not trains and any(v.trainable for v in variables):
                self._freeze(name)
            self._layers[form.key] = form.kind(
                **options,
                name=name,
                weights=[kernel, bias] if changes else [kernel],
                trainable=trains,
                dtype="float32",
            )
        return self._layers[form.key]


def _channels(form: ConstantForm) -> int:
    if form.kind is L.EinsumDense:
        return form.options["output_shape"][-1]
    if form.kind is L.DepthwiseConv2D:
        return form.kernel.shape[2] * form.kernel.shape[3]
    return form.kernel.shape[-1]


def _changes(graph: LayerGraph, node: GraphNode, form: ConstantForm) -> list[_Change]:
    """Return what constants per channel do, one after the other, with what a call makes.

    Of a form whose kernel is a variable, a bias that is one; of others, factors and sums.
    """
    found: list[_Change] = []
    while (reader := graph.only_consumer(node.outputs[0])) is not None:
        change = _change(reader, form, node.shapes[0])
        if change is None:
            break
        found.append(change)
        if _is_variable(form.held):
            break
        node = reader
    return found


def _change(reader: GraphNode, form: ConstantForm, shape: tuple) -> _Change | None:
    """Return what a call does with a form's output; None if it is more than a constant does."""
    symbol = keras_compat.op_symbol(reader.layer)
    is_factor = symbol in MULTIPLIES
    if symbol not in (*ADDS, *MULTIPLIES) or (is_factor and _is_variable(form.held)):
        return None
    if len(reader.call.reads) != 1 or reader.shapes[0] != shape:
        return None
    given = keras_compat.bound_arguments(reader.call.node)
    held = [value for value in given.values() if holds_numbers(value)]
    if given.get("data_format") not in (None, "NHWC") or len(held) != 1:
        return None
    (value,), channels = held, _channels(form)
    size, sizes = int(np.prod(value.shape)), tuple(value.shape)
    fits = size == 1 or (size == channels and sizes[-1] == channels)
    if not fits or (_is_variable(form.held) and not _is_variable(value)):
        return None
    return _Change(id(reader.call.node), is_factor, value)


def _changed(form: ConstantForm, changes: list[_Change]) -> tuple[np.ndarray, np.ndarray]:
    """Return kernel and bias of a form with what follows it."""
    kernel = np.asarray(form.kernel, np.float64)
    bias = np.zeros(_channels(form) if form.has_bias else 1)
    for change in changes:
        value = np.broadcast_to(np.float64(_value(change.value)).ravel(), bias.shape)
        if change.is_factor:
            kernel, bias = kernel * _per_channel(form, value), bias * value
        else:
            bias = bias + value
    return kernel.astype(np.float32), bias.astype(np.float32)


def _per_channel(form: ConstantForm, value: np.ndarray) -> np.ndarray:
    """Return a number per channel in a shape that a kernel is multiplied with."""
    if form.kind is L.DepthwiseConv2D:
        return value.reshape(form.kernel.shape[2:])
    if form.kind is L.EinsumDense:
        letters, made = form.options["equation"].split(",")[1].split("->")
        axis = letters.index(made[-1])
        return value.reshape([-1 if n == axis else 1 for n in range(form.kernel.ndim)])
    return value


def _held(node: GraphNode) -> list[Any]:
    """Return the constants of real numbers and the variables that an operation is given."""
    if keras_compat.op_symbol(node.layer) is None:
        return []
    call = node.call.node
    given = tf.nest.flatten((call.call_args, call.call_kwargs))
    return [value for value in given if holds_numbers(value) or _is_variable(value)]


def _is_variable(value: Any) -> bool:
    return isinstance(value, tf.Variable)


def _value(value: Any) -> np.ndarray:
    return np.asarray(value.numpy() if _is_variable(value) else value)
