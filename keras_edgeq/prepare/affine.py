"""Scale and offset per channel as a 1x1 depthwise convolution, which targets run in integers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tf_keras

from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.graph.rebuild import Edits, symbols_in
from keras_edgeq.ops import op_of
from keras_edgeq.spec.tensor_ref import part_name

L = tf_keras.layers


def affine(name: str, scale: np.ndarray, offset: np.ndarray, trainable: bool = True) -> Callable:
    """Return a function of layers that computes `x * scale + offset` over the last axis.

    Called several times, it shares one convolution. The input's shape has to pass `can_be_affine`.

    Args:
        name: name of the convolution; reshapes around it get `/in` and `/out`.
        scale: shape `(channels,)`.
        offset: shape `(channels,)`.
        trainable: whether they were trained in the user's model.
    """
    weights = [np.reshape(scale, (1, 1, -1, 1)), np.reshape(offset, (-1,))]
    weights = [w.astype(np.float32) for w in weights]
    options = {"trainable": trainable, "dtype": "float32"}
    convolution = L.DepthwiseConv2D(1, name=name, weights=weights, **options)
    reshapes: dict[tuple, tuple] = {}

    def apply(x):
        shape = tuple(x.shape)
        if len(shape) == 4:
            return convolution(x)
        if shape not in reshapes:
            reshapes[shape] = _reshapes(name, shape, len(reshapes) or "")
        inside, outside = reshapes[shape]
        return outside(convolution(inside(x)))

    return apply


def can_be_affine(shape: tuple) -> bool:
    """Tell whether `affine` can take this shape: channels known, at most one other size unknown."""
    return (
        len(shape) in (2, 3, 4, 5)
        and shape[-1] is not None
        and (len(shape) == 4 or sum(d is None for d in shape[1:]) <= 1)
    )


def _reshapes(name: str, shape: tuple, number: int | str) -> tuple[tf_keras.layers.Layer, ...]:
    """Return the layers that make `shape` height, width, channels, and back."""
    sizes = [-1 if d is None else d for d in shape[1:]]
    height, *rest = *sizes[:-1], 1
    image = [height, -1 if -1 in rest else int(np.prod(rest)), sizes[-1]]
    inside = L.Reshape(image, name=part_name(name, f"in{number}"))
    return inside, L.Reshape(sizes, name=part_name(name, f"out{number}"))


def constant_edits(graph: LayerGraph) -> tuple[Edits, frozenset[str]]:
    """Return Rescaling, Normalization and `x op constant` as affine layers, and their names.

    Scalars added to or multiplied with a tensor stay: a kernel takes them without error.
    """
    groups = {id(node.layer): [n.call for n in graph.calls_of(node.layer)] for node in graph.nodes}
    edits = {key: function for key, group in groups.items() if (function := _replaced(group))}
    return edits, frozenset(groups[key][0].layer.name for key in edits)


def _replaced(group: list) -> Callable | None:
    """Return a function for all calls of one layer, None if the layer stays."""
    read = [call.reads for call in group]
    if any(len(symbols) != 1 or not _is_float(symbols[0]) for symbols in read):
        return None
    shapes = [tuple(symbols[0].shape) for symbols in read]
    if not all(map(can_be_affine, shapes)) or len({shape[-1] for shape in shapes}) != 1:
        return None
    layer = group[0].layer
    pair = _layer_constants(layer, shapes[0]) or _op_constants(group[0], read[0][0])
    if pair is None:
        return None
    scale, offset = (np.broadcast_to(np.float64(v), (shapes[0][-1],)) for v in pair)
    function = affine(layer.name, scale, offset, trainable=False)
    return lambda *args, **kwargs: function(symbols_in((args, kwargs))[0])


def _is_float(symbol) -> bool:
    """Tell whether a convolution takes the tensor; Rescaling also takes integers."""
    return symbol.shape.rank is not None and symbol.dtype.is_floating


def _layer_constants(layer, shape):
    """Return `(scale, offset)` of a Rescaling or Normalization layer."""
    if type(layer) is L.Rescaling:
        return _per_channel(layer.scale, shape), _per_channel(layer.offset, shape)
    if type(layer) is L.Normalization and not layer.invert and layer.mean is not None:
        mean, deviation = np.float64(layer.mean), np.sqrt(np.float64(layer.variance))
        if mean.size == 1 or mean.size == mean.shape[-1] == shape[-1]:
            deviation = np.maximum(deviation, tf_keras.backend.epsilon()).ravel()
            return 1.0 / deviation, -mean.ravel() / deviation
    return None


def _per_channel(value, shape):
    value = np.float64(value).ravel()
    return value if value.size in (1, shape[-1]) else None


def _op_constants(call, symbol):
    """Return `(scale, offset)` of an op with a constant per channel, or of a division by one."""
    op, operands = op_of(call.layer), keras_compat.operands(call.node)[:2]
    if op.affine is None or len(operands) != 2 or keras_compat.op_symbol(call.layer) is None:
        return None
    constant = next((o for o in operands if not keras_compat.is_keras_tensor(o)), None)
    value = np.asarray(constant, np.float64)
    channels = symbol.shape[-1]
    if value.size not in (1, channels) or (value.ndim and value.shape[-1] != value.size):
        return None
    first = operands[0] is symbol
    if value.size == 1 and op.operands is not None and (first or op.combine is not np.subtract):
        return None  # kernels take a scalar, but not one that something is subtracted from
    return op.affine(value.ravel(), first)
