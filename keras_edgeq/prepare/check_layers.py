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
from keras_edgeq.ops.operands import resampling
from keras_edgeq.ops.table import WEIGHTED
from keras_edgeq.prepare.separable import PARTS

L = tf_keras.layers
SPLIT = (*WEIGHTED, *PARTS, L.Activation)
EXPORTED_METHODS = ("bilinear", "nearest")
LOOKUPS = (L.StringLookup, L.IntegerLookup, L.TextVectorization, L.Hashing, L.HashedCrossing)


def check_layers(model: tf_keras.Model) -> None:
    """Raise if a layer, or one inside of another, cannot be copied or exported.

    Raises:
        UnsupportedModelError: names the layer, why, and what to do.
    """
    for call in calls(model):
        method = resampling(call.node)
        if method is not None and method not in EXPORTED_METHODS:
            raise UnsupportedModelError(
                f"Layer {call.layer.name!r} resizes by {method!r}, which LiteRT and ONNX Runtime "
                "do not have, or compute differently. Resize the images in front of the model, or "
                f"by {' or '.join(EXPORTED_METHODS)}, without antialias."
            )
    for layer in model.layers:
        if isinstance(layer, tf_keras.Model):
            continue  # has its own check
        for part in (layer, *keras_compat.all_layers(layer)):
            is_split = part is layer and type(layer) in SPLIT
            whys = (_activation(part, is_split), *(check(part) for check in CHECKS))
            for why in filter(None, whys):
                inside = "" if part is layer else f" (in {layer.name!r})"
                raise UnsupportedModelError(f"Layer {part.name!r}{inside} {why}")


def _activation(layer: Any, is_split: bool) -> str | None:
    """Return why an activation of a layer cannot be copied."""
    found = {n: v for n, v in vars(layer).items() if n.endswith("activation") and callable(v)}
    for name, function in found.items():
        why = _uncopied(function, is_split)
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
    kind, counts = type(layer), getattr(layer, "output_mode", "int") != "int"
    if kind in LOOKUPS:
        does = "looks up strings or keys"
    elif kind is L.Discretization and counts:
        does = f"counts in bins (output_mode={layer.output_mode!r})"
    else:
        return None
    return (
        f"({kind.__name__}) {does}, which neither TFLite nor ONNX files do. Leave it in front of "
        "the model: map the data with it, and build the model from an Input of what the layer "
        "makes (tf_keras.Model(its_output, model.output) is the rest of the model)."
    )


def _random_crop(layer: Any) -> str | None:
    if type(layer) is L.RandomCrop:
        size = f"{layer.height}, {layer.width}"
        return (
            "(RandomCrop) draws random numbers in every call, which no exported file does. Crop in "
            "front of the model, or quantize a model with what it is at inference in its place: "
            f"Resizing({size}, crop_to_aspect_ratio=True)."
        )
    return None


NAMED = "Give it a function with a name (def my_activation(x): ...) or a layer."
CHECKS: tuple[Callable[[Any], str | None], ...] = (_state, _lookup, _random_crop)
