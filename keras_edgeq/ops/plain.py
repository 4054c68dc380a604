"""Rows of operations without weights: activations, arithmetic, pools, moves, and what does nothing.

Layers whose options decide what they are stand in `options`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tf_keras

from keras_edgeq.ops.freezable_batch_norm import FreezableBatchNorm
from keras_edgeq.ops.inverse import Inverse, InverseRoot
from keras_edgeq.ops.op import Op, Operands
from keras_edgeq.ops.rms_normalization import RmsNormalization

L = tf_keras.layers
# Layers that pass on what they read at inference. RandomCrop takes the middle then.
AUGMENTATIONS = (
    *(L.RandomBrightness, L.RandomContrast, L.RandomFlip, L.RandomHeight),
    *(L.RandomRotation, L.RandomTranslation, L.RandomWidth, L.RandomZoom),
)
# Of what is nothing at inference: what computes in real units while a model trains.
TRAINS_IN_REAL_UNITS = (*AUGMENTATIONS, L.GaussianNoise, L.AlphaDropout)
DROPOUTS = (
    *(L.Dropout, L.SpatialDropout1D, L.SpatialDropout2D, L.SpatialDropout3D),
    *(L.GaussianNoise, L.GaussianDropout, L.AlphaDropout, L.ActivityRegularization),
)


def activation(name: str, *, functions: tuple[str, ...] = (), **facts: Any) -> Op:
    """Return a row of a function that is the same for all elements."""
    return Op(name=name, functions=functions, spread="each", activates=True, **facts)


def _each(name: str, **facts: Any) -> Op:
    return Op(name=name, spread="each", **facts)


def _pool(name: str, **facts: Any) -> Op:
    """Return a row of what makes one number of several, channel by channel.

    It keeps its input's distribution: right for its bounds and for the mean of an average, too wide
    for the variance. Pixels are not independent: with the variance divided by the root of their
    number, the logits of MobileNetV1 behind such a mean keep the top class of 50 % of the images
    instead of 94 %.
    """
    return Op(name=name, scale="pools", spread="keeps", stays_in_range=True, **facts)


def _move(name: str, **facts: Any) -> Op:
    return Op(name=name, scale="moves", spread="moves", stays_in_range=True, **facts)


IDENTITY = Op(
    name="Identity",
    classes=(*DROPOUTS, *AUGMENTATIONS),
    symbols=("identity", "stop_gradient"),
    functions=("linear",),
    transparent=True,
    scale="passes",
    shifts=True,
    spread="keeps",
    stays_in_range=True,
)
INPUT = Op(name="Input", classes=(L.InputLayer,), transparent=True)
BATCH_NORM = Op(name="BatchNorm", classes=(L.BatchNormalization, FreezableBatchNorm))
SOFTMAX = Op(name="Softmax", functions=("softmax",), symbols=("nn.softmax",), spread="shares")
RELU = activation(
    "Relu",
    functions=("relu",),
    symbols=("nn.relu",),
    scale="passes",
    rectifies=True,
    stays_in_range=True,
)
RELU6 = activation(
    "Relu6",
    functions=("relu6",),
    symbols=("nn.relu6",),
    scale="caps",
    rectifies=True,
    bounds=(0.0, 6.0),
    stays_in_range=True,
)
# Not monotonous, so that a distribution is not known by its ends and quantiles.
SWISH = Op(name="Swish", functions=("swish", "silu"), symbols=("nn.silu",), activates=True)
CAPPED_RELU = activation("CappedRelu", scale="caps", rectifies=True)
CLIP = activation("Clip", symbols=("clip_by_value",))
LEAKY_RELU = activation(
    "LeakyRelu",
    classes=(L.LeakyReLU,),
    functions=("leaky_relu",),
    symbols=("nn.leaky_relu",),
    scale="passes",
)
ADD = Op(
    name="Add",
    classes=(L.Add,),
    symbols=("__operators__.add", "math.add"),
    scale="joins",
    spread="each",
    combine=np.add,
    affine=lambda c, _: (np.ones_like(c), c),
    operands=Operands(2, scalars=True),
)
SUB = Op(
    name="Sub",
    classes=(L.Subtract,),
    symbols=("math.subtract",),
    scale="joins",
    spread="each",
    combine=np.subtract,
    affine=lambda c, second: (np.ones_like(c), -c) if second else (-np.ones_like(c), c),
    operands=Operands(2, scalars=True),
)
MUL = Op(
    name="Mul",
    classes=(L.Multiply,),
    symbols=("math.multiply",),
    spread="each",
    combine=np.multiply,
    affine=lambda c, _: (c, np.zeros_like(c)),
    operands=Operands(2, scalars=True),
)
DIV = _each(
    "Div",
    symbols=("math.truediv", "math.divide"),
    affine=lambda c, second: (1.0 / c, np.zeros_like(c)) if second else None,
    singular=True,
)
ARITHMETIC = (
    ADD,
    SUB,
    MUL,
    DIV,
    _each("Average", classes=(L.Average,), scale="joins"),
    _each(
        "Maximum",
        classes=(L.Maximum,),
        symbols=("math.maximum",),
        scale="joins",
        stays_in_range=True,
        operands=Operands(2),
    ),
    _each(
        "Minimum",
        classes=(L.Minimum,),
        symbols=("math.minimum",),
        scale="joins",
        stays_in_range=True,
        operands=Operands(2),
    ),
    _each("Rescaling", classes=(L.Rescaling,)),
    _each("Normalization", classes=(L.Normalization,)),
    _each("tf.cast", symbols=("cast",)),
    _each("Abs", symbols=("math.abs",)),
)
ACTIVATIONS = (
    RELU,
    RELU6,
    CAPPED_RELU,
    activation("CappedLeakyRelu", scale="caps"),
    CLIP,
    LEAKY_RELU,
    activation("ThresholdedRelu", classes=(L.ThresholdedReLU,)),
    activation(
        "Sigmoid",
        functions=("sigmoid",),
        symbols=("math.sigmoid", "nn.sigmoid"),
        bounds=(0.0, 1.0),
    ),
    activation("Tanh", functions=("tanh",), symbols=("math.tanh", "nn.tanh"), bounds=(-1.0, 1.0)),
    SWISH,
    SOFTMAX,
)
RESIZE = _pool("Resize", symbols=("image.resize",))
POOLS = (
    _pool(
        "MaxPool",
        classes=(L.MaxPooling1D, L.MaxPooling2D),
        symbols=("nn.max_pool", "nn.max_pool2d"),
        shifts=True,
    ),
    _pool(
        "AveragePool",
        classes=(L.AveragePooling1D, L.AveragePooling2D),
        symbols=("nn.avg_pool", "nn.avg_pool2d"),
        shifts=True,
    ),
    _pool("MaxPool3D", classes=(L.MaxPooling3D,), shifts=True),
    _pool("AveragePool3D", classes=(L.AveragePooling3D,), shifts=True),
    _pool(
        "ReduceMax",
        classes=(L.GlobalMaxPooling1D, L.GlobalMaxPooling2D, L.GlobalMaxPooling3D),
        symbols=("math.reduce_max",),
        shifts=True,
    ),
    _pool("ReduceMin", symbols=("math.reduce_min",), shifts=True),
    _pool(
        "Mean",
        classes=(L.GlobalAveragePooling1D, L.GlobalAveragePooling2D, L.GlobalAveragePooling3D),
        symbols=("math.reduce_mean",),
        shifts=True,
    ),
    RESIZE,
    _pool("Repeat", classes=(L.UpSampling1D, L.UpSampling3D)),
)
PAD = _move(
    "Pad",
    classes=(L.ZeroPadding1D, L.ZeroPadding2D, L.ZeroPadding3D),
    symbols=("pad", "compat.v1.pad"),
)
CONCAT = _move(
    "Concat", classes=(L.Concatenate,), symbols=("concat", "stack"), operands=Operands(None)
)
SELECT = Op(
    name="Select",
    symbols=("where",),
    operands=Operands(3, scalars=True, condition=True),
)
GATHER = _move("Gather", symbols=("gather", "compat.v1.gather"))
MOVES = (
    _move(
        "Reshape",
        classes=(L.Reshape, L.Flatten),
        symbols=("reshape", "expand_dims", "squeeze", "compat.v1.squeeze"),
    ),
    _move("Transpose", classes=(L.Permute,), symbols=("transpose", "compat.v1.transpose")),
    _move("Tile", classes=(L.RepeatVector,), symbols=("tile",)),
    _move("BroadcastTo", symbols=("broadcast_to",)),
    PAD,
    _move(
        "Slice",
        classes=(L.Cropping1D, L.Cropping2D, L.Cropping3D),
        symbols=("__operators__.getitem", "strided_slice", "slice"),
    ),
    _move("Split", symbols=("split", "unstack")),
    GATHER,
    _move("DepthToSpace", symbols=("nn.depth_to_space", "compat.v1.nn.depth_to_space")),
    _move("SpaceToDepth", symbols=("nn.space_to_depth", "compat.v1.nn.space_to_depth")),
    CONCAT,
    SELECT,
)
NORMALIZATIONS = (
    Op(name="LayerNormalization", classes=(L.LayerNormalization,), spread="normal"),
    Op(name="GroupNormalization", classes=(L.GroupNormalization,)),
    Op(name="UnitNormalization", classes=(L.UnitNormalization,), bounds=(-1.0, 1.0)),
    Op(name="RmsNormalization", classes=(RmsNormalization,)),
)
INVERSE = Op(name="Inverse", classes=(Inverse,))
INVERSE_ROOT = Op(name="InverseRoot", classes=(InverseRoot,))
OTHERS = (
    INPUT,
    BATCH_NORM,
    *NORMALIZATIONS,
    INVERSE,
    INVERSE_ROOT,
    # Those that are not written out step by step.
    *(
        Op(name=kind.__name__, classes=(kind,), macs="steps")
        for kind in (L.LSTM, L.GRU, L.SimpleRNN, L.RNN, L.Bidirectional)
    ),
    *(
        Op(name=kind.__name__, classes=(kind,), reads_ids=True)
        for kind in (
            *(L.CategoryEncoding, L.IntegerLookup, L.StringLookup, L.Hashing, L.HashedCrossing),
        )
    ),
)
ROWS = (IDENTITY, *ARITHMETIC, *ACTIVATIONS, *POOLS, *MOVES, *OTHERS)
