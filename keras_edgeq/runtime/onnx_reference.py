"""What an ONNX file says of single tensors, by ONNX's own reference in NumPy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, helper
from onnx.reference import ReferenceEvaluator

OPSET = 21


def reference(
    content: bytes, fed: Mapping[str, np.ndarray], wanted: Sequence[str]
) -> dict[str, np.ndarray]:
    """Compute tensors of a file from others.

    Args:
        content: the file.
        fed: tensor name -> value; nothing in front of these is computed.
        wanted: names of tensors. Where one is fed as well, what the file makes of it is computed.

    Returns:
        Tensor name -> value; without those that the reference cannot compute.
    """
    model = onnx.load_model_from_string(content)
    found = {}
    for name in wanted:
        try:
            part = _part(model, name, fed)
            feed = {value.name: fed[value.name] for value in part.graph.input}
            with np.errstate(all="ignore"):  # what a selection takes away may be no number
                (found[name],) = ReferenceEvaluator(part).run(None, feed)
        except Exception:  # what an edition of the reference does not know, it says in many ways
            continue
    return found


def _part(model: onnx.ModelProto, name: str, fed: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """Return the nodes between a tensor and those that are fed."""
    producers = {made: node for node in model.graph.node for made in node.output if made}
    constants = {c.name: c for c in model.graph.initializer}
    read, open_ends = set(), [name]
    while open_ends:
        tensor = open_ends.pop()
        if tensor not in read and tensor in producers and (tensor not in fed or tensor == name):
            open_ends += _reads(producers[tensor])
        read.add(tensor)
    made_here = (read - fed.keys()) | {name}
    nodes = [node for node in model.graph.node if made_here.intersection(node.output)]
    inputs = [
        helper.make_tensor_value_info(
            tensor, helper.np_dtype_to_tensor_dtype(fed[tensor].dtype), None
        )
        for tensor in sorted(read & fed.keys() - {name})
    ]
    output = helper.make_tensor_value_info(name, onnx.TensorProto.UNDEFINED, None)
    kept = [constants[tensor] for tensor in sorted(read & constants.keys())]
    graph = helper.make_graph(nodes, "part", inputs, [output], kept)
    # The reference knows DequantizeLinear from 19 on; what is exported means the same up to 21.
    version = max(OPSET, *(one.version for one in model.opset_import if not one.domain))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)])
    made.ir_version = helper.find_min_ir_version_for(list(made.opset_import))
    return made


def _reads(node: NodeProto) -> Iterator[str]:
    """Yield what a node reads, and its bodies."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield from _read_by(attribute.g)


def _read_by(body: GraphProto) -> Iterator[str]:
    yield from (value.name for value in body.output)
    for node in body.node:
        yield from _reads(node)
