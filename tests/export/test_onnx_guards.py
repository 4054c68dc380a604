"""ONNX Runtime with every optimization computes what the graph says."""

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from keras_edgeq.export.onnx_graph import OnnxGraph
from keras_edgeq.export.onnx_guards import guard

LEVELS = ort.GraphOptimizationLevel
WEIGHT = np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32)


def graph_of(steps):
    """Return a graph of operations, products with float weights and pairs of a grid, in a row."""
    nodes, constants, tensor = [], {"weight": WEIGHT, "bias": WEIGHT[0]}, "x"
    for i, step in enumerate(steps):
        if isinstance(step, str):
            inputs = {"Gemm": ["weight", "bias"], "MatMul": ["weight"]}.get(step, [])
            nodes.append(helper.make_node(step, [tensor, *inputs], [f"y{i}"]))
        else:
            dtype, scale, zero_point = step
            constants[f"s{i}"], constants[f"z{i}"] = np.float32(scale), dtype(zero_point)
            grid = [f"s{i}", f"z{i}"]
            nodes.append(helper.make_node("QuantizeLinear", [tensor, *grid], [f"q{i}"]))
            nodes.append(helper.make_node("DequantizeLinear", [f"q{i}", *grid], [f"y{i}"]))
        tensor = f"y{i}"
    nodes.append(helper.make_node("Softmax", [tensor], ["out"]))
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
HALF_WAY = [(np.uint8, 0.05, 3), (np.uint8, 0.025, 6)]
GUARDED = {
    "two unsigned grids": UNSIGNED,
    "the finer one first": UNSIGNED[::-1],
    "two signed grids": SIGNED,
    "two 16-bit grids": WIDE,
    "one inside the other": HALF_WAY,
    "an operation that moves in between": [UNSIGNED[0], "Identity", UNSIGNED[1]],
    "a float product between pairs": [UNSIGNED[0], "Gemm", UNSIGNED[1]],
    "a float product without a bias": [SIGNED[0], "MatMul", SIGNED[1]],
}


@pytest.mark.parametrize("name", GUARDED)
def test_no_optimization_changes_a_guarded_graph(name):
    x = np.random.default_rng(0).uniform(-1.0, 9.0, (500, 4)).astype(np.float32)
    before = run(graph_of(GUARDED[name]).finish(21), x, LEVELS.ORT_DISABLE_ALL)
    graph = graph_of(GUARDED[name])
    guard(graph)
    after = graph.finish(21)
    assert [n.op_type for n in after.graph.node].count("Clip") == 1
    np.testing.assert_array_equal(run(after, x, LEVELS.ORT_DISABLE_ALL), before)
    fused = run(after, x, LEVELS.ORT_ENABLE_ALL)
    # A softmax of sums in another order; a step that is lost shows as several percent.
    np.testing.assert_allclose(fused, before, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "steps", [UNSIGNED[:1] * 2, [UNSIGNED[0], WIDE[0]], ["Relu", SIGNED[0]], ["Gemm", SIGNED[0]]]
)
def test_what_needs_no_guard_is_left_as_it_is(steps):
    graph = graph_of(steps)
    before = [n.op_type for n in graph.nodes]
    guard(graph)
    assert [n.op_type for n in graph.nodes] == before
