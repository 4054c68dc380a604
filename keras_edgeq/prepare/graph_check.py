"""Check that the layers of a saved model can be put together.

Keras waits for ever for a tensor that no layer makes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_edgeq.errors import UnsupportedModelError

Call = tuple[str, int]
# How many tensors a call makes; a file does not say it of other layers.
TENSORS = {"InputLayer": 1, "FakeQuant": 3, "QuantizedLayer": 3}
MOST_TENSORS = 64


def check_graph(path: Path, config: Any) -> None:
    """Raise where a call in a functional model, at any depth, reads what no call makes.

    Args:
        path: named in the error.
        config: a model's configuration as JSON values.

    Raises:
        UnsupportedModelError: names the layer.
    """
    parts = [config]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            if isinstance(part.get("layers"), list):
                _check_calls(path, part["layers"])
            parts += part.values()
        elif isinstance(part, list):
            parts += part


def _check_calls(path: Path, layers: list[Any]) -> None:
    layers = [layer for layer in layers if isinstance(layer, dict)]
    tensors = {_name(layer): _tensors(layer) for layer in layers}
    inputs = {_name(layer) for layer in layers if layer.get("class_name") == "InputLayer"}
    waiting: dict[str, list[set[Call]]] = {}
    for layer in layers:
        nodes = layer.get("inbound_nodes")
        if isinstance(nodes, list) and nodes:
            waiting[_name(layer)] = [set(_reads(node, tensors)) for node in nodes]
    made = {read for calls in waiting.values() for c in calls for read in c if read[0] in inputs}
    made = {(name, number) for name, number in made if number >= 0}
    done = dict.fromkeys(waiting, 0)
    while waiting:
        before = len(made)
        for name, calls in list(waiting.items()):
            while done[name] < len(calls) and calls[done[name]] <= made:
                made.add((name, done[name]))
                done[name] += 1
            if done[name] == len(calls):
                del waiting[name]
        if len(made) == before and waiting:
            name, calls = next(iter(waiting.items()))
            source, number = min(calls[done[name]] - made)
            raise UnsupportedModelError(
                f"{path} is damaged: layer {name[:100]!r} reads call {number} of layer "
                f"{source[:100]!r}, which is never made."
            )


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
