"""Which calls of a prepared model a target has a kernel for."""

from __future__ import annotations

import tensorflow as tf

from keras_edgeq.graph.keras_compat import KerasNode
from keras_edgeq.graph.layer_graph import GraphNode
from keras_edgeq.ops import op_of, op_type
from keras_edgeq.ops.operands import pads_zero, reads_mask, resampling, takes_constants
from keras_edgeq.ops.plain import PAD, RESIZE
from keras_edgeq.profiles.target_profile import TargetProfile


def why_unsupported(node: GraphNode, profile: TargetProfile) -> str | None:
    """Return why the target has no kernel for a call, None if it has one."""
    op = op_type(node.layer)
    if op_of(node.layer).transparent:
        return "no computation"
    if not node.is_float:
        return "makes integers or booleans, not real numbers"
    if not profile.computes(op):
        return f"{op} has no integer kernel in profile {profile.name!r}"
    if getattr(node.layer, "data_format", "channels_last") == "channels_first":
        return "data_format='channels_first'; integer kernels are channels_last"
    if not takes_constants(node.call.node):
        return f"{op} with a constant operand that its kernel does not take"
    if op == RESIZE.name and resampling(node.call.node) not in ("bilinear", "nearest"):
        return f"resizes by {resampling(node.call.node)!r}, which has no integer kernel"
    if op == PAD.name and not pads_zero(node.call.node):
        return "pads with something else than zeros"
    if reads_mask(node.call.node):
        return f"{op} with a mask has no integer kernel"
    return _why_no_samples(node.call.node)


def _why_no_samples(node: KerasNode) -> str | None:
    """Return what a call reads or makes in place of real numbers of samples."""
    for tensor in [*node.keras_inputs, *tf.nest.flatten(node.outputs)]:
        if tensor.dtype.is_floating and tensor.dtype != tf.float32:
            return f"computes in {tensor.dtype.name}"
        if tensor.dtype.is_floating and tensor.shape.rank == 0:
            return "computes a number, and not one for each sample"
    return None
