"""Bring a converted ONNX graph into one form: equal models give equal bytes.

tf2onnx numbers names across a whole process and keeps nodes and constants in sets. Here nodes come
in the order in which the outputs need them, and names follow from that order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto

from keras_edgeq.export.onnx.graph import reads


def make_canonical(model: ModelProto, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Order and name everything inside a model; its inputs and outputs keep their names.

    Args:
        model: is changed.
        inputs: their names in the order that they get.
        outputs: the same for the outputs.
    """
    graph = model.graph
    for values, names in ((graph.input, inputs), (graph.output, outputs)):
        ordered = sorted(values, key=lambda value: names.index(value.name))
        del values[:]
        values.extend(ordered)
    _order(graph)
    _rename(graph, {name: name for name in (*inputs, *outputs)}, "")


def _order(graph: GraphProto) -> None:
    """Put nodes behind those they read, as the outputs need them; drop those that none needs."""
    for node in graph.node:
        for inner in _subgraphs(node):
            _order(inner)
    producers = {name: node for node in graph.node for name in node.output}
    found: dict[int, NodeProto] = {}
    for value in graph.output:
        waiting = [producers[value.name]] if value.name in producers else []
        while waiting:
            node = waiting[-1]
            before = [producers[name] for name in reads(node) if name in producers]
            missing = [one for one in before if id(one) not in found and one is not node]
            if id(node) not in found and missing:
                waiting += missing[::-1]
            else:
                found[id(waiting.pop())] = node
    ordered = list(found.values())
    used = {name: None for node in ordered for name in reads(node)}
    used |= {value.name: None for value in graph.output}
    constants = {constant.name: constant for constant in graph.initializer}
    kept = [constants[name] for name in used if name in constants]
    _replace(graph.node, ordered)
    _replace(graph.initializer, kept)
    del graph.value_info[:]


def _rename(graph: GraphProto, known: Mapping[str, str], prefix: str) -> None:
    """Name nodes `Conv_3`, their results `Conv_3:0`, and constants after their first reader."""
    names = dict(known)
    for number, value in enumerate(graph.input):
        names.setdefault(value.name, f"{prefix}input_{number}")
    constants = {constant.name for constant in graph.initializer}
    for number, node in enumerate(graph.node):
        own = f"{prefix}{node.op_type}_{number}"
        for index, name in enumerate(node.input):
            if name in constants:
                names.setdefault(name, f"{own}/{index}")
        for index, name in enumerate(node.output):
            if name:
                names.setdefault(name, f"{own}:{index}")
        node.name = own
    for number, value in enumerate((*graph.initializer, *graph.output)):
        names.setdefault(value.name, f"{prefix}value_{number}")  # read by subgraphs alone
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = names[value.name]
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        _replace(node.attribute, sorted(node.attribute, key=lambda one: one.name))
        for number, inner in enumerate(_subgraphs(node)):
            inner.name = f"{node.name}/{number}"
            _rename(inner, names, f"{node.name}/{number}/")


def _replace(field, values: Sequence) -> None:
    copies = []
    for value in values:
        copies.append(type(value)())
        copies[-1].CopyFrom(value)
    del field[:]
    field.extend(copies)


def _subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    yield from (one.g for one in node.attribute if one.type == AttributeProto.GRAPH)
