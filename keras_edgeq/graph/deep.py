"""Models of so many layers one behind the other that Keras, which recurses, needs room for them."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import Any

from keras_edgeq.graph import keras_compat


@contextmanager
def deep_graphs(calls: int):
    """Let Keras build a model of so many calls: it follows them by recursion."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(before + 2 * calls)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def count_calls(tensors: list[Any]) -> int:
    """Return the number of calls that make symbolic tensors."""
    seen: set[int] = set()
    waiting = list(tensors)
    while waiting:
        node = keras_compat.producer(waiting.pop())[1]
        if id(node) not in seen:
            seen.add(id(node))
            waiting += node.keras_inputs
    return len(seen)
