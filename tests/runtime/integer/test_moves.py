"""Operations that move values and compute none give LiteRT's result on int8."""

import numpy as np
import pytest

from keras_edgeq.runtime.integer import IntegerModel
from keras_edgeq.runtime.litert import LiteRtModel
from tests.runtime.integer.files import T, constant, one_op, options

GRID = {"dtype": "int8", "scale": np.float32(0.1), "zero": -3}


def ints(*values):
    return constant(np.array(values, np.int32))


def x(*shape):
    return T(shape, **GRID)


MOVES = {
    "reshape": ("RESHAPE", [x(2, 3, 4), ints(2, 12)], [(2, 12)], None, 1),
    "reshape by options": (
        "RESHAPE",
        [x(2, 3, 4)],
        [(6, 4)],
        options("Reshape", newShape=[6, -1]),
        1,
    ),
    "squeeze": ("SQUEEZE", [x(2, 1, 4)], [(2, 4)], options("Squeeze", squeezeDims=[1]), 1),
    "expand": ("EXPAND_DIMS", [x(2, 3), ints(-1)], [(2, 3, 1)], options("ExpandDims"), 1),
    "transpose": ("TRANSPOSE", [x(2, 3, 4), ints(2, 0, 1)], [(4, 2, 3)], options("Transpose"), 2),
    "concat": (
        "CONCATENATION",
        [x(2, 3), x(2, 5), x(2, 1)],
        [(2, 9)],
        options("Concatenation", axis=-1),
        2,
    ),
    "pack": ("PACK", [x(2, 3), x(2, 3)], [(2, 2, 3)], options("Pack", axis=1, valuesCount=2), 2),
    "unpack": ("UNPACK", [x(2, 3)], [(2,)] * 3, options("Unpack", axis=1, num=3), 2),
    "split": ("SPLIT", [ints(1), x(2, 6)], [(2, 2)] * 3, options("Split", numSplits=3), 2),
    "split sizes": (
        "SPLIT_V",
        [x(2, 6), ints(1, -1, 2), ints(1)],
        [(2, 1), (2, 3), (2, 2)],
        options("SplitV", numSplits=3),
        2,
    ),
    "slice": ("SLICE", [x(4, 5, 3), ints(1, 2, 0), ints(2, -1, 2)], [(2, 3, 2)], None, 2),
    "strided": (
        "STRIDED_SLICE",
        [x(4, 5, 3), ints(0, 4, 1), ints(0, 0, 2), ints(1, -2, 1)],
        [(4, 2)],
        options("StridedSlice", beginMask=1, endMask=1, shrinkAxisMask=4),
        2,
    ),
    "gather": ("GATHER", [x(4, 5), ints(3, 0, 3)], [(4, 3)], options("Gather", axis=1), 2),
    "tile": ("TILE", [x(2, 3), ints(2, 3)], [(4, 9)], options("Tile"), 2),
    "broadcast": ("BROADCAST_TO", [x(2, 1, 3), ints(2, 4, 3)], [(2, 4, 3)], None, 2),
    "pad": (
        "PAD",
        [x(2, 3, 4, 2), constant(np.array([[0, 0], [1, 2], [0, 1], [0, 0]], np.int32))],
        [(2, 6, 5, 2)],
        options("Pad"),
        2,
    ),
    "pad with a value": (
        "PADV2",
        [
            x(2, 3),
            constant(np.array([[1, 0], [0, 2]], np.int32)),
            constant(np.array([7], np.int8), None, GRID["scale"], GRID["zero"]),
        ],
        [(3, 5)],
        options("PadV2"),
        2,
    ),
    "mirror pad": (
        "MIRROR_PAD",
        [x(4, 5), constant(np.array([[2, 1], [0, 3]], np.int32))],
        [(7, 8)],
        options("MirrorPad", mode=0),
        2,
    ),
    "space to depth": (
        "SPACE_TO_DEPTH",
        [x(2, 4, 6, 3)],
        [(2, 2, 3, 12)],
        options("SpaceToDepth", blockSize=2),
        2,
    ),
    "depth to space": (
        "DEPTH_TO_SPACE",
        [x(2, 2, 3, 12)],
        [(2, 4, 6, 3)],
        options("DepthToSpace", blockSize=2),
        2,
    ),
    "space to batch": (
        "SPACE_TO_BATCH_ND",
        [x(2, 4, 5, 3), ints(2, 3), constant(np.array([[0, 0], [1, 0]], np.int32))],
        [(12, 2, 2, 3)],
        options("SpaceToBatchND"),
        2,
    ),
    "batch to space": (
        "BATCH_TO_SPACE_ND",
        [x(12, 2, 2, 3), ints(2, 3), constant(np.array([[0, 0], [1, 0]], np.int32))],
        [(2, 4, 5, 3)],
        options("BatchToSpaceND"),
        2,
    ),
    "maximum": ("MAXIMUM", [x(2, 3), x(2, 3)], [(2, 3)], options("MaximumMinimum"), 2),
    "minimum": ("MINIMUM", [x(2, 3), x(1, 3)], [(2, 3)], options("MaximumMinimum"), 2),
}


@pytest.mark.parametrize(
    ("kernels", "arithmetic"), [("builtin", "fixed_point"), ("xnnpack", "xnnpack_float")]
)
@pytest.mark.parametrize("case", MOVES)
def test_values_are_moved_as_litert_moves_them(case, kernels, arithmetic):
    name, inputs, outputs, opts, version = MOVES[case]
    content = one_op(name, inputs, [T(shape, **GRID) for shape in outputs], opts, version)
    rng = np.random.default_rng(0)
    fed = [rng.integers(-128, 128, t.shape).astype(np.int8) for t in inputs if t.data is None]
    runtime = LiteRtModel(content, kernels)
    theirs = runtime.run(fed, list(runtime.inputs))
    ours = IntegerModel(content, arithmetic).run(fed, list(runtime.inputs))
    for key, value in theirs.items():
        assert ours[key].dtype == value.dtype
        np.testing.assert_array_equal(ours[key], value)
