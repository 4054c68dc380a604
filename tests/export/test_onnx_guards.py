"""ONNX Runtime with every optimization computes what the graph says."""

from itertools import product

import ml_dtypes
import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from keras_edgeq.export.onnx.graph import OnnxGraph
from keras_edgeq.export.onnx.guards import guard
from keras_edgeq.runtime.child.process import Child

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


def run(model, x, level, config=(("session.x64quantprecision", "1"),)):
    options = ort.SessionOptions()
    options.graph_optimization_level, options.log_severity_level = level, 3
    for name, value in config:
        options.add_session_config_entry(name, value)
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
    guard(graph, {})
    after = graph.finish(21)
    assert [n.op_type for n in after.graph.node].count("Clip") == 1
    np.testing.assert_array_equal(run(after, x, LEVELS.ORT_DISABLE_ALL), before)
    fused = run(after, x, LEVELS.ORT_ENABLE_ALL)
    # A softmax of sums in another order; a step that is lost shows as several percent.
    np.testing.assert_allclose(fused, before, rtol=1e-4, atol=1e-6)


def body_graph(kind, between):
    """Return a graph whose Loop or If reads dequantized data, moved or not, from outside."""
    value = helper.make_tensor_value_info
    go, carried = value("go", TensorProto.BOOL, []), value("old", TensorProto.FLOAT, None)
    ends = [value("still", TensorProto.BOOL, []), value("new", TensorProto.FLOAT, None)]
    if kind == "Loop":
        nodes = [
            helper.make_node("Identity", ["go"], ["still"]),
            helper.make_node("Add", ["old", "moved"], ["new"]),
        ]
        counted = value("number", TensorProto.INT64, [])
        body = helper.make_graph(nodes, "body", [counted, go, carried], ends)
        last = helper.make_node("Loop", ["trips", "yes", "x"], ["out"], body=body)
    else:
        sides = {}
        for side in ("then", "else"):
            nodes = [helper.make_node("Add", ["x", "moved"], [side])]
            ends = [value(side, TensorProto.FLOAT, None)]
            sides[f"{side}_branch"] = helper.make_graph(nodes, side, [], ends)
        last = helper.make_node("If", ["yes"], ["out"], **sides)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d" if between else "moved"]),
        *between,
        last,
    ]
    constants = {
        "s": np.float32(0.05),
        "z": np.uint8(20),
        "trips": np.int64(2),
        "yes": np.bool_(True),
        "rows": np.array([-1, 4], np.int64),
    }
    values = [value(n, TensorProto.FLOAT, [None, 4]) for n in ("x", "out")]
    initializers = [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()]
    graph = helper.make_graph(nodes, "test", values[:1], values[1:], initializers)
    return OnnxGraph(helper.make_model(graph))


BETWEEN = {
    "nothing": [],
    "a transposition": [helper.make_node("Transpose", ["d"], ["moved"], perm=[0, 1])],
    "a reshape": [helper.make_node("Reshape", ["d", "rows"], ["moved"])],
    "two": [
        helper.make_node("Transpose", ["d"], ["t"], perm=[1, 0]),
        helper.make_node("Transpose", ["t"], ["moved"], perm=[1, 0]),
    ],
}


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("kind", ["Loop", "If"])
def test_a_body_that_reads_dequantized_data_loads_with_every_optimization(kind, between):
    x = np.random.default_rng(0).uniform(-1.0, 9.0, (5, 4)).astype(np.float32)
    before = run(body_graph(kind, BETWEEN[between]).finish(18), x, LEVELS.ORT_DISABLE_ALL)
    graph = body_graph(kind, BETWEEN[between])
    guard(graph, {})
    content = graph.finish(18).SerializeToString()
    with Child() as child:  # unguarded, ONNX Runtime ends the process over some of them
        for optimize in (False, True):
            made = child.load("onnx", content, "ONNX Runtime", optimize=optimize)
            np.testing.assert_array_equal(made.compute([x], ["x"])["out"], before)


@pytest.mark.parametrize(
    "steps", [UNSIGNED[:1] * 2, [UNSIGNED[0], WIDE[0]], ["Relu", SIGNED[0]], ["Gemm", SIGNED[0]]]
)
def test_what_needs_no_guard_is_left_as_it_is(steps):
    graph = graph_of(steps)
    before = [n.op_type for n in graph.nodes]
    guard(graph, {})
    assert [n.op_type for n in graph.nodes] == before


WEIGHTS = {
    "uint8": (np.dtype(np.uint8), 128, 127),
    "int8": (np.dtype(np.int8), 0, 127),
    "uint4": (np.dtype(ml_dtypes.uint4), 8, 7),
    "int4": (np.dtype(ml_dtypes.int4), 0, 7),
}
DATA = {
    "float": None,
    "uint16": (np.uint16, 32768),
    "int16": (np.int16, 0),
    "uint8": (np.uint8, 77),
}
FORMS = {"MatMul": 2, "Gemm": 2, "MatMul of rank 3": 3, "two readers": 2, "another reader": 2}


def product_graph(weight, data, form, per_channel):
    """Return a product of data with integer weights, its ranks, and an input."""
    dtype, zero_point, most = WEIGHTS[weight]
    rng = np.random.default_rng(2)
    scale = np.float32(rng.uniform(0.5, 1.5, 24 if per_channel else ()) / most)
    constants = {
        "w": (rng.integers(-most, most + 1, (32, 24)) + zero_point).astype(dtype),
        "s": scale,
        "z": np.full(scale.shape, zero_point).astype(dtype),
        "b": np.float32(rng.normal(size=24)),
    }
    axis = {"axis": 1} if per_channel else {}
    nodes, x = [helper.make_node("DequantizeLinear", ["w", "s", "z"], ["weight"], **axis)], "x"
    if DATA[data] is not None:
        kind, middle = DATA[data]
        constants["xs"], constants["xz"] = np.float32(8.0 / 2 ** np.iinfo(kind).bits), kind(middle)
        nodes.append(helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]))
        nodes.append(helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]))
        x = "xd"
    rank = FORMS[form]
    bias = ["b"] if form == "Gemm" else []
    op = "Gemm" if bias else "MatMul"
    nodes.append(helper.make_node(op, [x, "weight", *bias], ["y"]))
    if form == "two readers":
        nodes.append(helper.make_node("Neg", [x], ["minus"]))
        nodes.append(helper.make_node("MatMul", ["minus", "weight"], ["y2"]))
        nodes.append(helper.make_node("Sub", ["y", "y2"], ["out"]))
    elif form == "another reader":
        nodes.append(helper.make_node("ReduceMax", ["weight"], ["most"], keepdims=0))
        nodes.append(helper.make_node("Add", ["y", "most"], ["out"]))
    else:
        nodes.append(helper.make_node("Identity", ["y"], ["out"]))
    shape = [None, *[5] * (rank - 2)]
    sizes = {"x": 32, "out": 24}
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [*shape, size])
        for name, size in sizes.items()
    ]
    initializers = [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()]
    graph = helper.make_graph(nodes, "test", values[:1], values[1:], initializers)
    data = rng.normal(size=(40, *shape[1:], 32)).astype(np.float32)
    return OnnxGraph(helper.make_model(graph)), {"y": rank, "y2": rank}, data


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize(
    ("weight", "data", "form"), list(product(WEIGHTS, ("float", "uint16", "int16"), FORMS))
)
def test_data_of_more_than_8_bits_keeps_them_where_it_meets_integer_weights(
    weight, data, form, per_channel
):
    graph, _, x = product_graph(weight, data, form, per_channel)
    before = run(graph.finish(21), x, LEVELS.ORT_DISABLE_ALL)
    graph, ranks, _ = product_graph(weight, data, form, per_channel)
    stored = graph.constants["w"].dtype, graph.constants["w"].size
    guard(graph, ranks)
    after = graph.finish(21)
    (held,) = [c for c in after.graph.initializer if c.name == "w"]
    assert (numpy_helper.to_array(held).dtype, np.prod(held.dims)) == stored
    ops = [n.op_type for n in after.graph.node]
    assert ops.count("Clip") == (form in ("MatMul of rank 3", "another reader"))
    for level in (LEVELS.ORT_DISABLE_ALL, LEVELS.ORT_ENABLE_BASIC, LEVELS.ORT_ENABLE_ALL):
        # Sums in another order; data rounded to 8 bits shows as half a percent.
        got = run(after, x, level, config=())
        np.testing.assert_allclose(got, before, atol=2e-5 * np.abs(before).max(), rtol=0)


@pytest.mark.parametrize("form", [f for f in FORMS if f != "two readers"])
def test_data_of_8_bits_keeps_its_products_as_integer_kernels_want_them(form):
    graph, ranks, _ = product_graph("int8", "uint8", form, True)
    before = [n.SerializeToString() for n in graph.nodes]
    guard(graph, ranks)
    assert [n.SerializeToString() for n in graph.nodes] == before
