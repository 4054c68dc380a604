"""Average pools over the whole image as means, which keep a grid of their own."""

from __future__ import annotations

import tf_keras

from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.graph.rebuild import Edits

L = tf_keras.layers
GLOBAL = {
    L.AveragePooling1D: L.GlobalAveragePooling1D,
    L.AveragePooling2D: L.GlobalAveragePooling2D,
    L.AveragePooling3D: L.GlobalAveragePooling3D,
}


def mean_edits(graph: LayerGraph) -> Edits:
    """Return the average pools that cover their whole input as global ones.

    The function is the same. A pooling kernel rounds onto its input's grid, whose range is that of
    the largest pixel; a mean kernel has an output grid of its own, two or three bits finer there.
    """
    nodes = [node for node in graph.nodes if type(node.layer) in GLOBAL]
    partial = {id(node.layer) for node in nodes if not _covers(node)}
    return {id(n.layer): _mean(n.layer) for n in nodes if id(n.layer) not in partial}


def _mean(layer):
    mean = GLOBAL[type(layer)](keepdims=True, data_format=layer.data_format, name=layer.name)
    if type(layer) is not L.AveragePooling1D:
        return mean
    return lambda x, **_: mean(x, mask=None)  # unlike a pool, it would read the tensor's mask


def _covers(node) -> bool:
    """Tell whether a call makes one pixel, of one window over the whole input."""
    layer, (symbol, *_) = node.layer, node.call.node.keras_inputs
    pool = layer.pool_size if isinstance(layer.pool_size, tuple) else (layer.pool_size,)
    read, made = tuple(symbol.shape[1:-1]), tuple(node.shapes[0][1:-1])
    if layer.data_format != "channels_last" or None in read or set(made) != {1}:
        return False
    # A window that reaches beyond a padded input averages what there is.
    return all(size >= n for size, n in zip(pool, read, strict=True))
