"""Random models: the generator, the shrinking, and a few graphs through `quantize`."""

import numpy as np
import pytest
import tf_keras

from tests.random_graphs import TABLE, Graph, Node, build, check_graph, generate, inputs_for, shrink
from tests.random_graphs.check import Outcome
from tests.random_graphs.child import Child
from tests.random_graphs.graph import outputs

SEEDS = range(8)
QUANTIZED = [*[("tf_keras", seed) for seed in (0, 1, 2, 3, 5)], ("keras", 1), ("keras", 2)]


def image(*sides):
    return Node("input", (), {"shape": (*sides, 2), "dtype": "float32"})


def ops(graph):
    """Return the operations of a graph, those of nested ones included."""
    inner = [ops(n.options["body"]) for n in graph.nodes if n.op == "model"]
    return {n.op for n in graph.nodes}.union(*inner)


@pytest.mark.parametrize("library", ["tf_keras", "keras"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_is_one_graph_and_its_text_builds_it_again(seed, library):
    graph = generate(seed, library)
    again = eval(repr(graph), {"Graph": Graph, "Node": Node, "array": np.array})
    assert repr(again) == repr(generate(seed, library)) == repr(graph)
    first, second = (outputs(build(g), inputs_for(g)) for g in (graph, again))
    assert all(np.isfinite(a).all() for a in first)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_seeds_draw_different_graphs_of_many_operations():
    graphs = [generate(seed) for seed in SEEDS]
    assert len({repr(graph) for graph in graphs}) == len(graphs)
    assert len(set().union(*map(ops, graphs))) > 30


@pytest.mark.filterwarnings("ignore")  # Keras warns of dtypes that it casts
@pytest.mark.parametrize(("library", "seed"), QUANTIZED)
def test_random_graphs_quantize_or_are_refused_in_words(library, seed):
    outcome = check_graph(generate(seed, library))
    assert outcome.kind in ("ok", "refused"), outcome
    assert outcome.kind == "ok" or len(outcome.text) > 40


def test_a_graph_shrinks_to_the_nodes_that_fail():
    inner = Graph((image(7, 5), Node("Conv2D", (0,), {"filters": 4, "kernel_size": 3})), (1,))
    graph = Graph(
        (
            image(7, 5),
            Node("BatchNormalization", (0,)),
            Node("model", (1,), {"body": inner}),
            Node("again", (1,), {"of": 2}),
            Node("Add", (2, 3)),
            Node("tf.nn.relu", (4,), {"how": "keyword"}),
            Node("GlobalAveragePooling2D", (5,)),
        ),
        (6, 4),
        named=True,
    )

    def fails(smaller):
        return {"Conv2D", "tf.nn.relu"} <= ops(smaller)

    found = shrink(graph, fails, most=400)
    assert sorted(node.op for node in found.nodes) == ["Conv2D", "input", "tf.nn.relu"]
    assert len(found.outputs) == 1
    assert found == shrink(graph, fails, most=400)


def test_a_nested_model_of_keras_3_shrinks_with_its_own_operations():
    nodes = (image(5, 5), Node("ops.sinc", (0,), {"how": "mixed"}), Node("ops.silu", (1,)))
    inner = Graph((*nodes, Node("ops.tanh", (2,), {"how": "mixed"})), (3,))
    twice = (Node("model", (0,), {"body": inner}), Node("ops.relu", (1,), {"how": "mixed"}))
    graph = Graph((image(5, 5), *twice), (2,), library="keras")
    found = shrink(graph, lambda g: any(n.op == "model" for n in g.nodes) and "ops.sinc" in ops(g))
    assert [node.op for node in found.nodes] == ["input", "model"]
    assert [node.op for node in found.nodes[1].options["body"].nodes] == ["input", "ops.sinc"]


def test_a_shared_layer_shrinks_to_two_calls_of_it():
    nodes = (image(5, 5), image(5, 5), Node("Conv2D", (0,), {"filters": 2, "kernel_size": 1}))
    nodes += (Node("again", (1,), {"of": 2}), Node("Concatenate", (2, 3)), Node("Flatten", (4,)))
    found = shrink(Graph(nodes, (5,)), lambda g: "again" in ops(g))
    assert [node.op for node in found.nodes] == ["input", "Conv2D", "again"]


def test_a_sequential_model_shrinks_to_the_layer_that_fails():
    nodes = [image(5, 5)]
    for number, op in enumerate(("BatchNormalization", "ReLU", "MaxPooling2D", "Flatten")):
        nodes.append(Node(op, (number,)))
    found = shrink(Graph(tuple(nodes), (4,), style="sequential"), lambda g: "ReLU" in ops(g))
    assert [node.op for node in found.nodes] == ["input", "ReLU"]


def test_errors_of_other_kinds_and_wrong_numbers_are_told_apart(monkeypatch):
    graph = Graph((image(5, 5), Node("Conv2D", (0,), {"filters": 2, "kernel_size": 1})), (1,))
    assert check_graph(graph).kind == "ok"
    alone = Graph((image(5, 5), Node("tf.sine", (0,))), (1,))
    assert check_graph(alone).kind == "refused"
    monkeypatch.setattr("tests.random_graphs.check.LEAST_FINE_DB", 1000.0)
    assert check_graph(graph).kind == "wrong"
    monkeypatch.setattr("keras_edgeq.quantize", lambda *_, **__: 1 / 0)
    assert check_graph(graph).kind == "raw"


@pytest.mark.slow
def test_a_check_that_kills_its_process_is_an_outcome():
    child = Child()
    try:
        assert isinstance(child.check("check", Graph((image(5, 5),), (0,))), Outcome)
        child.pipe.send(("no such check", None))
        assert child.check("check", Graph((image(5, 5),), (0,))).kind == "abort"
    finally:
        child.stop()


@pytest.mark.slow
def test_every_row_of_the_table_is_drawn():
    drawn, most = set(), 1500
    for seed in range(most):
        drawn |= ops(generate(seed))
        if drawn >= set(TABLE):
            break
        if seed % 100 == 99:
            tf_keras.backend.clear_session()
    assert not set(TABLE) - drawn
