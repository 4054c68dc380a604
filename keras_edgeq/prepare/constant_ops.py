"""Operations with constant weights as layers that own them: `tf.nn.conv2d(x, kernel)` and the like.

Functions written with operations of TensorFlow, and layers of the user's that were opened, compute
with constants and variables among their arguments, where no technique and no kernel finds them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from keras_edgeq.errors import QuantizationWarning, warn
from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.layer_graph import GraphNode, LayerGraph
from keras_edgeq.graph.rebuild import Call, rebuild
from keras_edgeq.prepare.constant_forms import ConstantForm, form_of, is_constant
from keras_edgeq.spec.tensor_ref import part_name

L = tf_keras.layers
ADDS = ("__operators__.add", "math.add", "nn.bias_add")


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
    if walk.frozen:
        warn(
            f"Variables of {', '.join(walk.frozen)} are constants from here on and do not train: "
            "the layer's own code computes with them in a way that no layer of Keras has.",
            QuantizationWarning,
        )
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
        self._added: dict[tuple, Any] = {}  # key of a form -> what is added behind each call of it
        self._dropped: set[int] = set()  # calls that only add it
        self._merge(graph)
        self._uses: dict[int, set] = {}
        for node in graph.nodes:
            form = self._forms.get(id(node.call.node))
            for value in filter(_is_variable, _held(node)):
                use = id(node.layer) if form is None else form.key
                self._uses.setdefault(id(value), set()).add(use)

    def _merge(self, graph: LayerGraph) -> None:
        """Find the forms behind whose every call one constant per channel is added."""
        behind: dict[tuple, list[tuple[GraphNode | None, Any]]] = {}
        for node in graph.nodes:
            form = self._forms.get(id(node.call.node))
            if form is not None:
                reader = graph.only_consumer(node.outputs[0]) if form.has_bias else None
                bias = None if reader is None else _bias(reader, form, node.shapes[0])
                behind.setdefault(form.key, []).append((reader, bias))
        for key, found in behind.items():
            (_, first), *_ = found
            if first is not None and all(bias is first for _, bias in found):
                self._added[key] = first
                self._dropped |= {id(reader.call.node) for reader, _ in found if reader}

    def on_call(self, call: Call, new: Any, args: tuple, kwargs: dict) -> Any:
        form = self._forms.get(id(call.node))
        tensors = [v for v in tf.nest.flatten((args, kwargs)) if keras_compat.is_keras_tensor(v)]
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
            bias = self._added.get(form.key)
            held = [form.held, *([] if bias is None else [bias])]
            weights, options = [form.kernel], dict(form.options)
            if bias is not None:
                channels = (_channels(form),)
                weights.append(np.broadcast_to(np.float32(_value(bias)).ravel(), channels))
            if form.kind is not L.EinsumDense and form.has_bias:
                options["use_bias"] = bias is not None
            elif bias is None and form.kind is L.EinsumDense:
                options["bias_axes"] = None
            trains = [_is_variable(v) and v.trainable and len(self._uses[id(v)]) == 1 for v in held]
            if not any(map(_is_variable, held)):
                self.constants.add(name)
            elif not all(trains) and any(_is_variable(v) and v.trainable for v in held):
                self._freeze(name)
            self._layers[form.key] = form.kind(
                **options, name=name, weights=weights, trainable=all(trains), dtype="float32"
            )
        return self._layers[form.key]


def _channels(form: ConstantForm) -> int:
    if form.kind is L.EinsumDense:
        return form.options["output_shape"][-1]
    if form.kind is L.DepthwiseConv2D:
        return form.kernel.shape[2] * form.kernel.shape[3]
    return form.kernel.shape[-1]


def _bias(reader: GraphNode, form: ConstantForm, shape: tuple) -> Any:
    """Return the constant per channel that a call adds to a form's output; None if it does more."""
    if keras_compat.op_symbol(reader.layer) not in ADDS:
        return None
    if len(reader.call.reads) != 1 or reader.shapes[0] != shape:
        return None
    given = keras_compat.bound_arguments(reader.call.node)
    if given.get("data_format") not in (None, "NHWC"):
        return None
    held = [v for v in given.values() if is_constant(v)]
    if len(held) != 1 or _is_variable(held[0]) != _is_variable(form.held):
        return None
    size, sizes = int(np.prod(held[0].shape)), tuple(held[0].shape)
    channels = _channels(form)
    return held[0] if size == 1 or (size == channels and sizes[-1] == channels) else None


def _held(node: GraphNode) -> list[Any]:
    """Return the constants of real numbers and the variables that an operation is given."""
    if keras_compat.op_symbol(node.layer) is None:
        return []
    call = node.call.node
    given = tf.nest.flatten((call.call_args, call.call_kwargs))
    return [value for value in given if is_constant(value) or _is_variable(value)]


def _is_variable(value: Any) -> bool:
    return isinstance(value, tf.Variable)


def _value(value: Any) -> np.ndarray:
    return np.asarray(value.numpy() if _is_variable(value) else value)
