"""Names for operations that a rewrite makes: those that Keras gives are global numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keras_edgeq.graph import keras_compat


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
