"""Find the channels of a model that one scale can run through.

Every channel of every tensor is an element; what forces two to have the same scale joins them: an
activation, a pool, an Add. What is left are groups. In front of a group stand kernels whose output
channels can be divided by its scale, behind it kernels whose input channels can be multiplied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray

from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.layer_graph import GraphNode, LayerGraph
from keras_edgeq.graph.rebuild import clone, rebuild
from keras_edgeq.ops import channel_map, op_of
from keras_edgeq.ops.operands import keeps_channels
from keras_edgeq.ops.table import is_linear
from keras_edgeq.spec.tensor_ref import TensorRef

L = tf_keras.layers
FIXED = 0
NORMS = (L.LayerNormalization, L.BatchNormalization)
DYNAMIC_SIZE = 8


@dataclass(frozen=True, eq=False)
class Ends:
    """A layer between groups.

    Args:
        kernel: name of its kernel.
        bias_name: name of its bias, None if it has none.
        inputs: group of the input channel of each kernel element, broadcasting to the kernel.
        outputs: group of the output channel, same shape.
        bias: group of each element of the bias.
    """

    kernel: str
    bias_name: str | None
    inputs: NDArray[np.intp]
    outputs: NDArray[np.intp]
    bias: NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class ScaleGroups:
    """The groups of a model, numbered; group 0 are all channels whose scale has to stay 1.

    Args:
        count: number of groups.
        layers: name -> layer with a kernel.
        tensors: tensor -> group of each channel of the last axis.
        caps: tensor in front of a capped activation -> where it stops growing.
    """

    count: int
    layers: Mapping[str, Ends]
    tensors: Mapping[TensorRef, NDArray[np.intp]]
    caps: Mapping[TensorRef, float]


def scale_groups(model: tf_keras.Model, norms: bool = False) -> ScaleGroups:
    """Return the groups of a prepared model.

    Args:
        model: a prepared model.
        norms: let the gamma of a normalization stand in front of a group.
    """
    walk = _Walk(LayerGraph.of(model), norms)
    roots = np.array([walk.find(i) for i in range(len(walk.parents))])
    groups, numbers = np.unique(roots, return_inverse=True)  # 0 is its own root, so group 0
    layers = {}
    for name, kernel in walk.kernels.items():
        inputs, outputs = numbers[walk.inputs[name]], numbers[walk.outputs[name]]
        layers[name] = Ends(
            kernel.name,
            kernel.bias,
            np.asarray(FIXED) if kernel.inputs is None else inputs[kernel.inputs],
            np.asarray(FIXED) if kernel.outputs is None else outputs[kernel.outputs],
            outputs,
        )
    tensors = {ref: numbers[elements] for ref, elements in walk.tensors.items()}
    return ScaleGroups(len(groups), layers, tensors, walk.caps)


def rescale(model: tf_keras.Model, groups: ScaleGroups, scales: NDArray) -> tf_keras.Model:
    """Return the model with each group's channels divided by its scale; the function is the same.

    Args:
        model: what the groups are of.
        groups: from `scale_groups`.
        scales: float64 `(groups.count,)`, all positive; that of group 0 is 1.
    """

    def on_layer(layer):
        ends = groups.layers.get(layer.name)
        if ends is None:
            return None
        factor = scales[ends.inputs] / scales[ends.outputs]
        if np.all(factor == 1.0) and np.all(scales[ends.bias] == 1.0):
            return None
        named = {id(getattr(layer, ends.kernel)): factor}
        if ends.bias_name is not None:
            named[id(getattr(layer, ends.bias_name))] = 1.0 / scales[ends.bias]
        values = [(np.float64(w) * named.get(id(w), 1.0)).astype(np.float32) for w in layer.weights]
        return clone(layer, weights=values)

    return rebuild(model, on_layer)


@dataclass(frozen=True, eq=False)
class _Kernel:
    """A kernel or gamma: its name, that of its bias, and the channels that its elements connect."""

    name: str
    bias: str | None
    inputs: NDArray[np.intp] | None
    outputs: NDArray[np.intp] | None

    @classmethod
    def of(cls, layer, norms: bool) -> _Kernel | None:
        """Return that of a linear layer on the last axis; None if it has no such."""
        if norms and type(layer) in NORMS:
            axes = np.ravel(layer.axis)
            last = len(axes) == 1 and axes[0] in (-1, len(layer.input_shape) - 1)
            if not last or layer.gamma is None or layer.beta is None:
                return None
            return cls("gamma", "beta", None, np.arange(layer.gamma.shape[0]))
        found = channel_map(layer)
        if not found or not is_linear(layer):
            return None
        return cls(found.kernel, found.bias_name, found.inputs, found.outputs)


class _Walk:
    """One walk over a graph that joins channels; elements are numbered, 0 is what stays."""

    def __init__(self, graph: LayerGraph, norms: bool):
        self.norms = norms
        self.parents = [FIXED]
        self.tensors: dict[TensorRef, NDArray[np.intp]] = {}
        self.caps: dict[TensorRef, float] = {}
        self.kernels: dict[str, _Kernel] = {}
        self.inputs: dict[str, NDArray[np.intp]] = {}
        self.outputs: dict[str, NDArray[np.intp]] = {}
        for node in graph.nodes:
            made = self._made(node)
            if made is None:
                for ref in node.inputs:
                    self._fix(self.tensors[ref])
                made = [np.full(_channels(shape), FIXED) for shape in node.shapes]
            self.tensors.update(zip(node.outputs, made, strict=True))
        for ref in graph.outputs:
            self._fix(self.tensors[ref])

    def find(self, element: int) -> int:
        while self.parents[element] != element:
            self.parents[element] = self.parents[self.parents[element]]
            element = self.parents[element]
        return element

    def _join(self, one, other) -> None:
        for a, b in zip(np.ravel(one), np.ravel(other), strict=True):
            low, high = sorted((self.find(int(a)), self.find(int(b))))
            self.parents[high] = low

    def _fix(self, elements) -> None:
        self._join(elements, np.full(np.size(elements), FIXED))

    def _new(self, count: int) -> NDArray[np.intp]:
        first = len(self.parents)
        self.parents.extend(range(first, first + count))
        return np.arange(first, first + count)

    def _made(self, node: GraphNode) -> list[NDArray[np.intp]] | None:
        """Return the elements of what a call makes, None if no scale can pass."""
        op, layer = op_of(node.layer), node.layer
        symbols = node.call.node.keras_inputs
        shapes = [tuple(s.shape) if s.shape.rank is not None else () for s in symbols]
        plain = all(len(shape) >= 2 and shape[-1] is not None for shape in (*shapes, *node.shapes))
        if not node.inputs or not plain or not all(s.dtype.is_floating for s in symbols):
            return None
        read = [self.tensors[ref] for ref in node.inputs]
        kernel = _Kernel.of(layer, self.norms)
        if kernel is not None and len(read) == 1:
            return [self._through_kernel(layer, kernel, read[0], _channels(node.shapes[0]))]
        if op.scale in ("passes", "caps") and len(read) == 1:
            if op.scale == "caps":
                self.caps[node.inputs[0]] = float(getattr(layer, "max_value", None) or 6.0)
            return read
        if op.scale == "pools" and len(read) == 1 and keeps_channels(node):
            return read
        if op.scale == "joins" and _alike(node, shapes):
            for other in read[1:]:
                self._join(read[0], other)
            return read[:1]
        return self._moved(node, read) if op.scale == "moves" else None

    def _through_kernel(self, layer, kernel: _Kernel, read, made: int):
        """Start new elements on a layer's output; all calls of a layer share its channels."""
        name = layer.name
        if name in self.kernels:
            self._join(self.inputs[name], read)
            return self.outputs[name]
        self.kernels[name], self.inputs[name] = kernel, read
        if kernel.inputs is None:
            self._fix(read)
        self.outputs[name] = np.full(made, FIXED) if kernel.outputs is None else self._new(made)
        return self.outputs[name]

    def _moved(self, node: GraphNode, read) -> list[NDArray[np.intp]] | None:
        """Find which channel comes from where by moving their numbers; 0 is what a pad adds."""
        symbols = node.call.node.keras_inputs
        if len(symbols) != len(read):
            return None
        elements, numbers = np.concatenate([[FIXED], *read]), []
        first = 1
        for symbol in symbols:
            sizes = [symbol.shape[0] or 1, *(size or DYNAMIC_SIZE for size in symbol.shape[1:])]
            numbers.append(np.broadcast_to(np.arange(sizes[-1]) + first, sizes))
            first += sizes[-1]
        try:
            moved = _called(node, numbers)
        except (ValueError, tf.errors.InvalidArgumentError):
            return None  # a reshape whose sizes fit only the unknown ones of the model
        if any(np.any(made) for made in _called(node, [np.zeros_like(n) for n in numbers])):
            return None
        result = []
        for made, shape in zip(moved, node.shapes, strict=True):
            columns = made.reshape(-1, made.shape[-1]).astype(np.intp)
            if columns.shape[1] != _channels(shape):
                return None
            last = columns.max(axis=0)
            for column in np.flatnonzero(np.any((columns != last) & (columns != 0), axis=0)):
                several = np.unique(columns[:, column])
                several = several[several > 0]
                self._join(elements[several], np.full(several.size, elements[last[column]]))
            result.append(elements[last])
        return result


def _channels(shape: tuple) -> int:
    return (shape[-1] or 1) if shape else 1


def _alike(node: GraphNode, shapes: list[tuple]) -> bool:
    """Tell whether an operation joins tensors channel by channel, and nothing else."""
    if keras_compat.op_symbol(node.layer) and len(keras_compat.operands(node.call.node)) != 2:
        return False
    tensors = all(map(keras_compat.is_keras_tensor, keras_compat.operands(node.call.node)))
    return tensors and len(shapes) > 1 and len({(len(s), s[-1]) for s in shapes}) == 1


def _called(node: GraphNode, values: list) -> list[NDArray]:
    """Call a layer on other values, in the order of its inputs."""
    values = [tf.constant(value, tf.float32) for value in values]
    pairs = zip(node.call.node.keras_inputs, values, strict=True)
    args, kwargs = keras_compat.arguments(node.call.node, {id(s): v for s, v in pairs})
    return [made.numpy() for made in tf.nest.flatten(node.layer(*args, **kwargs))]
