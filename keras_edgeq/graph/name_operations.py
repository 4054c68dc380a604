"""Names for operations that a rewrite makes: those that Keras gives are global numbers."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from typing import Any

from keras_edgeq.graph import keras_compat
from keras_edgeq.spec.tensor_ref import part_name


def name_operations(tensor: Any, known: set[int], names: Iterator[str]) -> None:
    """Rename the operations that make a symbolic tensor, the last one first.

    Args:
        tensor: what they make.
        known: `id` of each layer at which to stop; those renamed are added. Layers that are no
            operations keep their names.
        names: one for each.
    """
    waiting = [tensor]
    while waiting:
        maker, node, _ = keras_compat.producer(waiting.pop())
        if id(maker) in known or keras_compat.op_symbol(maker) is None:
            continue
        known.add(id(maker))
        keras_compat.rename(maker, next(names))
        waiting += node.keras_inputs


class PartNames:
    """Names the parts that a layer is written with: those of each call of it otherwise.

    Args:
        layer: name of the layer.

    Attributes:
        layers: layers that all calls share, by name.
    """

    def __init__(self, layer: str):
        self.layer = layer
        self.layers: dict[str, Any] = {}
        self._counts: dict[str, Iterator[int]] = {}

    def __call__(self, tensor: Any, part: str = "") -> Any:
        """Name what made a symbolic tensor after a part, or after the layer; return the tensor."""
        count = next(self._counts.setdefault(part, itertools.count()))
        name = part_name(self.layer, part) if part else self.layer
        number = "" if not count else f"_{count}" if part else f"/{count}"
        keras_compat.rename(keras_compat.producer(tensor)[0], name + number)
        return tensor


def names_of_parts(name: str, taken: Collection[str]) -> Iterator[str]:
    """Yield a name, then `name/1` and on: those of its parts that nothing has yet."""
    parts = (part_name(name, str(number)) for number in itertools.count(1))
    return itertools.chain([name], (part for part in parts if part not in taken))
