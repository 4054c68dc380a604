"""Exchange attributes of a layer for the length of a call, in one thread at a time."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from threading import RLock
from typing import Any

# Held while a layer has attributes of a call, while one is called that could have them, and while a
# sim is converted, which also switches eager execution for the process. Functions are traced under
# it and run without it.
LOCK = RLock()


@contextmanager
def swapped(layer: Any, values: Mapping[str, Any]):
    """Let `layer` see `values` instead of its attributes, and give it back what it had.

    Other threads wait until it is over, as the layers of a sim hold `LOCK` when they are called.
    Plain `setattr` would re-track the attribute and reorder the layer's weights.
    """
    with LOCK:
        kept = {name: layer.__dict__[name] for name in values if name in layer.__dict__}
        try:
            for name, value in values.items():
                object.__setattr__(layer, name, value)
            yield
        finally:
            for name in values:
                if name in kept:
                    object.__setattr__(layer, name, kept[name])
                else:  # an attribute of the class
                    object.__delattr__(layer, name)
