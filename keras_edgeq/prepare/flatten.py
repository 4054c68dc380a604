"""One graph of Keras' own layers: nested models and layers of the user's are opened into it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import tensorflow as tf
import tf_keras

from keras_edgeq.errors import UnsupportedModelError
from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.masks import Masks
from keras_edgeq.graph.rebuild import Call, calls, clone, copy_weights, rebuild, replay
from keras_edgeq.prepare.lost_masks import LostMasks
from keras_edgeq.prepare.own_layers import based, is_own
from keras_edgeq.prepare.time_distributed import each_step, why_together
from keras_edgeq.prepare.trace import (
    Trace,
    first_difference,
    signature,
    trace,
    warn_frozen,
    warn_shared,
    with_masks,
)

L = tf_keras.layers
# Layers of Keras that are opened once their masks are tensors.
ATTENTION = (L.MultiHeadAttention, L.Attention, L.AdditiveAttention)


def flatten_nested(model: tf_keras.Model, is_traced: bool = False) -> tf_keras.Model:
    """Return an equal functional model without models inside.

    An inner layer is named by its path (`encoder/dense`), so names of inner models cannot collide.
    A model that is called twice becomes layers that are called twice. A layer of a class of the
    user's becomes one of the Keras class that computes the same, or the layers and operations that
    its call is made of; where neither computes what it does, it stays. A model without any of these
    is returned as it is.

    Args:
        model: a functional model; models inside may be subclassed. It is not changed.
        is_traced: whether it is a trace, whose operations Keras named by numbers.

    Raises:
        UnsupportedModelError: a subclassed model inside cannot be followed; says where and why.
        SimMismatchError: a layer is registered as one of a class that computes something else.
    """
    if not is_traced and _is_flat(model):
        return model
    walk = _Walk(model, is_traced)
    with keras_compat.kept_calls(keras_compat.all_layers(model)):
        flat = rebuild(model, walk.on_layer, on_call=walk.on_call)
    for old, new in walk.copies:
        copy_weights(old, new)
    warn_frozen(walk.frozen)
    warn_shared(walk.shared)
    return flat


def open_attention(model: tf_keras.Model) -> tf_keras.Model:
    """Return the model with attention layers as the projections and operations they are made of.

    Args:
        model: a functional model without models inside, its masks among the arguments of calls; it
            is not changed. The same model without attention layers.
    """
    if not any(type(layer) in ATTENTION for layer in model.layers):
        return model
    walk = _Walk(model, is_traced=False, keras=ATTENTION)
    with keras_compat.kept_calls(keras_compat.all_layers(model)):
        result = rebuild(model, walk.on_layer)
    for old, new in walk.copies:
        copy_weights(old, new)
    return result


def _is_flat(model: tf_keras.Model) -> bool:
    """Tell whether a functional model has Keras' own layers alone."""
    if isinstance(model, tf_keras.Sequential):
        return False
    return not any(map(_is_opened, model.layers))


def _is_opened(layer: Any) -> bool:
    """Tell whether a walk makes something else of a layer than a copy."""
    is_model = keras_compat.is_graph_model(layer)
    return is_model or is_own(layer) or type(layer) is tf_keras.layers.TimeDistributed


def opened(
    layer: Any,
    args: tuple,
    kwargs: dict,
    mask_of: Callable[[Any], Any] = keras_compat.mask_of,
) -> Trace:
    """Return what a layer is made of, for a walk inside of `kept_calls`.

    Args as for `trace`.

    Raises:
        UnsupportedModelError: it cannot be followed, or computes more than that; the message is
            the end of a sentence.
    """
    traced = trace(layer, args, kwargs, mask_of=mask_of)

    def compute(flat: list[Any], *_: Any) -> Any:
        return traced.graph(flat, training=False)

    found = first_difference(layer, compute, args, kwargs, mask_of=mask_of)
    if found is not None:
        number, gap = found
        raise UnsupportedModelError(
            f"what its call is made of has {gap.got:.6g} where it has {gap.wanted:.6g} (output "
            f"{number}): it depends on more than its inputs, such as random numbers or state"
        )
    return traced


def why_closed(layer: Any, args: tuple, kwargs: dict) -> str | None:
    """Return why a layer of the user's stays whole; None where it need not."""
    with keras_compat.kept_calls([layer, *keras_compat.all_layers(layer)]):
        try:
            opened(layer, args, kwargs, lambda _: None)  # hanging masks are none of the graph's
        except UnsupportedModelError as error:
            return str(error)
    return None


class _Walk:
    """One rebuild on its way. A layer that several parts share is made once.

    Args:
        model: the model.
        is_traced: as in `flatten_nested`.
        keras: layers of Keras to open, and no others.

    Attributes:
        copies: layers of the user's model, and what they became.
        frozen: layers whose variables became constants.
        shared: layers whose code computes with weights of other layers.
    """

    def __init__(self, model: tf_keras.Model, is_traced: bool, keras: tuple[type, ...] = ()):
        self._keras = keras
        self.copies: list[tuple[Any, Any]] = []
        self.frozen: dict[str, None] = {}
        self.shared: dict[str, None] = {}
        self._made: dict[int, Any] = {}
        self._graphs: dict[Any, Trace | str] = {}
        self._masks = Masks()
        self._lost = LostMasks(self._masks)
        self._names: dict[int, str] = {}
        self._taken = {keras_compat.producer(tensor)[0].name for tensor in model.inputs}
        self._name(model, "", is_traced)

    def on_layer(self, layer: Any) -> Any:
        """Return the layer, or the function of layers, that a layer becomes."""
        if id(layer) not in self._made:
            self._made[id(layer)] = self._replacement(layer, self._names[id(layer)])
        return self._made[id(layer)]

    def on_call(self, call: Call, new: Any, args: tuple, kwargs: dict) -> Any:
        """Call what a layer became as the model does, its masks among the arguments."""
        if self._keras:
            return new(*args, **kwargs)
        if isinstance(new, L.Layer):
            made = self._masks.call(new, args, kwargs)
        else:
            made = new(*args, **self._masks.given(call.layer, args, kwargs))
        self._lost.see(call, (args, kwargs), made)
        return made

    def _replacement(self, layer: Any, name: str) -> Any:
        if type(layer) not in self._keras if self._keras else not _is_opened(layer):
            return self._copy(layer, name)
        if is_own(layer) or self._keras:
            return self._own(layer, name)
        if type(layer) is tf_keras.layers.TimeDistributed:
            return self._steps(layer, name)
        self._name(layer, f"{name}/", is_traced=False)
        return lambda x, **_: self._replay(layer, keras_compat.flat_inputs(layer, x))

    def _replay(self, inner: tf_keras.Model, inputs: list[Any]) -> Any:
        def visit(call: Call, args: tuple, kwargs: dict) -> Any:
            return self.on_call(call, self.on_layer(call.layer), args, kwargs)

        return replay(inner, inputs, visit)

    def _copy(self, layer: Any, name: str) -> Any:
        self.copies.append((layer, clone(layer, name=name)))
        return self.copies[-1][1]

    def _steps(self, layer: Any, name: str) -> Any:
        """Return what `TimeDistributed` becomes: its layer on all steps at once, if it can be."""
        whole: list[Any] = []
        parts = (self._free(f"{name}{number}") if number else name for number in count())
        if id(layer.layer) not in self._names:
            self._names[id(layer.layer)] = self._free(f"{name}/{layer.layer.name}")

        def apply(x, **kwargs):
            if not whole and why_together(x) is None and kwargs.get("mask") is None:
                made = each_step(layer, next(parts), self.on_layer(layer.layer), x)
                if made is not None:
                    return made
            if not whole:
                whole.append(self._copy(layer, name))
            return self._masks.call(whole[0], (x,), kwargs)

        return apply

    def _own(self, layer: Any, name: str) -> Any:
        """Return what a layer of the user's becomes; how, its first call decides."""
        whole: list[Any] = []
        asked = False

        def apply(*args, **kwargs):
            nonlocal asked
            if not asked and not self._keras:
                whole.extend(based(layer, name, args, kwargs))
                asked = True
            if not whole:
                found = self._trace(layer, name, args, kwargs)
                if isinstance(found, Trace):
                    return self._inside(found, name, args, kwargs)
                self._lost.check_closed(layer, args, kwargs)
                whole.append(self._closed(layer, name, found))
            made = self._masks.call(whole[0], args, kwargs)
            self._lost.lose(layer, made)
            return made

        return apply

    def _inside(self, traced: Trace, name: str, args: tuple, kwargs: dict) -> Any:
        given = with_masks((args, kwargs), self._masks.mask)
        if traced.masks is None:
            return self._replay(traced.graph, given)
        made, masks = self._replay(traced.masks, given)
        self._masks.hold(name, made, masks)
        return made

    def _closed(self, layer: Any, name: str, why: str) -> Any:
        try:
            return self._copy(layer, name)
        except UnsupportedModelError as error:
            raise UnsupportedModelError(f"{error} Nor can its call be followed: {why}.") from error

    def _trace(self, layer: Any, name: str, args: tuple, kwargs: dict) -> Trace | str:
        """Return what a layer is made of in a call, or why it stays; a model has to be opened."""
        masks = tf.nest.map_structure(self._masks.mask, (args, kwargs))
        key = id(layer), signature(args, kwargs), signature(*masks)
        if key not in self._graphs:
            try:
                found = self._graphs[key] = opened(layer, args, kwargs, self._masks.mask)
                self._name(found.masks or found.graph, f"{name}/", is_traced=True)
                if found.loses_variables:
                    self.frozen[name] = None
                if found.shares_variables:
                    self.shared[name] = None
            except UnsupportedModelError as error:
                if isinstance(layer, tf_keras.Model):
                    raise not_followed(layer, name, error) from error
                self._graphs[key] = str(error)
        return self._graphs[key]

    def _name(self, graph: tf_keras.Model, path: str, is_traced: bool) -> None:
        """Name the layers of a graph by its path, and operations of a trace by what they do."""
        layers = {id(call.layer): call.layer for call in calls(graph) if not call.node.is_input}
        symbols = {key: keras_compat.op_symbol(layer) for key, layer in layers.items()}
        for key, layer in sorted(layers.items(), key=lambda item: symbols[item[0]] is not None):
            symbol = symbols[key] if is_traced else None
            if key not in self._names:
                own = symbol.rpartition(".")[2].strip("_") if symbol else layer.name
                self._names[key] = self._free(f"{path}{own}")

    def _free(self, name: str) -> str:
        numbered = (f"{name}_{number}" if number else name for number in count())
        free = next(one for one in numbered if one not in self._taken)
        self._taken.add(free)
        return free


def not_followed(layer: Any, name: str, why: object) -> UnsupportedModelError:
    """Return the error for a model that has to be opened and cannot."""
    return UnsupportedModelError(
        f"Model {name!r} ({type(layer).__name__}) is subclassed, and its call cannot be followed "
        f"on symbolic tensors: {why}. Write it with layers and operations of TensorFlow on whole "
        "tensors, or build the same layers with the functional API, "
        "tf_keras.Model(inputs, outputs)."
    )
