"""Masks as tensors of the graph, so that whoever walks the model carries them along.

Keras hangs a mask on a tensor as an attribute. Whatever makes another tensor of it, such as a
quantizer, a stream of stored activations or a traced export, loses it.
"""

from __future__ import annotations

import itertools
from typing import Any

import tensorflow as tf
import tf_keras

from keras_edgeq.errors import UnsupportedModelError
from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.name_operations import name_operations
from keras_edgeq.graph.rebuild import calls, rebuild
from keras_edgeq.spec.tensor_ref import part_name

L = tf_keras.layers


def masks_to_tensors(model: tf_keras.Model) -> tf_keras.Model:
    """Return the model with every implicit mask passed to its readers as an argument.

    A mask is computed by the layers that Keras has compute it, as operations named
    `<layer>/mask`. A mask that the user passes stays.

    Args:
        model: a functional model without models inside; it is not changed.
    """
    made = (t for call in calls(model) for t in tf.nest.flatten(call.node.outputs))
    if all(keras_compat.mask_of(tensor) is None for tensor in made):
        return model
    walk = _Walk()
    return rebuild(model, on_call=walk.on_call)


class _Walk:
    """One rebuild on its way: tensors with the masks that belong to them."""

    def __init__(self):
        self._masks: dict[int, tuple[Any, Any]] = {}
        self._known: set[int] = set()

    def on_call(self, call, new, args, kwargs):
        own = self._own(args[0]) if args else None
        if own is not None and "mask" not in kwargs and keras_compat.takes_mask(new):
            kwargs = {**kwargs, "mask": own}
        if isinstance(new, L.MultiHeadAttention):
            kwargs = self._attention(args, kwargs)
        outputs = new(*args, **kwargs)
        if keras_compat.passes_mask(new) and args:
            self._add(new, args[0], kwargs.get("mask", own), outputs)
        return outputs

    def _own(self, inputs: Any) -> Any:
        """Return the masks of inputs in their structure, None if there is none."""
        found = tf.nest.map_structure(self._mask, inputs)
        return found if any(m is not None for m in tf.nest.flatten(found)) else None

    def _mask(self, tensor: Any) -> Any:
        return self._masks.get(id(tensor), (None, None))[1]

    def _add(self, layer, inputs, mask, outputs) -> None:
        try:
            masks = layer.compute_mask(inputs, mask)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise UnsupportedModelError(
                f"Layer {layer.name!r} ({type(layer).__name__}) cannot make its mask a tensor of "
                f"the model: {error} Pass the mask to its reader yourself, reader(x, mask=mask)."
            ) from error
        if masks is None:
            return
        for i, (tensor, made) in enumerate(
            zip(tf.nest.flatten(outputs), tf.nest.flatten(masks), strict=False)
        ):
            if made is not None:
                # After the layer that makes the mask: names of operations are global.
                endings = (f"mask_{number}" if number else "mask" for number in itertools.count(i))
                names = (part_name(layer.name, ending) for ending in endings)
                name_operations(made, self._known, names)
                self._masks[id(tensor)] = tensor, made

    def _attention(self, args: tuple, kwargs: dict) -> dict:
        """Return the arguments of an attention layer, which takes masks off its inputs itself."""
        given = dict(zip(("query", "value", "key", "attention_mask"), args, strict=False)) | kwargs
        query, value = self._mask(given.get("query")), self._mask(given.get("value"))
        key = self._mask(given.get("key"))
        parts = [] if query is None else [query[:, :, tf.newaxis]]
        parts += [mask[:, tf.newaxis, :] for mask in (value, key) if mask is not None]
        if not parts or len(args) > 3:
            return kwargs
        if given.get("attention_mask") is not None:
            parts.append(tf.cast(given["attention_mask"], tf.bool))
        joined = parts[0]
        for part in parts[1:]:
            joined = tf.logical_and(joined, part)
        return {**kwargs, "attention_mask": joined}
