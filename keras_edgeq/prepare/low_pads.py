"""Pads in front of max pools that no maximum takes, as copies of what is beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
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
FIRST = ("CHANNELS_FIRST", "NCW", "NCHW", "NCDHW", "NCHW_VECT_C")
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
    pads = np.max(np.asarray(options["paddings"]), axis=-1)
    sizes, readers = node.call.reads[0].shape, graph.consumers(node.outputs[0])
    fits = all(not p or n is None or p < n for p, n in zip(pads, sizes, strict=True))
    if not readers or not fits or node.outputs[0] in graph.outputs:
        return None
    room = np.min([_window(reader, len(pads)) for reader in readers], axis=0) - 2 * pads
    inner = room[pads > 0]
    if np.any(inner < 0):
        return None
    return "REFLECT" if np.all(inner > 0) else "SYMMETRIC"


def _window(node: GraphNode, rank: int) -> np.ndarray:
    """Return the window of a max pool without padding on each axis, ones for anything else."""
    layer, call, window = node.layer, node.call.node, np.ones(rank, np.int64)
    if type(layer) in POOLS:
        size, padding, data_format = layer.pool_size, layer.padding, layer.data_format
    elif keras_compat.op_symbol(layer) in POOL_OPS:
        names = ("input", "ksize", "strides", "padding", "data_format")
        options = dict(zip(names, call.call_args, strict=False)) | dict(call.call_kwargs)
        size, padding = options["ksize"], options.get("padding")
        data_format = options.get("data_format") or "N"
    else:
        return window
    if str(padding).upper() != "VALID" or str(data_format).upper() in FIRST:
        return window
    size = np.ravel(size)
    window[1:-1] = size[1:-1] if len(size) == rank else size
    return window
