"""ONNX files that are valid, fit their sim, and do harm where they run."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def _after(content: bytes, nodes, constants) -> bytes:
    """Return a file with nodes between what makes its output, `before`, and the output."""
    model = onnx.load_model_from_string(content)
    graph = model.graph
    (output,) = graph.output
    for node in graph.node:
        for place, name in enumerate(node.output):
            if name == output.name:
                node.output[place] = "before"
    graph.node.extend(nodes(output.name))
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()
    )
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _loop(read: str, made: str, outside: str | None = None):
    """Return a Loop that carries a tensor, and adds one from outside where it is named."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["still"]),
            helper.make_node("Add", ["carried", outside], ["next"])
            if outside
            else helper.make_node("Identity", ["carried"], ["next"]),
        ],
        "body",
        [
            value("number", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("carried", TensorProto.FLOAT, None),
        ],
        [value("still", TensorProto.BOOL, []), value("next", TensorProto.FLOAT, None)],
    )
    return helper.make_node("Loop", ["trips", "start", read], [made], body=body)


def hangs(content: bytes) -> bytes:
    """Return a file that loops 2^62 times."""
    constants = {"trips": np.int64(2**62), "start": np.bool_(True)}
    return _after(content, lambda out: [_loop("before", out)], constants)


def needs_64_gb(content: bytes) -> bytes:
    """Return a file that fills a tensor of 2^34 numbers."""

    def nodes(out):
        return [
            helper.make_node("ConstantOfShape", ["many"], ["zeros"]),
            helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
            helper.make_node("Add", ["before", "sum"], [out]),
        ]

    return _after(content, nodes, {"many": np.array([2**34], np.int64)})


def aborts(content: bytes) -> bytes:
    """Return a file whose Loop reads dequantized data from outside; see `onnx_guards`."""

    def nodes(out):
        return [
            helper.make_node("QuantizeLinear", ["before", "q_scale", "q_zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "q_scale", "q_zero"], ["d"]),
            helper.make_node("Transpose", ["d"], ["t"], perm=[0, 1]),
            _loop("before", out, "t"),
        ]

    constants = {
        "q_scale": np.float32(0.1),
        "q_zero": np.uint8(0),
        "trips": np.int64(1),
        "start": np.bool_(True),
    }
    return _after(content, nodes, constants)
