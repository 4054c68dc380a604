"""A model as data: a list of nodes whose `repr` builds it again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

import numpy as np
import tensorflow as tf

from tests.models import train_like
from tests.random_graphs.table import table_of

# Unsorted on purpose: Keras sorts the names of a dict of inputs.
INPUT_NAMES = ("zebra", "ant", "mole", "bee")
UNKNOWN_SIZE = 7
VOCABULARY = 10


@dataclass(frozen=True)
class Node:
    """One call.

    Args:
        op: a name in `TABLE`, or `input`; `part` (one tensor of several); `again` (another call of
            what an earlier node made); `model` (a nested one).
        inputs: numbers of the nodes that it reads.
        options: plain data.
    """

    op: str
    inputs: tuple[int, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        parts = [repr(self.op), repr(self.inputs), repr(self.options)]
        kept = 3 if self.options else 2 if self.inputs else 1
        return f"Node({', '.join(parts[:kept])})"


@dataclass(frozen=True)
class Graph:
    """A model: nodes in topological order, and the numbers of those that are outputs.

    Args:
        nodes: the calls.
        outputs: numbers of nodes.
        named: outputs as a dict by name.
        style: `"functional"`, or `"sequential"` for a chain.
        library: `"tf_keras"`, or `"keras"` for Keras 3; that of the whole model counts.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]
    named: bool = False
    style: str = "functional"
    library: str = "tf_keras"

    def __repr__(self) -> str:
        extra = ", named=True" if self.named else ""
        extra += f", style={self.style!r}" if self.style != "functional" else ""
        extra += f", library={self.library!r}" if self.library != "tf_keras" else ""
        return f"Graph({self.nodes!r}, {self.outputs!r}{extra})"


def build(graph: Graph) -> Any:
    """Return the graph's model with trained-like weights, the same on every call."""
    return train_like(make_model(graph, graph.library))


def make_model(graph: Graph, library: str, name: str | None = None) -> Any:
    """Return the graph's model with fresh weights."""
    keras = import_module(library)
    if graph.style == "sequential":
        return _sequential(graph, library, name)
    walk = Walk(library)
    for node in graph.nodes:
        walk.add(node)
    inputs = [v for n, v in zip(graph.nodes, walk.values, strict=True) if n.op == "input"]
    outputs: Any = [walk.values[i] for i in graph.outputs]
    if graph.named:
        outputs = {f"out{9 - i}": tensor for i, tensor in enumerate(outputs)}
    elif len(outputs) == 1:
        (outputs,) = outputs
    return keras.Model(inputs[0] if len(inputs) == 1 else inputs, outputs, name=name)


class Walk:
    """A graph on its way to a model.

    Args:
        library: `"tf_keras"` or `"keras"`.

    Attributes:
        values: what each node made: a symbolic tensor, or a list of them.
        makers: what each node called.
    """

    def __init__(self, library: str) -> None:
        self.library = library
        self.values: list[Any] = []
        self.makers: list[Any] = []
        self.inputs = 0

    def add(self, node: Node) -> Any:
        """Call a node, and keep and return what it makes."""
        read = [self.values[i] for i in node.inputs]
        maker = self._maker(node)
        value = maker(*read)
        value = list(value) if isinstance(value, tuple) else value
        self.values.append(value)
        self.makers.append(maker)
        return value

    def _maker(self, node: Node) -> Any:
        number, options = len(self.values), node.options
        if node.op == "input":
            name, self.inputs = INPUT_NAMES[self.inputs], self.inputs + 1
            return lambda: import_module(self.library).Input(
                options["shape"], dtype=options["dtype"], name=name
            )
        if node.op == "part":
            return lambda tensors: _part(tensors, options["index"])
        if node.op == "again":
            return self.makers[options["of"]]
        if node.op == "model":
            model = make_model(options["body"], self.library, f"inner{number}")
            return lambda *xs: model(xs[0] if len(xs) == 1 else list(xs))
        row = table_of(self.library)[node.op]
        return row.make(options, f"{node.op.lower().split()[0]}{number}")


def _part(tensors: Any, index: int) -> Any:
    if not isinstance(tensors, list):
        raise TypeError("One tensor has no parts.")
    return tensors[index]


def _sequential(graph: Graph, library: str, name: str | None) -> Any:
    """Return a chain of layers as a Sequential model."""
    keras, table = import_module(library), table_of(library)
    first, *rest = graph.nodes
    shape, dtype = first.options["shape"], first.options["dtype"]
    model = keras.Sequential([keras.Input(shape, dtype=dtype, name=INPUT_NAMES[0])], name=name)
    for number, node in enumerate(rest, 1):
        model.add(table[node.op].make(node.options, f"{node.op.lower()}{number}"))
    return model


def inputs_for(graph: Graph, samples: int = 16, seed: int = 0) -> list[np.ndarray]:
    """Return random inputs in the order of the graph's input nodes."""
    rng = np.random.default_rng(seed)
    return [_drawn(n.options, samples, rng) for n in graph.nodes if n.op == "input"]


def _drawn(options: dict[str, Any], samples: int, rng: np.random.Generator) -> np.ndarray:
    shape = (samples, *(UNKNOWN_SIZE if d is None else d for d in options["shape"]))
    if options.get("data") == "ids":
        values = rng.integers(0, VOCABULARY, shape).astype(np.float64)
    elif options["dtype"] == "uint8":
        values = rng.integers(0, 256, shape).astype(np.float64)
    else:
        values = rng.normal(size=shape)
    if options.get("padded"):  # what a mask hides: zeros behind each sequence's own length
        lengths = rng.integers(1, shape[1] + 1, samples)
        values[np.arange(shape[1]) >= lengths[:, None]] = 0.0
    return values.astype(options["dtype"])


def outputs(model: Any, data: list[np.ndarray]) -> list[np.ndarray]:
    """Return the outputs in inference mode as a flat list."""
    given = [tf.constant(a) for a in data]
    made = model(given[0] if len(given) == 1 else given, training=False)
    return [t.numpy() for t in tf.nest.flatten(made)]


def pruned(nodes: Iterable[Node], outputs: Iterable[int], like: Graph) -> Graph:
    """Return the graph of the nodes that the outputs need, numbered anew."""
    nodes, needed = list(nodes), set(outputs)
    for number in reversed(range(len(nodes))):
        if number in needed:
            needed |= set(nodes[number].inputs)
            needed |= {nodes[number].options["of"]} if nodes[number].op == "again" else set()
    kept = sorted(needed)
    new = {old: number for number, old in enumerate(kept)}

    def moved(node: Node) -> Node:
        of = {"of": new[node.options["of"]]} if node.op == "again" else {}
        inputs = tuple(new[i] for i in node.inputs)
        return replace(node, inputs=inputs, options={**node.options, **of})

    unique = tuple(dict.fromkeys(new[i] for i in outputs))
    return replace(like, nodes=tuple(moved(nodes[i]) for i in kept), outputs=unique)
