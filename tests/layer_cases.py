"""A small use of each public layer of `tf_keras.layers`, and of operations as users write them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

L = tf_keras.layers
IMAGE, SIGNAL, VECTOR, VOLUME = (8, 8, 4), (8, 4), (6,), (4, 4, 4, 2)
RNG = np.random.default_rng(0)


@dataclass(frozen=True)
class Case:
    """A layer or operation between two layers with weights.

    Args:
        apply: takes a symbolic tensor, returns another.
        shape: of the model's input, without the batch.
        dtype: of the model's input. Other than float32: nothing stands in front, and samples are
            whole numbers below 8, or words.
        front: whether a layer with weights stands in front.
    """

    apply: Callable[[Any], Any]
    shape: tuple[int, ...] = IMAGE
    dtype: str = "float32"
    front: bool = True


def _layer(kind: type, shape: tuple[int, ...] = IMAGE, *args: Any, **options: Any) -> Case:
    return Case(lambda x: kind(*args, **options)(x), shape)


def _pair(kind: type, shape: tuple[int, ...] = IMAGE, **options: Any) -> Case:
    """Return a case of what joins two tensors."""
    return Case(lambda x: kind(**options)([x, L.ReLU()(x)]), shape)


def _ids(apply: Callable[[Any], Any], dtype: str = "int32", shape: tuple[int, ...] = (5,)) -> Case:
    return Case(apply, shape, dtype, front=False)


def _counted(kind: type, **options: Any) -> Case:
    """Return a case of a layer that makes a vector of whole numbers."""
    return _ids(lambda x: tf.cast(kind(**options)(x), tf.float32))


def _attention(kind: type, **options: Any) -> Case:
    return Case(lambda x: kind(**options)([x, x]), SIGNAL)


def _of_ranks(name: str, ranks: tuple[int, ...], *args: Any) -> dict[str, Case]:
    """Return a case for each number of axes; `name` has `{}` for it."""
    return {name.format(n): _layer(getattr(L, name.format(n)), _RANKS[n], *args) for n in ranks}


_RANKS = {1: SIGNAL, 2: IMAGE, 3: VOLUME}
_RECURRENT = (L.LSTM, L.GRU, L.SimpleRNN)
LAYERS: dict[str, Case] = {
    **_of_ranks("Conv{}D", (1, 2, 3), 3, 2),
    **_of_ranks("SeparableConv{}D", (1, 2), 3, 2),
    **_of_ranks("Conv{}DTranspose", (1, 2, 3), 3, 2),
    **_of_ranks("DepthwiseConv{}D", (1, 2), 3),
    **_of_ranks("LocallyConnected{}D", (1, 2), 3, 2),
    **_of_ranks("MaxPooling{}D", (1, 2, 3)),
    **_of_ranks("AveragePooling{}D", (1, 2, 3)),
    **_of_ranks("GlobalMaxPooling{}D", (1, 2, 3)),
    **_of_ranks("GlobalAveragePooling{}D", (1, 2, 3)),
    **_of_ranks("ZeroPadding{}D", (1, 2, 3)),
    **_of_ranks("Cropping{}D", (1, 2, 3)),
    **_of_ranks("UpSampling{}D", (1, 2, 3)),
    **_of_ranks("SpatialDropout{}D", (1, 2, 3), 0.1),
    "Dense": _layer(L.Dense, VECTOR, 3),
    "EinsumDense": _layer(L.EinsumDense, SIGNAL, "abc,cd->abd", (None, 3), bias_axes="d"),
    "Embedding": _ids(lambda x: L.Embedding(8, 4)(x)),
    "PReLU": _layer(L.PReLU, IMAGE, shared_axes=[1, 2]),
    "ReLU": _layer(L.ReLU),
    "LeakyReLU": _layer(L.LeakyReLU),
    "ThresholdedReLU": _layer(L.ThresholdedReLU),
    "ELU": _layer(L.ELU),
    "Softmax": _layer(L.Softmax),
    "Activation": _layer(L.Activation, IMAGE, "relu"),
    **{name: _pair(getattr(L, name)) for name in ("Add", "Subtract", "Multiply", "Average")},
    **{name: _pair(getattr(L, name)) for name in ("Maximum", "Minimum", "Concatenate")},
    "Dot": _pair(L.Dot, VECTOR, axes=1),
    "Reshape": _layer(L.Reshape, IMAGE, (16, 16)),
    "Flatten": _layer(L.Flatten),
    "Permute": _layer(L.Permute, IMAGE, (2, 1, 3)),
    "RepeatVector": _layer(L.RepeatVector, VECTOR, 3),
    "BatchNormalization": _layer(L.BatchNormalization),
    "LayerNormalization": _layer(L.LayerNormalization),
    "GroupNormalization": _layer(L.GroupNormalization, IMAGE, 2),
    "UnitNormalization": _layer(L.UnitNormalization),
    "Normalization": _layer(L.Normalization, IMAGE, mean=0.5, variance=2.0),
    "Rescaling": _layer(L.Rescaling, IMAGE, 0.5, 0.1),
    "Resizing": _layer(L.Resizing, IMAGE, 4, 4),
    "CenterCrop": _layer(L.CenterCrop, IMAGE, 4, 4),
    "Dropout": _layer(L.Dropout, IMAGE, 0.1),
    "GaussianDropout": _layer(L.GaussianDropout, IMAGE, 0.1),
    "AlphaDropout": _layer(L.AlphaDropout, IMAGE, 0.1),
    "GaussianNoise": _layer(L.GaussianNoise, IMAGE, 0.1),
    "ActivityRegularization": _layer(L.ActivityRegularization, IMAGE, l2=0.01),
    "Identity": _layer(L.Identity),
    **{
        name: _layer(getattr(L, name), IMAGE, *given)
        for name, given in {
            "RandomBrightness": (0.1,), "RandomFlip": (),
            "RandomRotation": (0.1,), "RandomTranslation": (0.1, 0.1), "RandomZoom": (0.1,),
            "RandomCrop": (4, 4),
        }.items()
    },
    "RandomHeight": Case(lambda x: L.GlobalAveragePooling2D()(L.RandomHeight(0.1)(x))),
    "RandomWidth": Case(lambda x: L.GlobalAveragePooling2D()(L.RandomWidth(0.1)(x))),
    # TensorFlow has no gradient of a contrast.
    "RandomContrast": Case(L.RandomContrast(0.1), front=False),
    "MultiHeadAttention": Case(lambda x: L.MultiHeadAttention(2, 2)(x, x), SIGNAL),
    "Attention": _attention(L.Attention),
    "AdditiveAttention": _attention(L.AdditiveAttention),
    **{kind.__name__: _layer(kind, SIGNAL, 3) for kind in _RECURRENT},
    "Bidirectional": Case(lambda x: L.Bidirectional(L.LSTM(3))(x), SIGNAL),
    "RNN": Case(lambda x: L.RNN(L.GRUCell(3))(x), SIGNAL),
    "StackedRNNCells": Case(lambda x: L.RNN(L.StackedRNNCells([L.LSTMCell(3)]))(x), SIGNAL),
    "ConvLSTM1D": _layer(L.ConvLSTM1D, (2, 8, 2), 2, 2),
    "ConvLSTM2D": _layer(L.ConvLSTM2D, (2, 4, 4, 2), 2, 2),
    "ConvLSTM3D": Case(lambda x: L.ConvLSTM3D(2, 2)(x), (2, 4, 4, 4, 2), front=False),
    "TimeDistributed": Case(lambda x: L.TimeDistributed(L.Dense(3))(x), SIGNAL),
    "Masking": Case(lambda x: L.LSTM(3)(L.Masking()(x)), SIGNAL, front=False),
    "Lambda": Case(lambda x: L.Lambda(lambda y: y * 2.0)(x)),
    "CategoryEncoding": _ids(lambda x: L.CategoryEncoding(8, output_mode="multi_hot")(x)),
    "Discretization": Case(
        lambda x: L.Embedding(3, 4)(L.Discretization([-0.5, 0.5])(x)), VECTOR, front=False
    ),
    "IntegerLookup": _counted(L.IntegerLookup, vocabulary=[1, 2, 3]),
    "Hashing": _counted(L.Hashing, num_bins=8),
    "StringLookup": _ids(
        lambda x: tf.cast(L.StringLookup(vocabulary=["a", "b"])(x), tf.float32), "string"
    ),
    "TextVectorization": _ids(
        lambda x: tf.cast(
            L.TextVectorization(vocabulary=["a", "b"], output_sequence_length=4)(x), tf.float32
        ),
        "string",
        (1,),
    ),
    "HashedCrossing": _ids(
        lambda x: tf.cast(L.HashedCrossing(8)((x[:, :1], x[:, 1:2])), tf.float32)
    ),
}  # fmt: skip
# Public names that are no layer of a graph of their own, and why.
OTHERS = {
    "Layer": "a base class", "Wrapper": "a base class", "AbstractRNNCell": "a base class",
    "InputLayer": "the input of every model", "InputSpec": "no layer",
    "LSTMCell": "inside of RNN", "GRUCell": "inside of RNN", "SimpleRNNCell": "inside of RNN",
    "SpectralNormalization": "tf_keras 2.21 itself cannot call it",
    "DenseFeatures": "reads feature columns, which tf_keras no longer documents",
}  # fmt: skip

_KERNEL = tf.constant(RNG.normal(size=(2, 2, 4, 3)), tf.float32)
_DEPTHWISE = tf.constant(RNG.normal(size=(2, 2, 4, 1)), tf.float32)
_MATRIX = tf.constant(RNG.normal(size=(4, 3)), tf.float32)
_ONE_PIXEL = [[0, 0], [1, 1], [1, 1], [0, 0]]
_ROW = tf.constant(RNG.normal(size=(4,)), tf.float32)


def _op(apply: Callable[[Any], Any], shape: tuple[int, ...] = IMAGE) -> Case:
    return Case(apply, shape)


OPERATIONS: dict[str, Case] = {
    "x + 0.5": _op(lambda x: x + 0.5),
    "1.5 - x": _op(lambda x: 1.5 - x),
    "x * 0.5": _op(lambda x: x * 0.5),
    "x / 4": _op(lambda x: x / 4.0),
    "x + constant per channel": _op(lambda x: x + _ROW),
    "x * constant per channel": _op(lambda x: x * _ROW),
    "-x": _op(lambda x: -x),
    "x + y": _op(lambda x: x + tf.nn.relu(x)),
    "x - y": _op(lambda x: x - tf.nn.relu(x)),
    "x * y": _op(lambda x: x * tf.nn.relu(x)),
    "x / y": _op(lambda x: x / (tf.nn.relu(x) + 1.0)),
    "x ** 2": _op(lambda x: x**2),
    "tf.abs": _op(tf.abs),
    "tf.square": _op(tf.square),
    "tf.sqrt": _op(lambda x: tf.sqrt(tf.nn.relu(x) + 0.1)),
    "tf.math.rsqrt": _op(lambda x: tf.math.rsqrt(tf.nn.relu(x) + 1.0)),
    "x / root of its mean square": _op(
        lambda x: x * tf.math.rsqrt(tf.reduce_mean(x * x, -1, keepdims=True) + 0.01)
    ),
    "tf.exp": _op(tf.exp),
    "tf.math.log": _op(lambda x: tf.math.log(tf.nn.relu(x) + 1.0)),
    "tf.pow": _op(lambda x: tf.pow(x, 3.0)),
    "tf.add_n": _op(lambda x: tf.add_n([x, tf.nn.relu(x), tf.tanh(x)])),
    "tf.maximum": _op(lambda x: tf.maximum(x, tf.tanh(x))),
    "tf.minimum": _op(lambda x: tf.minimum(x, tf.tanh(x))),
    "tf.maximum(x, 0.1)": _op(lambda x: tf.maximum(x, 0.1)),
    "tf.clip_by_value": _op(lambda x: tf.clip_by_value(x, -0.5, 0.5)),
    "tf.math.squared_difference": _op(lambda x: tf.math.squared_difference(x, tf.nn.relu(x))),
    "tf.nn.bias_add": _op(lambda x: tf.nn.bias_add(x, _ROW)),
    "tf.nn.conv2d": _op(lambda x: tf.nn.conv2d(x, _KERNEL, 1, "SAME")),
    "tf.nn.depthwise_conv2d": _op(
        lambda x: tf.nn.depthwise_conv2d(x, _DEPTHWISE, [1, 1, 1, 1], "SAME")
    ),
    "tf.matmul(x, constant)": _op(lambda x: tf.matmul(x, _MATRIX), SIGNAL),
    "tf.matmul(x, y)": _op(lambda x: tf.matmul(x, tf.nn.relu(x), transpose_b=True), SIGNAL),
    "tf.einsum(x, constant)": _op(lambda x: tf.einsum("abc,cd->abd", x, _MATRIX), SIGNAL),
    "tf.einsum(x, y)": _op(lambda x: tf.einsum("abc,adc->abd", x, tf.nn.relu(x)), SIGNAL),
    "tf.tensordot": _op(lambda x: tf.tensordot(x, _MATRIX, 1), SIGNAL),
    "tf.reduce_mean": _op(lambda x: tf.reduce_mean(x, [1, 2])),
    "tf.reduce_sum": _op(lambda x: tf.reduce_sum(x, [1, 2])),
    "tf.reduce_max": _op(lambda x: tf.reduce_max(x, [1, 2])),
    "tf.reduce_min": _op(lambda x: tf.reduce_min(x, [1, 2])),
    "tf.reshape": _op(lambda x: tf.reshape(x, [-1, 32, 8])),
    "tf.transpose": _op(lambda x: tf.transpose(x, [0, 2, 1, 3])),
    "tf.expand_dims": _op(lambda x: tf.expand_dims(x, 1), SIGNAL),
    "tf.squeeze": _op(lambda x: tf.squeeze(x[:, :1], 1)),
    "tf.concat": _op(lambda x: tf.concat([x, tf.nn.relu(x)], -1)),
    "tf.stack": _op(lambda x: tf.stack([x, tf.nn.relu(x)], 1), SIGNAL),
    "tf.unstack": _op(lambda x: tf.unstack(x, axis=1)[2]),
    "tf.split": _op(lambda x: tf.split(x, 2, -1)[1]),
    "x[:, 1:5]": _op(lambda x: x[:, 1:5]),
    "tf.gather": _op(lambda x: tf.gather(x, [3, 0, 1], axis=1)),
    "tf.tile": _op(lambda x: tf.tile(x, [1, 1, 1, 2])),
    "tf.repeat": _op(lambda x: tf.repeat(x, 2, axis=1)),
    "tf.roll": _op(lambda x: tf.roll(x, 1, axis=1)),
    "tf.reverse": _op(lambda x: tf.reverse(x, [1])),
    "tf.pad": _op(lambda x: tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])),
    "tf.pad reflect": _op(lambda x: tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], "REFLECT")),
    "tf.pad -inf, then a max pool": _op(
        lambda x: L.MaxPooling2D(3, 2)(tf.pad(x, _ONE_PIXEL, constant_values=-np.inf))
    ),
    "tf.nn.max_pool2d with numbers of paddings": _op(
        lambda x: tf.nn.max_pool2d(x, 3, 2, _ONE_PIXEL)
    ),
    "tf.nn.depth_to_space": _op(lambda x: tf.nn.depth_to_space(x, 2)),
    "tf.nn.space_to_depth": _op(lambda x: tf.nn.space_to_depth(x, 2)),
    "tf.image.resize": _op(lambda x: tf.image.resize(x, [4, 4])),
    "tf.image.resize bicubic": _op(lambda x: tf.image.resize(x, [4, 4], "bicubic")),
    "tf.nn.max_pool2d": _op(lambda x: tf.nn.max_pool2d(x, 2, 2, "SAME")),
    "tf.nn.avg_pool2d": _op(lambda x: tf.nn.avg_pool2d(x, 2, 2, "SAME")),
    "tf.cast": _op(lambda x: tf.cast(x, tf.float32)),
    "tf.stop_gradient": _op(tf.stop_gradient),
    "tf.where": _op(lambda x: tf.where(x > 0.0, x, tf.tanh(x))),
    "tf.argmax": _op(lambda x: tf.one_hot(tf.argmax(x, -1), 6), VECTOR),
    "tf.nn.l2_normalize": _op(lambda x: tf.nn.l2_normalize(x, -1)),
    **{
        f"tf.nn.{name}": _op(getattr(tf.nn, name))
        for name in (
            *("relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "sigmoid", "tanh"),
            *("softmax", "softplus", "softsign"),
        )
    },
    "tf.nn.gelu approximate": _op(lambda x: tf.nn.gelu(x, approximate=True)),
    "activation mish": _op(L.Activation("mish")),
    "activation hard_sigmoid": _op(L.Activation("hard_sigmoid")),
    "activation exponential": _op(L.Activation("exponential")),
    "hard swish": _op(lambda x: x * tf.nn.relu6(x + 3.0) / 6.0),
    "ReLU with a slope and a cap": _op(L.ReLU(1.0, negative_slope=0.1)),
    "ReLU with a threshold": _op(L.ReLU(threshold=0.5)),
    "tf.math.reciprocal": _op(lambda x: tf.math.reciprocal(tf.nn.relu(x) + 1.0)),
    "tf.math.log1p": _op(lambda x: tf.math.log1p(tf.nn.relu(x))),
    "tf.math.expm1": _op(tf.math.expm1),
    "tf.math.erf": _op(tf.math.erf),
    "tf.sin": _op(tf.sin),
}  # fmt: skip
CASES = LAYERS | OPERATIONS
