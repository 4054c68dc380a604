"""Check that the layers of a saved model can be put together.

Keras waits forever for a tensor that no layer makes, and runs at once what is called on constants.
"""

from __future__ import annotations

import sys
from collections import defaultdict, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_edgeq.errors import UnsupportedModelError

Call = tuple[str, int]
# How many tensors a call makes; a file does not say it of other layers.
TENSORS = {"InputLayer": 1, "FakeQuant": 3, "QuantizedLayer": 3}
MOST_TENSORS = 64


# Layers one behind the other in a sim: more than stacked layers of 128 steps have.
DEEPEST_SIM = 50_000


def check_graph(path: Path, config: Any) -> None:
    """Raise if a call in a functional model, at any depth, cannot be made.

    Args:
        path: named in the error.
        config: a model's configuration as JSON values.

    Raises:
        UnsupportedModelError: names the layer that reads what no call makes, or constants only; or
            the model is deeper than Keras can build.
    """
    # A sim lets Keras go deeper itself.
    is_sim = isinstance(config, dict) and str(config.get("class_name")).endswith("QuantSim")
    most = DEEPEST_SIM if is_sim else sys.getrecursionlimit()
    parts = [config]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            if isinstance(part.get("layers"), list):
                _check_calls(path, part["layers"], most)
            parts += part.values()
        elif isinstance(part, list):
            parts += part


def _check_calls(path: Path, layers: list[Any], most: int) -> None:
    layers = [layer for layer in layers if isinstance(layer, dict)]
    tensors = {_name(layer): _tensors(layer) for layer in layers}
    calls: dict[str, list[set[Call]]] = {}
    for layer in layers:
        nodes = layer.get("inbound_nodes")
        if isinstance(nodes, list) and nodes:
            calls[_name(layer)] = [set(_reads(node, tensors)) for node in nodes]
            if not all(calls[_name(layer)]):
                raise UnsupportedModelError(
                    f"{path}: layer {_name(layer)[:100]!r} is called on constants, not on what "
                    "another layer makes; no model that was saved does that."
                )
    firsts = _first_numbers(layers, calls)
    depths = _depths(layers, calls, firsts)
    for name, reads in calls.items():
        for number, read in enumerate(reads, firsts[name]):
            if (name, number) not in depths:
                source, missing = min(read - depths.keys())
                raise UnsupportedModelError(
                    f"{path} is damaged: layer {name[:100]!r} reads call {missing} of layer "
                    f"{source[:100]!r}, which is never made."
                )
    deepest = max(depths.values(), default=0)
    if deepest > most:  # Keras follows a model back by recursion, a call of Python per layer
        raise UnsupportedModelError(
            f"{path} has {deepest} layers one behind the other; Keras builds fewer than {most}, "
            "the limit of sys.getrecursionlimit(). Nest parts of the model in models of their own."
        )


def _first_numbers(layers: list[dict], calls: dict[str, list[set[Call]]]) -> dict[str, int]:
    """Return the number of each layer's first call in the file.

    A nested functional model has call 0 from when it was made; Keras leaves that out of the file
    and counts from 1. Whether a Sequential or a class of the user's does so, the file says in what
    it reads of them.
    """
    least: dict[str, int] = {}
    for reads in calls.values():
        for name, number in (call for read in reads for call in read):
            least[name] = min(least.get(name, number), number)
    firsts = dict.fromkeys(calls, 0)
    for layer in layers:
        config = layer.get("config")
        if isinstance(config, dict) and isinstance(config.get("layers"), list):
            name = _name(layer)
            functional = layer.get("class_name") in ("Functional", "Model")
            firsts[name] = 1 if functional else max(0, min(1, least.get(name, 0)))
    return firsts


def _depths(
    layers: list[dict], calls: dict[str, list[set[Call]]], firsts: dict[str, int]
) -> dict[Call, int]:
    """Return the calls that can be made and how many layers are behind each, in linear time."""
    inputs = {_name(layer) for layer in layers if layer.get("class_name") == "InputLayer"}
    reads = {
        (name, number): read
        for name, of_layer in calls.items()
        for number, read in enumerate(of_layer, firsts[name])
    }
    made = {c for read in reads.values() for c in read if c[0] in inputs and c[1] >= 0}
    readers: dict[Call, list[Call]] = defaultdict(list)
    waits: dict[Call, int] = {}
    for call, read in reads.items():
        # Calls of one layer are made in their order.
        before = {(call[0], call[1] - 1)} & reads.keys()
        waits[call] = len(read | before)
        for source in read | before:
            readers[source].append(call)
    depths = dict.fromkeys(made, 1)
    ready = deque(made)
    while ready:
        source = ready.popleft()
        for call in readers[source]:
            waits[call] -= 1
            if not waits[call]:
                depths[call] = 1 + max(depths[one] for one in reads[call])
                ready.append(call)
    return depths


def _name(layer: dict) -> str:
    config = layer.get("config")
    name = layer.get("name", config.get("name") if isinstance(config, dict) else None)
    return str(name)


def _tensors(layer: dict) -> int:
    kind = str(layer.get("class_name")).rpartition(">")[2]
    return TENSORS.get(kind, MOST_TENSORS)


def _reads(node: Any, tensors: dict[str, int]) -> Iterator[Call]:
    """Yield the calls that a call reads: `[layer, call, tensor]`, however deep.

    One that reads a tensor which its layer does not make is call -1, which is never made.
    """
    parts = [node]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            parts += part.values()
        elif isinstance(part, list):
            if len(part) >= 3 and isinstance(part[0], str) and part[0] in tensors:
                name, number, tensor = part[:3]
                known = isinstance(number, int) and isinstance(tensor, int)
                yield name, number if known and 0 <= tensor < tensors[name] else -1
            parts += part
