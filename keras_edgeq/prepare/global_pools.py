"""Average pools over the whole image as means, which keep a grid of their own."""

from __future__ import annotations

import tf_keras

from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.graph.rebuild import rebuild

L = tf_keras.layers
GLOBAL = {
    L.AveragePooling1D: L.GlobalAveragePooling1D,
    L.AveragePooling2D: L.GlobalAveragePooling2D,
    L.AveragePooling3D: L.GlobalAveragePooling3D,
}


def pools_to_means(model: tf_keras.Model) -> tf_keras.Model:
    """Return the model with average pools that cover their whole input as global ones.

    The function is the same. A pooling kernel rounds onto its input's grid, whose range is that of
    the largest pixel; a mean kernel has an output grid of its own, two or three bits finer there.
    """
    nodes = [node for node in LayerGraph.of(model).nodes if type(node.layer) in GLOBAL]
    partial = {id(node.layer) for node in nodes if not _covers(node)}
    replacements = {id(node.layer) for node in nodes} - partial
    if not replacements:
        return model

    def on_layer(layer):
        if id(layer) not in replacements:
            return None
        mean = GLOBAL[type(layer)](keepdims=True, data_format=layer.data_format, name=layer.name)
        if type(layer) is not L.AveragePooling1D:
            return mean
        return lambda x, **_: mean(x, mask=None)  # unlike a pool, it would read the tensor's mask

    return rebuild(model, on_layer)


def _covers(node) -> bool:
    """Tell whether a call makes one pixel, of one window over the whole input."""
    layer, (symbol, *_) = node.layer, node.call.node.keras_inputs
    pool = layer.pool_size if isinstance(layer.pool_size, tuple) else (layer.pool_size,)
    read, made = tuple(symbol.shape[1:-1]), tuple(node.shapes[0][1:-1])
    if layer.data_format != "channels_last" or None in read or set(made) != {1}:
        return False
    # A window that reaches beyond a padded input averages what there is.
    return all(size >= n for size, n in zip(pool, read, strict=True))
