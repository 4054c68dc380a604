"""Pads in front of max pools that no maximum takes, as copies of what is beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.layer_graph import GraphNode, LayerGraph
from keras_edgeq.graph.rebuild import rebuild
from keras_edgeq.ops.operands import as_number, pad_options
from keras_edgeq.prepare.arguments import is_constant

L = tf_keras.layers
# Lower than all numbers of a network: the least of half precision, which stands for minus infinity.
LOW = -65504.0
POOLS = (L.MaxPooling1D, L.MaxPooling2D, L.MaxPooling3D)
POOL_OPS = ("nn.max_pool", "nn.max_pool1d", "nn.max_pool2d", "nn.max_pool3d")


def with_low_pads_reflected(model: tf_keras.Model) -> tf_keras.Model:
    """Return the model with pads of very low numbers in front of max pools as reflections.

    A grid cannot hold such a number beside others. A window that hangs over the edge by half at
    most finds each number that is copied there inside of itself, so its maximum is the same.

    Args:
        model: a functional model without models inside; it is not changed.
    """
    graph = LayerGraph.of(model)
    modes = {(n.layer.name, n.call.number): _mode(graph, n) for n in graph.nodes}
    if not any(modes.values()):
        return model

    def on_call(call: Any, new: Any, args: tuple, kwargs: dict) -> Any:
        mode = modes.get((call.layer.name, call.number))
        if mode is None:
            return new(*args, **kwargs)
        options = pad_options(call.layer, args, kwargs)
        return new(options["tensor"], options["paddings"], mode=mode)

    return rebuild(model, on_call=on_call)


def _mode(graph: LayerGraph, node: GraphNode) -> str | None:
    """Return how to copy instead of padding, None where that is not the same."""
    if keras_compat.op_symbol(node.layer) not in ("pad", "compat.v1.pad"):
        return None
    call = node.call.node
    options = pad_options(node.layer, call.call_args, call.call_kwargs)
    value = as_number(options.get("constant_values", 0))
    if value is None or value > LOW or not is_constant(options["paddings"]):
        return None
    readers = graph.consumers(node.outputs[0])
    if not readers or node.outputs[0] in graph.outputs:
        return None
    pads, shape = np.asarray(options["paddings"]), node.call.reads[0].shape
    return _copying(pads, np.min([_window(r, len(pads)) for r in readers], axis=0), shape)


def _copying(paddings: np.ndarray, window: np.ndarray, shape: Any) -> str | None:
    """Return the mode of a pad whose copies a window finds inside of itself, None for none.

    Args:
        paddings: how many are in front and behind, on each axis.
        window: its size on each axis.
        shape: of what is padded.
    """
    pads = paddings.max(axis=-1)
    room = (window - 2 * pads)[pads > 0]
    is_small = [p and n is not None and p >= n for p, n in zip(pads, shape, strict=True)]
    if np.any(room < 0) or any(is_small):
        return None
    return "REFLECT" if np.all(room > 0) else "SYMMETRIC"


def max_pool(input, ksize, strides, padding, data_format=None, name=None):  # as TensorFlow names it
    """Return a max pool with numbers of paddings as one without, of copies of the edges."""
    del name
    rank = input.shape.rank
    if isinstance(padding, str) or np.shape(padding) != (rank, 2) or _is_first(data_format):
        return None
    mode = _copying(np.asarray(padding), _spread(ksize, rank), input.shape)
    if mode is None:
        return None
    return tf.nn.max_pool2d(tf.pad(input, padding, mode=mode), ksize, strides, "VALID")


def _window(node: GraphNode, rank: int) -> np.ndarray:
    """Return the window of a max pool without padding on each axis, ones for anything else."""
    layer, call = node.layer, node.call.node
    if type(layer) in POOLS:
        size, padding, data_format = layer.pool_size, layer.padding, layer.data_format
    elif keras_compat.op_symbol(layer) in POOL_OPS:
        names = ("input", "ksize", "strides", "padding", "data_format")
        options = dict(zip(names, call.call_args, strict=False)) | dict(call.call_kwargs)
        size, padding = options["ksize"], options.get("padding")
        data_format = options.get("data_format")
    else:
        return np.ones(rank, np.int64)
    if str(padding).upper() != "VALID" or _is_first(data_format):
        return np.ones(rank, np.int64)
    return _spread(size, rank)


def _spread(size: Any, rank: int) -> np.ndarray:
    """Return a window, given as one number, one for each direction or for each axis, by axis."""
    size, window = np.ravel(size), np.ones(rank, np.int64)
    window[1:-1] = size[1:-1] if len(size) == rank else size
    return window


def _is_first(data_format: Any) -> bool:
    return str(data_format or "").upper().startswith(("CHANNELS_FIRST", "NC"))
