"""Draw a random graph from a seed."""

from __future__ import annotations

import warnings
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np

from tests.random_graphs.graph import Graph, Node, Walk, build, inputs_for, outputs, pruned
from tests.random_graphs.rows import is_of, rank
from tests.random_graphs.table import table_of

MOST_ELEMENTS = 1500
LARGEST = 300.0
TRIES = 40
# Kind of input -> how often, and its options.
KINDS: dict[str, tuple[int, Any]] = {
    "image": (9, lambda c: {"shape": (*_sides(c, 2), c.choice((1, 2, 3, 4))), "dtype": "float32"}),
    "vector": (3, lambda c: {"shape": (c.choice((1, 3, 4, 6)),), "dtype": "float32"}),
    "sequence": (
        5,
        lambda c: {
            "shape": (*_sides(c, 1), c.choice((1, 2, 3, 4))),
            "dtype": "float32",
            **({"padded": True} if c.random() < 0.3 else {}),
        },
    ),
    "ids": (
        4,
        lambda c: {
            "shape": _sides(c, 1),
            "dtype": c.choice(("int32", "int32", "float32", "int64")),
            "data": "ids",
            **({"padded": True} if c.random() < 0.6 else {}),
        },
    ),
    "pixels": (2, lambda c: {"shape": (*_sides(c, 2), 3), "dtype": "uint8"}),
    "volume": (2, lambda c: {"shape": (3, c.choice((3, 4)), 4, 2), "dtype": "float32"}),
}


def _sides(chance: Random, count: int) -> tuple[int | None, ...]:
    if chance.random() < 0.15:
        return (None,) * count
    return tuple(chance.choice((3, 4, 5, 7, 8)) for _ in range(count))


def generate(seed: int, library: str = "tf_keras") -> Graph:
    """Return the graph of a seed: its model runs, and its numbers are finite and moderate."""
    attempt = 0
    while True:
        chance = Random(f"{seed}/{attempt}")
        graph = _draw(chance, library, chance.randint(4, 20))
        if graph is not None and _is_sound(graph):
            return graph
        attempt += 1


def _is_sound(graph: Graph) -> bool:
    try:
        arrays = outputs(build(graph), inputs_for(graph))
    except Exception:  # unknown sizes that were to be equal, no kernel here, faults of Keras 3
        return False
    arrays = [np.float64(array) for array in arrays]
    return all(np.isfinite(a).all() and np.abs(a).max(initial=0) < LARGEST for a in arrays)


def _draw(chance: Random, library: str, size: int, inner: list[Node] | None = None) -> Graph | None:
    """Draw a graph of about so many nodes; an inner one with given inputs."""
    state = _State(chance, library)
    kinds = list(KINDS)
    if inner is None:
        for _ in range(chance.choice((1, 1, 1, 2, 2, 3))):
            (kind,) = chance.choices(kinds, [KINDS[k][0] for k in kinds])
            state.add(Node("input", (), KINDS[kind][1](chance)))
    else:
        for node in inner:
            state.add(node)
    inputs = len(state.nodes)
    for _ in range(size):
        state.grow(nested=inner is None)
    ends = [i for i in state.unread() if i >= inputs]
    if not ends:
        return None
    chance.shuffle(ends)
    ends = ends[: chance.choice((1, 1, 2, 3))]
    if inner is not None:
        return pruned(state.nodes, ends[: chance.choice((1, 1, 1, 2))], Graph((), ()))
    if chance.random() < 0.15:  # an inner tensor as an output too
        ends = [*ends, chance.choice([i for i in state.real() if i >= inputs])]
    graph = pruned(state.nodes, ends, Graph((), (), library=library))
    return replace(graph, named=chance.random() < 0.2)


class _State:
    """A graph on its way."""

    def __init__(self, chance: Random, library: str):
        self.chance, self.walk, self.nodes = chance, Walk(library), []
        self.table = table_of(library)

    def add(self, node: Node) -> bool:
        """Add a node where Keras takes it and the result is of use."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                value = self.walk.add(node)
        except Exception:  # Keras says so in many ways
            return False
        self.nodes.append(node)
        tensors = value if isinstance(value, list) else [value]
        if not all(_is_small(tensor) for tensor in tensors):
            for kept in (self.nodes, self.walk.values, self.walk.makers):
                kept.pop()
            return False
        if node.options.get("data") == "ids":
            value.is_ids = True
        if isinstance(value, list):
            number = len(self.nodes) - 1
            for index in range(len(value)):
                self.add(Node("part", (number,), {"index": index}))
        return True

    def grow(self, nested: bool) -> None:
        """Add one node that reads what is there."""
        for _ in range(TRIES):
            first = self._choose()
            drawn = self.chance.random()
            if drawn < 0.08:
                node = self._again(first)
            elif drawn < 0.16 and nested:
                node = self._model(first)
            else:
                node = self._call(first)
            if node is not None and self.add(node):
                return

    def real(self) -> list[int]:
        """Return the nodes that made one tensor."""
        return [i for i, v in enumerate(self.walk.values) if not isinstance(v, list)]

    def unread(self) -> list[int]:
        """Return the nodes that made a tensor nobody reads."""
        read = {i for node in self.nodes for i in node.inputs}
        return [i for i in self.real() if i not in read]

    def _choose(self) -> int:
        """Choose a tensor: mostly one that nobody reads, else any."""
        unread = self.unread()
        return self.chance.choice(unread if unread and self.chance.random() < 0.75 else self.real())

    def _call(self, first: int) -> Node | None:
        x = self.walk.values[first]
        names = [name for name, row in self.table.items() if row.takes(x)]
        if not names:
            return None
        (name,) = self.chance.choices(names, [self.table[n].weight for n in names])
        row, read = self.table[name], [first]
        if row.pairs is not None:
            fitting = [i for i in self.real() if row.pairs(x, self.walk.values[i])]
            others = [i for i in fitting if i != first] or (
                fitting if self.chance.random() < 0.3 else []
            )
            if not others:
                return None
            count = min(self.chance.randint(1, row.most - 1), len(others))
            read += self.chance.sample(others, count)
            if self.chance.random() < 0.3 and same_shapes(self.walk, read):
                self.chance.shuffle(read)
        return Node(name, tuple(read), row.draw(self.chance, x))

    def _again(self, first: int) -> Node | None:
        """Call what an earlier node called once more, on tensors of the same shapes."""
        made = [i for i, n in enumerate(self.nodes) if n.op not in ("input", "part", "again")]
        if not made:
            return None
        of = self.chance.choice(made)
        wanted = [self.walk.values[i] for i in self.nodes[of].inputs]
        read = []
        for tensor in wanted:
            fitting = [i for i in self.real() if _alike(self.walk.values[i], tensor)]
            read.append(first if first in fitting else self.chance.choice(fitting))
        return Node("again", tuple(read), {"of": of})

    def _model(self, first: int) -> Node | None:
        """Call a nested model on one or two tensors."""
        read = [first, *([self._choose()] if self.chance.random() < 0.2 else [])]
        tensors = [self.walk.values[i] for i in dict.fromkeys(read)]
        if not all(is_of(tensor, "float32") for tensor in tensors):
            return None
        inner = [
            Node("input", (), {"shape": tuple(t.shape[1:]), "dtype": "float32"}) for t in tensors
        ]
        if len(inner) == 1 and self.chance.random() < 0.4:
            body = _chain(self.chance, self.walk.library, inner[0])
        else:
            body = _draw(self.chance, self.walk.library, self.chance.randint(1, 4), inner)
        if body is None:
            return None
        count = sum(node.op == "input" for node in body.nodes)
        return (
            Node("model", tuple(dict.fromkeys(read)), {"body": body})
            if count == len(inner)
            else None
        )


def _chain(chance: Random, library: str, start: Node) -> Graph | None:
    """Draw the layers of a Sequential model."""
    state = _State(chance, library)
    state.add(start)
    table = state.table
    names = [name for name, row in table.items() if row.chains]
    for _ in range(chance.randint(1, 4)):
        x = state.walk.values[-1]
        fitting = [name for name in names if table[name].takes(x)]
        if not fitting:
            break
        (name,) = chance.choices(fitting, [table[n].weight for n in fitting])
        last = len(state.nodes) - 1
        state.add(Node(name, (last,), table[name].draw(chance, x)))
    count = len(state.nodes)
    return Graph(tuple(state.nodes), (count - 1,), style="sequential") if count > 1 else None


def same_shapes(walk: Walk, read: list[int]) -> bool:
    """Tell whether tensors have one shape, so that their order is free."""
    return len({tuple(walk.values[i].shape) for i in read}) == 1


def _alike(value: Any, tensor: Any) -> bool:
    ids = getattr(value, "is_ids", False) == getattr(tensor, "is_ids", False)
    return ids and value.dtype == tensor.dtype and tuple(value.shape) == tuple(tensor.shape)


def _is_small(tensor: Any) -> bool:
    shape = getattr(tensor, "shape", None)
    if shape is None or getattr(shape, "rank", 0) is None:
        return False
    if not 2 <= rank(tensor) <= 5 or shape[0] is not None:
        return False
    return int(np.prod([7 if d is None else d for d in shape[1:]])) <= MOST_ELEMENTS
