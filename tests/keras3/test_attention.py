"""Attention of Keras 3: its masks count, and layers that tf_keras has not are opened."""

import numpy as np
import pytest

import keras_edgeq as eq
from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.ops import op_type
from keras_edgeq.prepare import prepare

keras = pytest.importorskip("keras", minversion="3.0")
K = keras.layers
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Keras 3 with NumPy 2

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 6, 8)).astype(np.float32)
KEPT = RNG.random((8, 6, 6)) < 0.7
KEPT[..., 0] = True
IDS = np.where(KEPT[:, 0], RNG.integers(1, 9, size=(8, 6)), 0)


def padded():
    ids = keras.Input((6,), dtype="int32")
    x = K.Embedding(9, 8, mask_zero=True)(ids)
    return [ids], K.MultiHeadAttention(2, 4)(x, K.Dense(8)(x)), [IDS]


def masked():
    x, mask = keras.Input((6, 8)), keras.Input((6, 6), dtype="bool")
    made = K.MultiHeadAttention(2, 4)(x, x, attention_mask=mask, use_causal_mask=True)
    return [x, mask], made, [X, KEPT]


def grouped():
    x = keras.Input((6, 8))
    return [x], K.GroupQueryAttention(4, 4, 2)(x, x), [X]


def grouped_and_masked():
    x, mask = keras.Input((6, 8)), keras.Input((6, 6), dtype="bool")
    return [x, mask], K.GroupQueryAttention(4, 2, 2)(x, x, attention_mask=mask), [X, KEPT]


def selected():
    x, mask = keras.Input((6, 8)), keras.Input((6, 8), dtype="bool")
    kept = np.concatenate([KEPT, KEPT[..., :2]], -1)
    return [x, mask], K.Softmax()(K.Dense(8)(x), mask=mask), [X, kept]


@pytest.mark.parametrize("case", [padded, masked, grouped, grouped_and_masked, selected])
def test_attention_of_keras_3_becomes_operations_with_kernels(case):
    inputs, outputs, data = case()
    model = keras.Model(inputs, outputs)
    for weight in model.weights:
        weight.assign(RNG.normal(size=weight.shape) * 0.4)
    prepared = prepare(eq.from_keras3(model))
    wanted = keras.ops.convert_to_numpy(model(data, training=False))
    np.testing.assert_allclose(prepared(data), wanted, atol=1e-5)
    made = {op_type(node.layer) for node in LayerGraph.of(prepared).nodes if node.is_float}
    known = {"Input", "Embedding", "Dense", "EinsumDense", "MatMul", "Mul", "Softmax", "Select",
             "Transpose", "Reshape", "Identity", "Slice", "Gather", "BroadcastTo", "Tile",
             "Repeat"}  # fmt: skip
    assert made <= known
