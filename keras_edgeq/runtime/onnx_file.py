"""An ONNX QDQ file's inner tensors: how they are called, and how to see them."""

from __future__ import annotations

from collections.abc import Iterable

import onnx


def quantized_name(tensor: object) -> str:
    """Return the name of the ONNX tensor that holds the integers of a tensor of the sim."""
    return f"{tensor}/quantized"


def with_tensors(content: bytes, names: Iterable[str]) -> bytes:
    """Return an ONNX file that also puts out the integers of these tensors."""
    model = onnx.load_model_from_string(content)
    wanted = {quantized_name(name) for name in names}
    made = {out for node in model.graph.node for out in node.output}
    types = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear" or node.output[0] not in wanted & made:
            continue
        kind = types[node.input[2]].data_type
        model.graph.output.append(onnx.helper.make_tensor_value_info(node.output[0], kind, None))
    return model.SerializeToString()
