"""Operations in the form that newer opsets and checkers take; they compute the same."""

from __future__ import annotations

import numpy as np
from onnx import helper

from keras_edgeq.export.marked import FENCE
from keras_edgeq.export.onnx.graph import DEQUANTIZE, QUANTIZE, OnnxGraph


def without_fences(graph: OnnxGraph) -> None:
    """Take out the pairs that kept a converter from computing across them."""
    for node in [n for n in graph.nodes if n.op_type in (QUANTIZE, DEQUANTIZE)]:
        scale = graph.constants.get(node.input[1])
        if scale is not None and not scale.ndim and scale >= FENCE:
            graph.bypass(node)


def constant_shapes(graph: OnnxGraph) -> None:
    """Compute the shape of a constant, which a converter leaves beside a weight."""
    for node in [n for n in graph.nodes if n.op_type == "Shape" and n.input[0] in graph.constants]:
        if not node.attribute:
            shape = np.array(graph.constants[node.input[0]].shape, np.int64)
            del graph.nodes[graph.place_of(node)]
            graph.constants[node.output[0]] = shape


def modern_resizes(graph: OnnxGraph) -> None:
    """Write nearest-neighbour resizing without a mode that newer opsets deprecate; it is equal."""
    for node in graph.nodes:
        options = {a.name: a for a in node.attribute}
        mode = options.get("coordinate_transformation_mode")
        if node.op_type == "Resize" and mode is not None and mode.s == b"tf_half_pixel_for_nn":
            mode.s = b"half_pixel"
            options["nearest_mode"].s = b"round_prefer_ceil"


def positive_pads(graph: OnnxGraph) -> None:
    """Write what a transposed convolution adds at the ends as that, and not as a negative pad.

    Its stride is longer than its kernel there, or it has an output padding.
    """
    for node in graph.nodes:
        if node.op_type != "ConvTranspose":
            continue
        options = {attribute.name: attribute for attribute in node.attribute}
        pads = list(options["pads"].ints) if "pads" in options else []
        ends = pads[len(pads) // 2 :]
        if min(pads, default=0) >= 0 or min(pads[: len(ends)]) < 0:
            continue
        added = [-min(pad, 0) for pad in ends]
        kept = [a for a in node.attribute if a.name not in ("pads", "output_padding")]
        before = options.get("output_padding")
        padding = zip(added, before.ints if before else [0] * len(added), strict=True)
        del node.attribute[:]
        node.attribute.extend([
            *kept,
            helper.make_attribute("pads", [*pads[: len(ends)], *(max(pad, 0) for pad in ends)]),
            helper.make_attribute("output_padding", [one + other for one, other in padding]),
        ])  # fmt: skip


def whole_strides(graph: OnnxGraph) -> None:
    """Let a transposed convolution make the whole last stride where its kernel is shorter.

    For sizes that are not known the converter pads what is missing with zeros, behind the bias.
    """
    for node in graph.nodes:
        options = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type != "ConvTranspose" or {"pads", "output_padding"} & options.keys():
            continue
        kernel, strides = (options[name].ints for name in ("kernel_shape", "strides"))
        dilations = options["dilations"].ints if "dilations" in options else [1] * len(kernel)
        taps = ((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
        missing = [max(stride - k, 0) for k, stride in zip(taps, strides, strict=True)]
        if any(missing) and "output_shape" not in options:
            node.attribute.append(helper.make_attribute("output_padding", missing))
