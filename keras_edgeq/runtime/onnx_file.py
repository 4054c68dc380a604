"""An ONNX QDQ file's inner tensors: how they are called, and how to see them."""

from __future__ import annotations

from collections.abc import Iterable

import onnx

from keras_edgeq.errors import EdgeqError


def quantized_name(tensor: object) -> str:
    """Return the name of the ONNX tensor that holds the integers of a tensor of the sim."""
    return f"{tensor}/quantized"


def half_name(tensor: object) -> str:
    """Return the name of the ONNX tensor that holds a tensor of the sim in half precision."""
    return f"{tensor}/half"


def check_onnx(content: bytes) -> None:
    """Raise on what is not an ONNX model.

    Raises:
        EdgeqError: says so.
    """
    try:
        graph = onnx.load_model_from_string(content).graph
        if graph.output:
            return
        why = "it has no outputs"
    except Exception as error:  # the reader of the format raises what its edition has
        why = str(error)
    raise EdgeqError(
        f"ONNX Runtime cannot load the file: it is not an ONNX model, or damaged ({why[:200]})."
    )


def with_tensors(content: bytes, names: Iterable[str]) -> bytes:
    """Return an ONNX file that also puts out what it stores of these tensors."""
    model = onnx.load_model_from_string(content)
    wanted = {call(name) for name in names for call in (quantized_name, half_name)}
    types = {t.name: t.data_type for t in model.graph.initializer}
    for node in model.graph.node:
        if node.output[0] not in wanted or node.op_type not in ("QuantizeLinear", "Cast"):
            continue
        is_cast = node.op_type == "Cast"
        kind = onnx.TensorProto.FLOAT16 if is_cast else types[node.input[2]]
        model.graph.output.append(onnx.helper.make_tensor_value_info(node.output[0], kind, None))
    return model.SerializeToString()
