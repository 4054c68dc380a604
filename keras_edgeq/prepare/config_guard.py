"""Hold a saved configuration against what it may name, before Keras sees the file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

import tf_keras

from keras_edgeq.keras3.guard import CODE, WORDS, is_plain_spec
from keras_edgeq.prepare import allowed

PYTHON_CODE = frozenset({"Lambda", "__lambda__"})
# Values that JSON has no form for. What is in them is looked through as well.
VALUES = frozenset(
    {"__tensor__", "__numpy__", "__bytes__", "__tuple__", "__ellipsis__", "TensorShape"}
)
SPECS = frozenset({"TypeSpec", "__typespec__"})
OPERATIONS = frozenset({"TFOpLambda", "SlicingOpLambda"})
# What a registered class of the caller's has to be one of.
BASES = (
    tf_keras.layers.Layer, tf_keras.initializers.Initializer, tf_keras.regularizers.Regularizer,
    tf_keras.constraints.Constraint, tf_keras.losses.Loss, tf_keras.metrics.Metric,
    tf_keras.optimizers.Optimizer, tf_keras.optimizers.legacy.Optimizer,
    tf_keras.optimizers.schedules.LearningRateSchedule,
)  # fmt: skip

Finding = tuple[str, str]
WhyNot = Callable[[dict, Collection[str]], str | None]


def refused(
    config: Any, trusted: Collection[str] = (), why_not: WhyNot | None = None
) -> Iterator[Finding]:
    """Yield what a configuration names and may not, at any depth: nested models, wrappers.

    Args:
        config: JSON values.
        trusted: names that the caller passed as custom objects.
        why_not: what is wrong with one object; None checks those of `tf_keras`.

    Yields:
        The layer, and what is wrong with it as the rest of a sentence; `CODE` for Python code.
    """
    # A part, the layer that it belongs to, and whether Keras may make an object of it.
    parts: list[tuple[Any, str]] = [(config, "a layer without a name")]
    while parts:
        part, owner = parts.pop()
        if isinstance(part, list):
            parts += [(item, owner) for item in reversed(part)]
        elif isinstance(part, dict):
            inner = part.get("config")
            name = inner.get("name") if isinstance(inner, dict) else part.get("name")
            owner = name if isinstance(name, str) else owner
            why = (why_not or _why_not)(part, trusted)
            if why:
                yield owner, why
            parts += [(item, owner) for item in reversed(list(part.values()))]


def _why_not(part: dict, trusted: Collection[str]) -> str | None:
    """Return what is wrong with one object of a configuration, None if nothing is."""
    if part.get("function_type") in PYTHON_CODE:
        return CODE
    kind = part.get("class_name")
    if kind is None:
        return _words(part)
    if not isinstance(kind, str):
        return f"has a class that is not a name: {str(kind)[:60]!r}"
    if kind in PYTHON_CODE:
        return CODE
    if kind in VALUES or (kind in SPECS and is_plain_spec(part)):
        return None
    module, inner = part.get("module"), part.get("config")
    if kind == "function":
        return _why_no_function(inner, module, trusted)
    if not isinstance(inner, dict | list | None):
        return f"has {str(inner)[:60]!r} instead of the configuration of a {kind[:60]}"
    name = part.get("registered_name") or kind
    if not isinstance(name, str):
        return f"has a name that is not a text: {str(name)[:60]!r}"
    if name in trusted or (kind in trusted and name == kind):
        return None
    found = tf_keras.utils.get_registered_object(name)
    if found is not None:
        known = isinstance(found, type) and issubclass(found, BASES)
    else:
        plain = name == kind and allowed.is_keras_module(module)
        known = plain and kind in allowed.classes()
    if not known:
        place = f"{module}." if isinstance(module, str) else ""
        return f"is of class {place[:60]}{kind[:60]}"
    symbol = inner.get("function") if isinstance(inner, dict) else None
    if kind in OPERATIONS and not allowed.is_operation(str(symbol)):
        return f"calls {str(symbol)[:60]}"
    return None


def _why_no_function(name: Any, module: Any, trusted: Collection[str]) -> str | None:
    if not isinstance(name, str):
        return f"calls a function that is not a name: {str(name)[:60]!r}"
    registered = callable(tf_keras.utils.get_registered_object(name))
    known = allowed.is_keras_module(module) and name in allowed.functions()
    place = "" if allowed.is_keras_module(module) else f"{str(module)[:60]}."
    return None if name in trusted or registered or known else f"calls {place}{name[:60]}"


def _words(config: dict) -> str | None:
    path = next((config[key] for key in WORDS if isinstance(config.get(key), str)), None)
    return None if path is None else f"reads the file {path[:60]!r}"
