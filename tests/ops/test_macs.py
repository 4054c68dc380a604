"""Multiplications are counted as written out by hand, and as NumPy counts them."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from keras_edgeq.errors import UnsupportedModelError
from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.ops.macs import elements, macs

L = tf_keras.layers

# layer, input shape, positions x kernel elements
BY_HAND = {
    "Conv1D": (L.Conv1D(4, 3, padding="causal", dilation_rate=2), (12, 3), 12 * 3 * 3 * 4),
    "Conv2D": (L.Conv2D(4, 3, strides=2, padding="same"), (9, 8, 3), 5 * 4 * 9 * 3 * 4),
    "valid": (L.Conv2D(4, (3, 2)), (9, 8, 3), 7 * 7 * 6 * 3 * 4),
    "grouped": (L.Conv2D(6, 3, groups=2), (6, 6, 4), 4 * 4 * 9 * 2 * 6),
    "Conv3D": (L.Conv3D(3, 2), (4, 5, 6, 2), 3 * 4 * 5 * 8 * 2 * 3),
    "depthwise": (L.DepthwiseConv2D(3, depth_multiplier=2), (6, 6, 3), 4 * 4 * 9 * 3 * 2),
    "depthwise1d": (L.DepthwiseConv1D(3, padding="same"), (9, 3), 9 * 3 * 3),
    "transposed": (L.Conv2DTranspose(4, 3, strides=2), (4, 5, 3), 4 * 5 * 9 * 3 * 4),
    "transposed1d": (L.Conv1DTranspose(4, 3, strides=2), (5, 3), 5 * 3 * 3 * 4),
    "first": (L.Conv2DTranspose(4, 3, data_format="channels_first"), (3, 4, 5), 20 * 9 * 3 * 4),
    "Dense": (L.Dense(4), (6,), 24),
    "dense_rank3": (L.Dense(4), (5, 6), 5 * 24),
    "einsum": (L.EinsumDense("abc,cd->abd", (None, 4)), (5, 6), 5 * 24),
    "heads": (L.EinsumDense("...d,dnh->...nh", (2, 3)), (5, 6), 5 * 6 * 2 * 3),
    "joins": (L.EinsumDense("abnh,nhd->abd", (None, 7)), (5, 2, 3), 5 * 2 * 3 * 7),
    "lstm": (L.LSTM(4), (5, 3), 5 * (3 + 4) * 16),
    "gru": (L.GRU(4), (5, 3), 5 * (3 + 4) * 12),
    "both ways": (L.Bidirectional(L.SimpleRNN(4)), (5, 3), 2 * 5 * (3 + 4) * 4),
    "pooling": (L.MaxPooling2D(), (4, 4, 2), 0),
    "prelu": (L.PReLU(), (4, 2), 0),
}


def counted(layer, shape):
    x = tf_keras.Input(shape)
    graph = LayerGraph.of(tf_keras.Model(x, layer(x)))
    return macs(graph, graph.nodes[-1])


@pytest.mark.parametrize("name", BY_HAND)
def test_a_layer_is_counted_as_by_hand(name):
    layer, shape, expected = BY_HAND[name]
    assert counted(layer, shape) == expected


@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_does_as_many_as_a_loop_over_its_positions(stride):
    image, kernel, done = np.zeros((7, 6, 3)), np.zeros((3, 2, 3, 4)), 0
    for row in range(0, 7 - 3 + 1, stride):
        for column in range(0, 6 - 2 + 1, stride):
            window = image[row : row + 3, column : column + 2]
            done += (window[..., None] * kernel).size
    assert counted(L.Conv2D(4, (3, 2), strides=stride), (7, 6, 3)) == done


def test_an_embedding_multiplies_nothing():
    x = tf_keras.Input((7,), dtype="int32")
    graph = LayerGraph.of(tf_keras.Model(x, L.Embedding(10, 6)(x)))
    assert macs(graph, graph.nodes[-1]) == 0


@pytest.mark.parametrize(("turned", "shape"), [(False, (2, 5, 6)), (True, (2, 6, 5))])
def test_a_product_of_activations_sums_over_the_inner_axis(turned, shape):
    a, b = tf_keras.Input(shape), tf_keras.Input((2, 6, 7))
    graph = LayerGraph.of(tf_keras.Model([a, b], tf.linalg.matmul(a, b, transpose_a=turned)))
    assert macs(graph, graph.nodes[-1]) == 2 * 5 * 6 * 7


def test_every_call_of_a_layer_is_counted_with_its_own_size():
    a, b = tf_keras.Input((6, 6, 2)), tf_keras.Input((8, 8, 2))
    conv = L.Conv2D(4, 3, name="conv")
    graph = LayerGraph.of(tf_keras.Model([a, b], [conv(a), conv(b)]))
    found = [macs(graph, node) for node in graph.nodes if node.layer is conv]
    assert found == [16 * 72, 36 * 72]
    assert [elements(node) for node in graph.nodes if node.layer is conv] == [64, 144]


def test_an_unknown_size_is_an_error_that_names_the_layer():
    x = tf_keras.Input((None, None, 2))
    graph = LayerGraph.of(tf_keras.Model(x, L.Conv2D(4, 3, name="stem")(x)))
    with pytest.raises(UnsupportedModelError, match=r"'stem' works on unknown sizes \(None, None"):
        macs(graph, graph.nodes[-1])
    with pytest.raises(UnsupportedModelError, match="fixed sizes"):
        elements(graph.nodes[-1])
