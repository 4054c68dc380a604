"""Masks of symbolic tensors as tensors of their own, beside those that they belong to."""

from __future__ import annotations

import itertools
from typing import Any

import tensorflow as tf
import tf_keras

from keras_edgeq.errors import UnsupportedModelError
from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.name_operations import name_operations
from keras_edgeq.spec.tensor_ref import part_name

ATTENTION = tf_keras.layers.MultiHeadAttention


class Masks:
    """Tensors of one graph on its way, with the masks that belong to them.

    Args:
        known: `id` of each operation that has its name.
    """

    def __init__(self, known: set[int] | None = None):
        self._masks: dict[int, tuple[Any, Any]] = {}
        self._known: set[int] = set() if known is None else known

    def call(self, layer: Any, args: tuple, kwargs: dict) -> Any:
        """Return what a layer makes, called with the masks of what it reads."""
        kwargs = self.given(layer, args, kwargs)
        outputs = layer(*args, **kwargs)
        self.add(layer, layer.name, args, kwargs, outputs)
        return outputs

    def given(self, layer: Any, args: tuple, kwargs: dict) -> dict:
        """Return the keyword arguments of a call, with the masks that Keras would give it."""
        own = self.of(args[0]) if args else None
        if own is not None and "mask" not in kwargs and keras_compat.takes_mask(layer):
            kwargs = {**kwargs, "mask": own}
        return self._attention(layer, args, kwargs) if isinstance(layer, ATTENTION) else kwargs

    def add(self, layer: Any, name: str, args: tuple, kwargs: dict, outputs: Any) -> None:
        """Note the masks of what a layer makes of arguments, as tensors named by the layer."""
        if keras_compat.passes_mask(layer) and args:
            mask = kwargs["mask"] if "mask" in kwargs else self.of(args[0])
            self._note(layer, name, args[0], mask, outputs)

    def of(self, inputs: Any) -> Any:
        """Return the masks of inputs in their structure, None if there is none."""
        found = tf.nest.map_structure(self.mask, inputs)
        return found if any(m is not None for m in tf.nest.flatten(found)) else None

    def mask(self, tensor: Any) -> Any:
        """Return the mask of a tensor, None if there is none."""
        return self._masks.get(id(tensor), (None, None))[1]

    def hold(self, name: str, outputs: Any, masks: Any) -> None:
        """Note tensors as masks of others, and name the operations that make them by a layer."""
        for i, (tensor, made) in enumerate(
            zip(tf.nest.flatten(outputs), tf.nest.flatten(masks), strict=False)
        ):
            if made is not None:
                # After the layer that makes the mask: names of operations are global.
                self._name(made, name, i)
                self._masks[id(tensor)] = tensor, made

    def _name(self, tensor: Any, layer: str, index: int) -> None:
        endings = (f"mask_{number}" if number else "mask" for number in itertools.count(index))
        names = (part_name(layer, ending) for ending in endings)
        name_operations(tensor, self._known, names)

    def _note(self, layer, name, inputs, mask, outputs) -> None:
        try:
            masks = layer.compute_mask(inputs, mask)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise UnsupportedModelError(
                f"Layer {layer.name!r} ({type(layer).__name__}) cannot make its mask a tensor of "
                f"the model: {error} Pass the mask to its reader yourself, reader(x, mask=mask)."
            ) from error
        if masks is not None:
            self.hold(name, outputs, masks)

    def _attention(self, layer: Any, args: tuple, kwargs: dict) -> dict:
        """Return the arguments of an attention layer, which takes masks off its inputs itself."""
        given = dict(zip(("query", "value", "key", "attention_mask"), args, strict=False)) | kwargs
        query, value, key = (self.mask(given.get(name)) for name in ("query", "value", "key"))
        parts = [] if query is None else [query[:, :, tf.newaxis]]
        parts += [mask[:, tf.newaxis, :] for mask in (value, key) if mask is not None]
        own = given.get("attention_mask")
        if not parts or len(args) > 3 or self._is_joined(own, layer):
            return kwargs
        if own is not None:
            parts.append(tf.cast(own, tf.bool))
        joined = parts[0]
        for part in parts[1:]:
            joined = tf.logical_and(joined, part)
        self._name(joined, layer.name, 0)
        return {**kwargs, "attention_mask": joined}

    @staticmethod
    def _is_joined(mask: Any, layer: Any) -> bool:
        """Tell whether an attention mask has been joined with those of inputs by a former walk."""
        if not keras_compat.is_keras_tensor(mask):
            return False
        return keras_compat.producer(mask)[0].name == part_name(layer.name, "mask")
