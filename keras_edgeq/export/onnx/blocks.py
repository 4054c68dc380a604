"""Weights with a scale per block in ONNX."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from keras_edgeq.errors import ExportError
from keras_edgeq.export.fingerprints import Found
from keras_edgeq.export.onnx.graph import OnnxGraph, attributes
from keras_edgeq.runtime.onnx_file import quantized_name

NBITS, DOMAIN = "MatMulNBits", "com.microsoft"
# What ONNX Runtime's operator takes: blocks of a power of two, and weights of 4 bits around 8.
LEAST_BLOCK, BITS, MIDDLE = 16, 4, 8
# Products in float32; 4, the most that DequantizeLinear is fused to, rounds the input to 8 bits.
IN_FLOAT = 0


@dataclass(frozen=True, eq=False)
class Blocks:
    """The blocks of a weight in a constant's layout.

    Args:
        found: the constant.
        axis: along which the elements of a block follow each other.
        size: of a block.
    """

    found: Found
    axis: int
    size: int

    @classmethod
    def of(cls, found: Found) -> Blocks:
        """Find the blocks of a constant.

        Raises:
            ExportError: they do not lie along one axis.
        """
        encoding, inner = found.param.encoding, found.inner()
        assert encoding is not None  # asked for weights only
        size, count = encoding.spec.block_size, int(inner.max(initial=0)) + 1
        for axis, length in enumerate(inner.shape):
            whole = length == count or (length % size == 0 and length > 1)
            if whole and np.all(np.diff(inner, axis=axis) == 1):
                return cls(found, axis, size)
        raise ExportError(
            f"The blocks of {found.param.ref} do not lie along one axis of its ONNX layout "
            f"{inner.shape}. Give the layer a precision without blocks."
        )

    def per_block(self, values: NDArray) -> NDArray:
        """Return the number of each block from those of its elements."""
        return np.ascontiguousarray(
            values[(*[slice(None)] * self.axis, slice(None, None, self.size))]
        )

    def are_read_by_products(self, name: str, nodes: list[NodeProto]) -> bool:
        """Tell whether `MatMulNBits` can take the place of all nodes that read the constant."""
        spec = self.found.param.encoding.spec  # type: ignore[union-attr]
        is_known = self.size >= LEAST_BLOCK and self.size & (self.size - 1) == 0
        if not is_known or spec.bits > BITS or spec.block_bits or self.found.index.ndim != 2:
            return False
        return all(_is_product(node, name, self.axis) for node in nodes)

    def write_products(self, nodes: list[NodeProto], graph: OnnxGraph) -> None:
        """Make `MatMulNBits` of the products that read the constant."""
        inputs, outputs = self._inputs_first(self.found.index).shape
        blocks = -(-inputs // self.size)
        whole = np.zeros((blocks * self.size, outputs), np.int32)
        whole[:inputs] = self._inputs_first(self.found.integers())
        nibbles = (whole + MIDDLE).astype(np.uint8).T.reshape(outputs, blocks, self.size)
        packed = nibbles[..., 0::2] | (nibbles[..., 1::2] << 4)
        scale = self._inputs_first(self.per_block(self.found.scale())).T.ravel()
        ref = self.found.param.ref
        weight = [
            graph.add_constant(quantized_name(ref), packed),
            graph.add_constant(f"{ref}/scale", scale),
        ]
        for node in nodes:
            bias = ["", "", node.input[2]] if len(node.input) > 2 else []
            made = graph.node(
                NBITS,
                [node.input[0], *weight, *bias],
                node.output[0],
                domain=DOMAIN,
                K=inputs,
                N=outputs,
                bits=BITS,
                block_size=self.size,
                accuracy_level=IN_FLOAT,
            )
            made.name = node.name
            node.CopyFrom(made)

    def scale(self, graph: OnnxGraph) -> tuple[str, list[NodeProto]]:
        """Put the scale of each block into a graph; return its name, and the node that makes it.

        Only whole multiples of the scale of a channel need one. ONNX Runtime merges weights with
        constant scales into products that round what they read to 8 bits, and leaves these alone.
        """
        ref, scale = self.found.param.ref, self.per_block(self.found.scale())
        encoding = self.found.param.encoding
        assert encoding is not None  # asked for weights only
        if encoding.multiples is None:
            return graph.add_constant(f"{ref}/scale", scale), []
        multiples = self.per_block(self.found.multiple())
        channels = self.per_block(self.found.channel_scale())
        (axis, *others) = [a for a in range(scale.ndim) if a != self.axis]
        if others:
            raise ExportError(
                f"{ref} has channels along several axes of its ONNX layout {scale.shape}, and "
                "blocks with multiples of one scale; ONNX takes one axis. Give the layer a "
                "precision without blocks."
            )
        inputs = [
            graph.add_constant(f"{ref}/multiples", multiples.astype(np.uint8)),
            graph.add_constant(f"{ref}/channel_scale", np.take(channels, 0, self.axis)),
        ]
        made = graph.free_name(f"{ref}/scale")
        return made, [graph.node("DequantizeLinear", inputs, made, axis=axis)]

    def _inputs_first(self, values: NDArray) -> NDArray:
        return values if self.axis == 0 else values.T


def _is_product(node: NodeProto, name: str, axis: int) -> bool:
    """Tell whether a node multiplies a matrix with the weight `name`, summed over an axis of it."""
    if list(node.input).count(name) != 1 or node.input[1] != name:
        return False
    if node.op_type == "MatMul":
        return axis == 0
    options = attributes(node)
    added = options.get("beta", 1.0) if len(node.input) > 2 else 1.0
    is_plain = options.get("alpha", 1.0) == added == 1.0
    return (
        node.op_type == "Gemm"
        and is_plain
        and not options.get("transA")
        and axis == options.get("transB", 0)
    )
