"""Layers of the user's classes: which compute what a class of Keras does."""

from __future__ import annotations

import sys
from typing import Any
from weakref import WeakKeyDictionary

import tensorflow as tf
import tf_keras

from keras_edgeq.errors import SimMismatchError, UnsupportedModelError, first_words
from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.rebuild import clone, infer
from keras_edgeq.keras3.layers import arguments
from keras_edgeq.prepare.trace import first_difference

L = tf_keras.layers
# What a class may say of its own without computing otherwise than its base.
HARMLESS = frozenset({
    "__init__", "__module__", "__doc__", "__qualname__", "__dict__", "__weakref__",
    "__firstlineno__", "__static_attributes__", "__annotations__", "__repr__", "__slots__", "build",
    "get_config", "from_config", "compute_output_shape", "_keras_api_names", "_keras_api_names_v1",
})  # fmt: skip
APPLICATIONS = ["tf_keras", "src", "applications"]
_REGISTERED: WeakKeyDictionary[type, type] = WeakKeyDictionary()


def register_layer(layer: type, like: type) -> type:
    """Say that a layer class of yours computes what a Keras class does, and return it.

    Layers of the class are then taken as layers of the other: with its integer kernels, and open to
    all techniques. For a class that overrides how it computes but not what; one that overrides
    nothing of that needs no word. Each layer is compared with what it is taken as.

    Args:
        layer: a subclass of `tf_keras.layers.Layer`. Its weights are those of `like`, in order and
            shape, and its `get_config()` has the settings of `like` by the same names.
        like: a class of `tf_keras.layers`.

    Raises:
        UnsupportedModelError: one of them is no such class. `quantize`, `describe` and others raise
            `SimMismatchError` where a layer of the class computes something else.

    Example:
        >>> import tf_keras, keras_edgeq as eq
        >>> class Scored(tf_keras.layers.Dense):
        ...     def call(self, inputs):
        ...         return super().call(inputs)
        >>> Scored is eq.register_layer(Scored, like=tf_keras.layers.Dense)
        True
        >>> x = tf_keras.Input((4,))
        >>> model = tf_keras.Model(x, Scored(2, name="score")(x))
        >>> [(row.layer, row.op) for row in eq.describe(model).rows]
        [('score', 'Dense')]
    """
    if not (_is_layer(layer) and is_own_class(layer)):
        raise UnsupportedModelError(
            f"Got {layer!r} to register; give a class of your own that inherits from "
            "tf_keras.layers.Layer (the class, not a layer)."
        )
    if not _is_layer(like) or is_own_class(like) or like in (L.Layer, L.Lambda):
        raise UnsupportedModelError(
            f"Got like={like!r}; give the class of tf_keras.layers that {layer.__name__} computes "
            "the same as, such as like=tf_keras.layers.Conv2D."
        )
    _REGISTERED[layer] = like
    return layer


def is_own_class(kind: type) -> bool:
    """Tell whether a class of layers is neither of Keras nor of this package."""
    if kind.__module__.partition(".")[0] not in ("tf_keras", "keras_edgeq"):
        return True
    if kind.__module__.split(".")[:3] == APPLICATIONS:  # written as a user's
        return True
    return getattr(sys.modules[kind.__module__], kind.__name__, None) is not kind


def is_own(layer: Any) -> bool:
    """Tell whether a layer or model computes with code of the user's."""
    if isinstance(layer, tf_keras.Model):
        return not keras_compat.is_graph_model(layer) or keras_compat.overrides_call(layer)
    return type(layer) is L.Lambda or is_own_class(type(layer))


def _is_registered(layer: Any) -> bool:
    """Tell whether the user said what a layer computes."""
    return type(layer) in _REGISTERED


def base_of(layer: Any) -> type | None:
    """Return the class of Keras that computes what a layer of the user's class does, if known."""
    if _is_registered(layer):
        return _REGISTERED[type(layer)]
    own = [kind for kind in type(layer).__mro__ if _is_layer(kind) and is_own_class(kind)]
    mixins = [kind for kind in type(layer).__mro__ if not _is_layer(kind)]
    base = next((k for k in type(layer).__mro__ if _is_layer(k) and not is_own_class(k)), L.Layer)
    if base in (L.Layer, L.Lambda) or issubclass(base, tf_keras.Model):
        return None
    known = {name for kind in base.__mro__ for name in vars(kind)}
    before = type(layer).__mro__.index(base)
    own += [kind for kind in mixins if type(layer).__mro__.index(kind) < before]
    changed = {name for kind in own for name in vars(kind)} & known - HARMLESS
    methods = {name for name in vars(layer) if callable(getattr(base, name, None))}
    return None if changed or methods else base


def based(layer: Any, name: str, args: tuple, kwargs: dict) -> list[Any]:
    """Return a layer of the user's as one of the Keras class that computes the same, if any does.

    Raises:
        SimMismatchError: it was registered as such, and is none.
    """
    base = base_of(layer)
    if base is None:
        return []
    said = f"Layer {layer.name!r} ({type(layer).__name__}) is registered as {base.__name__}"

    def computed(_, args, kwargs):
        infer(new, args, kwargs)  # makes the variables
        new.set_weights(layer.get_weights())
        return infer(new, args, kwargs)

    try:
        new = _as_base(layer, base, name)
        found = first_difference(layer, computed, args, kwargs)
    except (UnsupportedModelError, TypeError, ValueError, tf.errors.OpError) as error:
        if not _is_registered(layer):
            return []
        raise UnsupportedModelError(
            f"{said}, but cannot be made one: {first_words(error)}"
        ) from error
    if found is None:
        return [new]
    if not _is_registered(layer):
        return []
    gap = found[1]
    raise SimMismatchError(
        f"{said}, but has {gap.wanted:.6g} where that has {gap.got:.6g} on random inputs. Register "
        "only classes that compute the same, with the same settings and weights.",
        layer.name,
        gap.wanted,
        gap.got,
    )


def _as_base(layer: Any, base: type, name: str) -> Any:
    """Return a layer as one of the Keras class that computes the same, without weights yet.

    Raises:
        UnsupportedModelError: it lacks settings of that class.
    """
    if isinstance(layer, base):  # the class itself writes its settings; the user's may add to them
        return clone(layer, base, base.get_config(layer), name=name)
    taken = arguments(base)
    config = {k: v for k, v in layer.get_config().items() if k in taken}
    return clone(layer, base, config, name=name)


def _is_layer(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, L.Layer)
