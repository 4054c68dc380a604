"""Say of single layers why they cannot be taken, with the way out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType
from typing import Any

import tf_keras

from keras_edgeq.errors import UnsupportedModelError
from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.rebuild import calls
from keras_edgeq.layers.layer_traits import WEIGHTED
from keras_edgeq.layers.operands import resampling
from keras_edgeq.prepare.separable import PARTS

L = tf_keras.layers
SPLIT = (*WEIGHTED, *PARTS, L.Activation)
EXPORTED_METHODS = ("bilinear", "nearest", "bicubic")
LOOKUPS = (L.StringLookup, L.IntegerLookup, L.TextVectorization, L.Hashing, L.HashedCrossing)


def check_layers(model: tf_keras.Model) -> None:
    """Raise where a layer, or one inside of another, cannot be copied or exported.

    Raises:
        UnsupportedModelError: names the layer, why, and what to do.
    """
    for call in calls(model):
        method = resampling(call.node)
        if method is not None and method not in EXPORTED_METHODS:
            raise UnsupportedModelError(
                f"Layer {call.layer.name!r} resizes by {method!r}, which neither TFLite nor ONNX "
                "files do. Resize the images before the model, or by one of "
                f"{', '.join(EXPORTED_METHODS)}, without antialias."
            )
    for layer in model.layers:
        for part in (layer, *keras_compat.all_layers(layer)):
            for check in CHECKS:
                why = check(part)
                if why is not None:
                    inside = "" if part is layer else f" (in {layer.name!r})"
                    raise UnsupportedModelError(f"Layer {part.name!r}{inside} {why}")


def _activation(layer: Any) -> str | None:
    """Return why an activation of a layer cannot be copied."""
    found = {n: v for n, v in vars(layer).items() if n.endswith("activation") and callable(v)}
    for name, function in found.items():
        why = _uncopied(function, type(layer) in SPLIT)
        if why is not None:
            return f"has {why} for its {name}. {NAMED}"
    return None


def _uncopied(function: Any, is_split: bool) -> str | None:
    if isinstance(function, tf_keras.Model):
        return "a model, which is to be called behind the layer instead,"
    if isinstance(function, functools.partial):
        inner = _uncopied(function.func, is_split)
        return inner if is_split or inner else "a partial function, which Keras cannot save,"
    if isinstance(function, L.Layer):
        return None
    if getattr(function, "__name__", "") == "<lambda>":
        return "a lambda, which cannot be copied,"
    if isinstance(function, FunctionType | BuiltinFunctionType):
        return None
    return f"a {type(function).__name__} object, which cannot be copied,"


def _state(layer: Any) -> str | None:
    if isinstance(layer, L.RNN) and layer.stateful:
        return (
            "is stateful: its state outlives a call, which no exported file holds. Build it with "
            "stateful=False; to carry the state, make it an input and an output of the model: "
            "layer(x, initial_state=[...]) with return_state=True."
        )
    return None


def _lookup(layer: Any) -> str | None:
    if type(layer) in LOOKUPS:
        return (
            f"({type(layer).__name__}) looks up strings or keys, which neither TFLite nor ONNX "
            "files do. Leave it in front of the model: map the data with it, and build the model "
            "from an Input of what the layer makes (tf_keras.Model(its_output, model.output) is "
            "the rest of the model)."
        )
    return None


NAMED = "Give it a function with a name (def my_activation(x): ...) or a layer."
CHECKS: tuple[Callable[[Any], str | None], ...] = (_activation, _state, _lookup)
