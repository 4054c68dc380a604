"""Hold a file of Keras 3 against what is known to only compute, before Keras reads it."""

from __future__ import annotations

import sys
from collections.abc import Collection

# What is found, where it is Python.
CODE = "holds code"
# Values that JSON has no form for. What is in them is looked through as well.
VALUES = frozenset({
    "__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__tuple__", "__ellipsis__",
    "__slice__", "__typespec__", "slice", "__list__", "__dict__",
})  # fmt: skip
# Layers that run Python, or the files that they name.
DENIED = frozenset({"Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"})
# Layers that read a file where their configuration has a path in place of words or numbers.
WORDS = ("vocabulary", "idf_weights", "vocabulary_file")
PLACES = ("layers", "models", "initializers", "regularizers", "constraints", "activations",
          "dtype_policies", "quantizers")  # fmt: skip


def why_not(part: dict, trusted: Collection[str]) -> str | None:
    """Return what is wrong with one object of a configuration, None if nothing is."""
    name, module = part.get("class_name"), part.get("module")
    if name is None:
        return None
    if not isinstance(name, str) or not isinstance(module, str | None):
        return "names no class"
    own = part.get("registered_name")
    if name in trusted or (isinstance(own, str) and own in trusted):
        return None
    if name in ("__lambda__", *DENIED):
        return CODE
    if name in VALUES:
        return None
    if name == "function":
        known = isinstance(part.get("config"), str) and _found("activations", part["config"])
        return None if known else f"names function {str(part.get('config'))[:100]!r}"
    if not _is_of_keras(name, module):
        return f"is of class {f'{module}.{name}'[:100]!r}"
    config = part.get("config")
    if isinstance(config, dict) and any(isinstance(config.get(word), str) for word in WORDS):
        return "reads its words from a file"
    return None


def _is_of_keras(name: str, module: str | None) -> bool:
    """Tell whether a class is one of Keras' own that only computes."""
    if module is None or module in ("keras", *(f"keras.{place}" for place in PLACES)):
        return name == "DTypePolicy" or any(_found(place, name) for place in PLACES)
    if not module.startswith(("keras.src.ops.", "keras.src.layers.", "keras.src.models.",
                              "keras.src.applications.")):  # fmt: skip
        return False
    import keras

    found = getattr(sys.modules.get(module), name, None)
    return isinstance(found, type) and issubclass(found, keras.Operation)


def _found(place: str, name: str) -> bool:
    import keras

    found = getattr(getattr(keras, place, None), name, None)
    if place == "models" and name == "Functional":
        return True
    return callable(found) and not name.startswith("_")
