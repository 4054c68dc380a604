"""Pairs that are added to a graph or kept apart in it change no number, and survive a runtime."""

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from keras_edgeq.export.onnx_carriers import pair_carriers
from keras_edgeq.export.onnx_graph import OnnxGraph

LEVELS = ort.GraphOptimizationLevel


def graph_of(steps):
    """Return a graph of operations and pairs `(dtype, scale, zero_point)` in a row."""
    nodes, constants, tensor = [], {"weight": np.eye(4, dtype=np.float32)}, "x"
    for i, step in enumerate(steps):
        if isinstance(step, str):
            nodes.append(helper.make_node(step, [tensor], [f"y{i}"]))
        else:
            dtype, scale, zero_point = step
            constants[f"s{i}"], constants[f"z{i}"] = np.float32(scale), dtype(zero_point)
            grid = [f"s{i}", f"z{i}"]
            nodes.append(helper.make_node("QuantizeLinear", [tensor, *grid], [f"q{i}"]))
            nodes.append(helper.make_node("DequantizeLinear", [f"q{i}", *grid], [f"y{i}"]))
        tensor = f"y{i}"
    nodes.append(helper.make_node("MatMul", [tensor, "weight"], ["out"]))
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, 4]) for n in ("x", "out")]
    initializers = [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()]
    graph = helper.make_graph(nodes, "test", values[:1], values[1:], initializers)
    return OnnxGraph(helper.make_model(graph))


def run(model, x, level):
    options = ort.SessionOptions()
    options.graph_optimization_level, options.log_severity_level = level, 3
    options.add_session_config_entry("session.x64quantprecision", "1")
    content = model.SerializeToString()
    return ort.InferenceSession(content, options, ["CPUExecutionProvider"]).run(None, {"x": x})[0]


UNSIGNED = [(np.uint8, 0.05, 3), (np.uint8, 0.031, 77)]
SIGNED = [(np.int8, 0.05, 0), (np.int8, 0.031, -20)]
WIDE = [(np.uint16, 2e-4, 900), (np.uint16, 3e-4, 0)]


@pytest.mark.parametrize(
    "steps", [UNSIGNED, SIGNED, WIDE, [UNSIGNED[0], "Identity", UNSIGNED[1]], UNSIGNED[::-1]]
)
def test_two_grids_of_one_type_in_a_row_are_both_rounded_onto(steps):
    x = np.random.default_rng(0).uniform(-1.0, 9.0, (500, 4)).astype(np.float32)
    before = run(graph_of(steps).finish(21), x, LEVELS.ORT_DISABLE_ALL)
    graph = graph_of(steps)
    pair_carriers(graph)
    after = graph.finish(21)
    assert [n.op_type for n in after.graph.node].count("Clip") == 1
    for level in (LEVELS.ORT_DISABLE_ALL, LEVELS.ORT_ENABLE_ALL):
        np.testing.assert_allclose(run(after, x, level), before, rtol=0, atol=1e-6)


@pytest.mark.parametrize("steps", [UNSIGNED[:1] * 2, [UNSIGNED[0], WIDE[0]], ["Relu", SIGNED[0]]])
def test_other_pairs_are_left_as_they_are(steps):
    graph = graph_of(steps)
    before = [n.op_type for n in graph.nodes]
    pair_carriers(graph)
    assert [n.op_type for n in graph.nodes] == before


def test_pairs_everywhere_are_also_behind_what_runtimes_see_through():
    graph = graph_of([SIGNED[0], "Transpose"])
    before = len(graph.nodes)
    pair_carriers(graph)
    assert len(graph.nodes) == before
    pair_carriers(graph, everywhere=True)
    ops = [n.op_type for n in graph.nodes]
    assert ops[-4:] == ["Transpose", "QuantizeLinear", "DequantizeLinear", "MatMul"]
