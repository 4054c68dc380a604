"""Pairs stand behind operations that only move integers, where runtimes look for them."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from keras_edgeq.export.onnx.carriers import pair_carriers
from keras_edgeq.export.onnx.graph import OnnxGraph


def graph_of(op):
    """Return a graph of a pair and an operation behind it."""
    grid = {"s": np.float32(0.05), "z": np.int8(0)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", *grid], ["q"]),
        helper.make_node("DequantizeLinear", ["q", *grid], ["y"]),
        helper.make_node(op, ["y"], ["moved"]),
        helper.make_node("Softmax", ["moved"], ["out"]),
    ]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4, 4]) for n in ("x", "out")]
    initializers = [numpy_helper.from_array(np.asarray(v), n) for n, v in grid.items()]
    graph = helper.make_graph(nodes, "test", values[:1], values[1:], initializers)
    return OnnxGraph(helper.make_model(graph))


def test_an_operation_that_runtimes_see_through_gets_a_pair_only_when_asked():
    graph = graph_of("Transpose")
    pair_carriers(graph)
    assert [n.op_type for n in graph.nodes][2:] == ["Transpose", "Softmax"]
    pair_carriers(graph, everywhere=True)
    ops = ["Transpose", "QuantizeLinear", "DequantizeLinear", "Softmax"]
    assert [n.op_type for n in graph.nodes][2:] == ops
    graph.finish(21)


def test_an_operation_that_computes_gets_none():
    graph = graph_of("Relu")
    pair_carriers(graph, everywhere=True)
    assert [n.op_type for n in graph.nodes][2:] == ["Relu", "Softmax"]
