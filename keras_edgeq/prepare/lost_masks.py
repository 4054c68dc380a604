"""Masks that layers of the user's read or hand on inside, where nobody can follow them."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_edgeq.errors import UnsupportedModelError
from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.masks import ATTENTION, Masks
from keras_edgeq.graph.rebuild import Call, infer
from keras_edgeq.prepare.own_layers import is_own
from keras_edgeq.prepare.trace import first_difference


class LostMasks:
    """Tensors of one walk that have a mask in the user's model and none in the new one.

    Args:
        masks: those of the new tensors.
    """

    def __init__(self, masks: Masks):
        self._masks = masks
        self._lost: dict[int, tuple[Any, Any]] = {}
        self._handing: set[int] = set()

    def see(self, call: Call, given: Any, made: Any) -> None:
        """Note which tensors of a call lost their masks.

        Raises:
            UnsupportedModelError: the call reads a mask that is lost.
        """
        found = [self._lost[id(t)][1] for t in tf.nest.flatten(given) if id(t) in self._lost]
        if found and _reads_mask(call.layer):
            raise UnsupportedModelError(
                f"Layer {found[0].name!r} ({type(found[0]).__name__}) hands on a mask that layers "
                f"inside of it make, and its call cannot be followed: {call.layer.name!r}, which "
                "reads the mask, would not get it. Set supports_masking = True in its __init__, or "
                "write compute_mask(self, inputs, mask), which say the mask of what it makes."
            )
        if found and keras_compat.passes_mask(call.layer):
            self._lost.update({id(t): (t, found[0]) for t in tf.nest.flatten(made)})

    def lose(self, layer: Any, made: Any) -> None:
        """Note what a layer makes that stays whole, where layers inside of it hand on a mask."""
        if id(layer) in self._handing:
            for tensor in tf.nest.flatten(made):
                if self._masks.mask(tensor) is None:
                    self._lost[id(tensor)] = tensor, layer

    def check_closed(self, layer: Any, args: tuple, kwargs: dict) -> None:
        """Look at a layer that stays whole; raise where it computes with masks that hang on inputs.

        Raises:
            UnsupportedModelError: it does; quantized tensors have no masks hanging on them.
        """
        tensors = tf.nest.flatten((args, kwargs))
        if all(self._masks.mask(tensor) is None for tensor in tensors):
            return

        def again(_: list[Any], args: tuple, kwargs: dict) -> Any:
            made = infer(layer, args, kwargs)
            if any(keras_compat.mask_of(tensor) is not None for tensor in tf.nest.flatten(made)):
                self._handing.add(id(layer))
            return made

        def without(_: list[Any], args: tuple, kwargs: dict) -> Any:
            mask = tf.nest.map_structure(keras_compat.mask_of, args[0]) if args else None
            if keras_compat.takes_mask(layer):
                kwargs = {"mask": mask, **kwargs}
            bare = tf.nest.map_structure(lambda v: tf.identity(v) if tf.is_tensor(v) else v, args)
            return infer(layer, bare, kwargs)

        def differs(other: Any) -> bool:
            mask_of = self._masks.mask
            return first_difference(layer, other, args, kwargs, mask_of=mask_of) is not None

        if not differs(again) and differs(without):
            raise UnsupportedModelError(
                f"Layer {layer.name!r} ({type(layer).__name__}) computes with the mask that hangs "
                "on its input, and its call cannot be followed: quantized, the input has none. "
                "Take it off, x = tf.identity(x), and give layers inside the mask that "
                "call(self, x, mask=None) is given."
            )


def _reads_mask(layer: Any) -> bool:
    return keras_compat.takes_mask(layer) or isinstance(layer, ATTENTION) or is_own(layer)
