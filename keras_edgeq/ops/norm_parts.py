"""Which operations normalization is made of."""

from __future__ import annotations

from collections.abc import Mapping

from keras_edgeq.ops import plain
from keras_edgeq.ops.plain import CLIP, INVERSE, INVERSE_ROOT, NORMALIZATIONS

ADD, SUB, MUL, DIV = (op.name for op in (plain.ADD, plain.SUB, plain.MUL, plain.DIV))
MEAN = "Mean"
ABS, REDUCE_MAX, RSQRT = "Abs", "ReduceMax", "Rsqrt"
# Layers that are one.
WHOLE = frozenset(op.name for op in NORMALIZATIONS)
# What makes the number that a normalization multiplies by.
INVERSE_ROOTS = (RSQRT, INVERSE_ROOT.name)
# What it is written with where it computes in integers.
WRITTEN_WITH = (ABS, MEAN, MUL, REDUCE_MAX, SUB)
# What only moves what a gain reads.
MOVES = ("Reshape", "Transpose")
# Operation -> what may stand in front of it in a normalization: the inverse root of a mean, with
# epsilon, of the square of a difference from the mean, which was multiplied by a factor.
BEFORE: Mapping[str, tuple[str, ...]] = {
    RSQRT: (ADD, MEAN, MUL),
    INVERSE_ROOT.name: (MEAN, INVERSE.name),
    INVERSE.name: (REDUCE_MAX,),
    REDUCE_MAX: (ABS,),
    ABS: (SUB,),
    ADD: (MEAN, MUL),
    MEAN: (MUL,),
    MUL: (SUB, MUL, INVERSE.name),
    SUB: (MEAN,),
}
SQRT, RECIPROCAL = "Sqrt", "Reciprocal"
# Operations without a row by which written normalization is found.
POWER = "tf.math.pow"
VARIANCE, DEVIATION = "tf.math.reduce_variance", "tf.math.reduce_std"
NORM, UNIT = "tf.compat.v1.norm", "tf.math.l2_normalize"
BOUND = CLIP.name
