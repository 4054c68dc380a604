"""Hold a file of Keras 3 against what is known to only compute, before Keras reads it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Collection
from typing import Any

# What is found, where it is Python.
CODE = "holds code"
# Values that JSON has no form for. What is in them is looked through as well.
VALUES = frozenset({
    "__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__tuple__", "__ellipsis__",
    "__slice__", "slice", "__list__", "__dict__",
})  # fmt: skip
# Layers that run Python, or the files that they name.
DENIED = frozenset({"Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"})
# Layers that read a file where their configuration has a path in place of words or numbers.
WORDS = ("vocabulary", "idf_weights", "vocabulary_file")
# Functions that make an object of any configuration.
READERS = frozenset({"get", "serialize", "deserialize"})
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
    if name in VALUES or (name == "__typespec__" and is_plain_spec(part)):
        return None
    if name == "function":
        function = part.get("config")
        known = isinstance(function, str) and inspect.isfunction(_found("activations", function))
        known = known and function not in READERS
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
        found = [_found(place, name) for place in PLACES]
        return name in ("DTypePolicy", "Functional") or any(isinstance(one, type) for one in found)
    if not module.startswith(("keras.src.ops.", "keras.src.layers.", "keras.src.models.",
                              "keras.src.applications.")):  # fmt: skip
        return False
    import keras

    found = getattr(sys.modules.get(module), name, None)
    return isinstance(found, type) and issubclass(found, keras.Operation)


def _found(place: str, name: str) -> Any:
    import keras

    return None if name.startswith("_") else getattr(getattr(keras, place, None), name, None)


def is_plain_spec(part: dict) -> bool:
    """Tell whether a type in a configuration is that of a plain tensor."""
    name = part.get("type_spec", part.get("spec_name"))
    plain = name in ("tf.TensorSpec", "TensorSpec") and part.get("registered_name") is None
    return plain and str(part.get("module", "tensorflow")).partition(".")[0] == "tensorflow"
