"""Kernels of LiteRT that round their sums twice, where XNNPACK leaves them the work."""

from __future__ import annotations

from keras_edgeq.graph.layer_graph import GraphNode
from keras_edgeq.ops import matrix_form
from keras_edgeq.ops.matrix_form import ConvolutionForm, DepthwiseForm, TransposedForm
from keras_edgeq.profiles.precision import Precision
from keras_edgeq.profiles.target_profile import TargetProfile


def double_rounding(node: GraphNode, precision: Precision, profile: TargetProfile) -> str | None:
    """Return how the sums of an int4 convolution are rounded, None where it is once.

    In a file of int8 weights XNNPACK takes the convolution and rounds once.

    Args:
        node: a call in integers.
        precision: its own.
        profile: the target.
    """
    form = matrix_form(node.layer)
    assert precision.activation is not None  # integer
    bits = 16 if precision.weight is None else precision.weight.bits
    is_convolution = isinstance(form, ConvolutionForm) and not isinstance(form, TransposedForm)
    is_narrow = bits <= 4 and precision.activation.bits <= 8
    if not (for_litert(profile) and is_convolution and is_narrow):
        return None
    own = "twice_lanes" if isinstance(form, DepthwiseForm) else "twice"
    return "twice_away" if getattr(node.layer, "groups", 1) > 1 else own


def for_litert(profile: TargetProfile) -> bool:
    """Tell whether XNNPACK's arithmetic is wanted, and LiteRT's own where XNNPACK has none."""
    return "tflite" in profile.formats and profile.arithmetic == "xnnpack_float"
