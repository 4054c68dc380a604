"""Which calls of a prepared model a target has a kernel for."""

from __future__ import annotations

import tensorflow as tf
import tf_keras

from keras_edgeq.graph.keras_compat import KerasNode
from keras_edgeq.graph.layer_graph import GraphNode
from keras_edgeq.ops import op_of, op_type
from keras_edgeq.ops.norm_parts import WHOLE, WRITTEN_WITH
from keras_edgeq.ops.operands import (
    caps,
    pads_on_grid,
    picks_constantly,
    reads_mask,
    resampling,
    selected_numbers,
    takes_constants,
)
from keras_edgeq.ops.plain import CLIP, GATHER, PAD, RESIZE, SELECT
from keras_edgeq.prepare.flatten import why_closed
from keras_edgeq.prepare.normalization import can_be_written
from keras_edgeq.prepare.own_layers import is_own
from keras_edgeq.prepare.recurrent import UNROLLED, why_rolled
from keras_edgeq.prepare.time_distributed import why_together
from keras_edgeq.profiles.target_profile import TargetProfile
from keras_edgeq.sim.part_kinds import NORMALIZATION


def why_unsupported(node: GraphNode, profile: TargetProfile) -> str | None:
    """Return why the target has no kernel for a call, None if it has one."""
    op = op_type(node.layer)
    if op_of(node.layer).transparent:
        return "no computation"
    if not node.is_float:
        return "makes integers or booleans, not real numbers"
    if not profile.computes(op):
        return f"{op} has no integer kernel in profile {profile.name!r}{_other_way(node, profile)}"
    if getattr(node.layer, "data_format", "channels_last") == "channels_first":
        return "data_format='channels_first'; integer kernels are channels_last"
    if not takes_constants(node.call.node):
        return f"{op} with a constant operand that its kernel does not take"
    if op == RESIZE.name and resampling(node.call.node) not in ("bilinear", "nearest"):
        return f"resizes by {resampling(node.call.node)!r}, which has no integer kernel"
    if op == PAD.name and not pads_on_grid(node.call.node):
        return "pads with something else than zeros"
    if op == GATHER.name and not picks_constantly(node.call.node):
        return "picks at places that the model computes, or from a constant"
    if op == CLIP.name and caps(node.call.node) is None:
        return "clips to bounds that are not two constant numbers"
    if op == SELECT.name and len(selected_numbers(node.call.node)) > 1:
        return "selects between two numbers"
    if reads_mask(node.call.node):
        return f"{op} with a mask has no integer kernel"
    return _why_no_samples(node.call.node)


def _other_way(node: GraphNode, profile: TargetProfile) -> str:
    """Return, as the end of a reason, how a normalization comes to integers; "" for others."""
    mixtures = [name for name, mixture in profile.mixtures.items() if NORMALIZATION in mixture]
    if op_type(node.layer) not in WHOLE or not mixtures:
        return ""
    if not all(map(profile.computes, WRITTEN_WITH)):
        return ""
    if not can_be_written(node.layer, tuple(node.call.reads[0].shape)):
        return ", and sizes that are not known keep it from being written with those there are"
    return f"; with data, precision={mixtures[0]!r} computes it in 16 bits"


def _why_no_samples(node: KerasNode) -> str | None:
    """Return what a call reads or makes in place of real numbers of samples."""
    for tensor in [*node.keras_inputs, *tf.nest.flatten(node.outputs)]:
        if tensor.dtype.is_floating and tensor.dtype != tf.float32:
            return f"computes in {tensor.dtype.name}"
        if tensor.dtype.is_floating and tensor.shape.rank == 0:
            return "computes a number, and not one for each sample"
    return None


def why_whole(node: GraphNode) -> str:
    """Return, as the end of a reason, why a layer was not opened into what it is made of."""
    call = node.call.node
    if type(node.layer) is tf_keras.layers.TimeDistributed:
        is_masked = call.call_kwargs.get("mask") is not None
        why = "its input carries a mask" if is_masked else why_together(call.call_args[0])
    elif type(node.layer) in UNROLLED:
        why = why_rolled(node.layer, tuple(call.call_args), dict(call.call_kwargs))
    elif is_own(node.layer):
        why = why_closed(node.layer, tuple(call.call_args), dict(call.call_kwargs))
    else:
        return ""
    return f"; it is not opened: {why}" if why else ""
