"""Greedy shrinking: the smallest graph that still fails."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

import tensorflow as tf

from tests.random_graphs.graph import Graph, Node, Walk, build, pruned

SPECIAL = ("input", "part", "again", "model")


def shrink(graph: Graph, fails: Callable[[Graph], bool], most: int = 150) -> Graph:
    """Return a smaller graph that fails; nothing smaller that was tried does.

    Args:
        graph: one that fails.
        fails: a predicate; what cannot be built is not asked.
        most: how often `fails` is asked at most.
    """
    asked, seen = 0, {repr(graph)}
    again = True
    while again and asked < most:
        again = False
        for smaller in _candidates(graph):
            text = repr(smaller)
            if text in seen or measure(smaller) >= measure(graph):
                continue
            seen.add(text)
            if not _builds(smaller):
                continue
            asked += 1
            if fails(smaller):
                graph, again = smaller, True
                break
            if asked >= most:
                break
    return graph


def measure(graph: Graph) -> tuple:
    """Return what shrinking makes smaller: nodes, inner ones included, then the text."""
    nested = [n.options["body"] for n in graph.nodes if n.op == "model"]
    inner = [measure(body) for body in nested]
    nodes = len(graph.nodes) + sum(count for count, *_ in inner)
    text = repr(graph)
    return nodes, len(nested), len(graph.outputs), len(text), text


def _builds(graph: Graph) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            build(graph)
    except Exception:  # Keras says so in many ways
        return False
    return True


def _candidates(graph: Graph) -> Iterator[Graph]:
    """Yield graphs a step smaller, the smallest first."""
    nodes, style = graph.nodes, graph.style
    if style == "sequential":
        yield replace(graph, style="functional")
        yield from _shorter(graph)
    else:
        for number, node in enumerate(nodes):
            if node.op != "input" and (number,) != graph.outputs:
                yield pruned(nodes, [number], graph)
        for number in range(len(graph.outputs)):
            yield pruned(nodes, graph.outputs[:number] + graph.outputs[number + 1 :], graph)
        yield from _as_inputs(graph)
        yield from _one_input(graph)
        yield from _bypassed(graph)
        yield from _inner(graph)
        if graph.named:
            yield replace(graph, named=False)
    for number, node in enumerate(nodes):
        for options in _simpler(node):
            changed = replace(node, options=options)
            yield replace(graph, nodes=(*nodes[:number], changed, *nodes[number + 1 :]))


def _shorter(graph: Graph) -> Iterator[Graph]:
    """Yield a chain without each of its layers."""
    for number in range(1, len(graph.nodes)):
        kept = [n for i, n in enumerate(graph.nodes) if i != number]
        chained = [replace(n, inputs=(i - 1,)) if i else n for i, n in enumerate(kept)]
        if len(chained) > 1:
            yield replace(graph, nodes=tuple(chained), outputs=(len(chained) - 1,))


def _as_inputs(graph: Graph) -> Iterator[Graph]:
    """Yield graphs in which an inner tensor is an input of the model, the last one first."""
    shapes = _shapes(graph)
    for number in reversed(range(len(graph.nodes))):
        if graph.nodes[number].op == "input" or shapes[number] is None:
            continue
        shape, dtype = shapes[number]
        node = Node("input", (), {"shape": shape, "dtype": dtype})
        yield from _exchanged(graph, number, node)


def _one_input(graph: Graph) -> Iterator[Graph]:
    """Yield graphs in which two inputs of one kind are one."""
    inputs = [i for i, node in enumerate(graph.nodes) if node.op == "input"]
    for first, second in combinations(inputs, 2):
        if graph.nodes[first].options == graph.nodes[second].options:
            yield from _redirected(graph, second, first)


def _bypassed(graph: Graph) -> Iterator[Graph]:
    """Yield graphs in which a node is left out: its readers read one of its inputs."""
    for number in reversed(range(len(graph.nodes))):
        for source in dict.fromkeys(graph.nodes[number].inputs):
            yield from _redirected(graph, number, source)
        node = graph.nodes[number]
        if len(node.inputs) > 2:
            for index in range(len(node.inputs)):
                fewer = node.inputs[:index] + node.inputs[index + 1 :]
                yield from _exchanged(graph, number, replace(node, inputs=fewer))
        if node.op == "again":
            made = graph.nodes[node.options["of"]]
            yield from _exchanged(graph, number, replace(made, inputs=node.inputs))


def _inner(graph: Graph) -> Iterator[Graph]:
    """Yield graphs with a nested model written out, or with a smaller one."""
    for number, node in enumerate(graph.nodes):
        if node.op != "model":
            continue
        body = node.options["body"]
        for smaller in _candidates(replace(body, library=graph.library)):
            if sum(n.op == "input" for n in smaller.nodes) == len(node.inputs):
                options = {"body": replace(smaller, library=body.library)}
                yield from _exchanged(graph, number, replace(node, options=options))
        yield _written_out(graph, number)


def _written_out(graph: Graph, number: int) -> Graph:
    """Return the graph with the nodes of a nested model in its place."""
    node, body = graph.nodes[number], graph.nodes[number].options["body"]
    nodes, places = list(graph.nodes[:number]), {}
    read = iter(node.inputs)
    for i, inner in enumerate(body.nodes):
        if inner.op == "input":
            places[i] = next(read)
            continue
        of = {"of": places[inner.options["of"]]} if inner.op == "again" else {}
        inputs = tuple(places[j] for j in inner.inputs)
        places[i] = len(nodes)
        nodes.append(replace(inner, inputs=inputs, options={**inner.options, **of}))
    moved = {**{i: i for i in range(number)}, number: places[body.outputs[0]]}
    for i, outer in enumerate(graph.nodes[number + 1 :], number + 1):
        if outer.op == "part" and outer.inputs == (number,):
            moved[i] = places[body.outputs[outer.options["index"]]]
            continue
        moved[i] = len(nodes)
        of = {"of": moved[outer.options["of"]]} if outer.op == "again" else {}
        inputs = tuple(moved[j] for j in outer.inputs)
        nodes.append(replace(outer, inputs=inputs, options={**outer.options, **of}))
    return pruned(nodes, [moved[i] for i in graph.outputs], graph)


def _exchanged(graph: Graph, number: int, node: Node) -> Iterator[Graph]:
    """Yield the graph with another node; calls of what it called become calls of their own."""
    old = graph.nodes[number]
    nodes = list(graph.nodes)
    nodes[number] = node
    if node.op != old.op:
        first = None
        for i, reader in enumerate(nodes):
            if reader.op == "again" and reader.options["of"] == number:
                kept = old if first is None else reader
                options = old.options if first is None else {"of": first}
                nodes[i] = replace(kept, inputs=reader.inputs, options=options)
                first = i if first is None else first
    yield pruned(nodes, graph.outputs, graph)


def _redirected(graph: Graph, number: int, source: int) -> Iterator[Graph]:
    def moved(i: int) -> int:
        return source if i == number else i

    nodes = [replace(n, inputs=tuple(map(moved, n.inputs))) for n in graph.nodes]
    shared = [i for i, n in enumerate(nodes) if n.op == "again" and n.options["of"] == number]
    for i in shared[:1]:
        nodes[i] = replace(graph.nodes[number], inputs=nodes[i].inputs)
    for i in shared[1:]:
        nodes[i] = replace(nodes[i], options={"of": shared[0]})
    outputs = tuple(moved(i) for i in graph.outputs)
    if all(nodes[i].op != "input" for i in outputs):
        yield pruned(nodes, outputs, graph)


def _shapes(graph: Graph) -> list[tuple[tuple, str] | None]:
    """Return shape and type of what each node makes, None where it is no single tensor."""
    walk = Walk(graph.library)
    for node in graph.nodes:
        walk.add(node)
    return [
        None if isinstance(v, list) else (tuple(v.shape[1:]), tf.as_dtype(v.dtype).name)
        for v in walk.values
    ]


def _simpler(node: Node) -> Iterator[dict[str, Any]]:
    """Yield options of which one is left out or smaller."""
    if node.op in ("part", "again", "model"):
        return
    for key, value in node.options.items():
        rest = {k: v for k, v in node.options.items() if k != key}
        if node.op != "input" or key not in ("shape", "dtype"):
            yield rest
        for smaller in _smaller(value):
            yield {**node.options, key: smaller}


def _smaller(value: Any) -> Iterator[Any]:
    if isinstance(value, int) and not isinstance(value, bool) and value > 1:
        yield from range(1, min(value, 3))
    elif isinstance(value, tuple):
        for i, part in enumerate(value):
            sizes = [3, 2] if part is None else [1, 2, 3]
            for size in sizes:
                if part is None or (isinstance(part, int) and size < part):
                    yield (*value[:i], size, *value[i + 1 :])
