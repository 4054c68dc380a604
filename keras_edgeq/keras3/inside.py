"""Models inside and opened layers, which are given the masks of what they read as tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf
import tf_keras

from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.masks import Masks
from keras_edgeq.keras3 import compat


@dataclass(frozen=True, eq=False)
class Inside:
    """What calls a graph of `tf_keras` on flat tensors and the masks of these.

    Args:
        graph: reads tensors and behind them masks; makes tensors and behind them masks.
        masks: of all tensors.
        is_opened: whether it is a layer, which reads each tensor once.
        masked: which of the tensors that it makes have masks.
    """

    graph: tf_keras.Model
    masks: Masks
    is_opened: bool
    masked: tuple[int, ...]

    def __call__(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Return what the graph makes, and behind it the masks of `masked`."""
        tensors, masks = read(args, kwargs, self.masks, self.is_opened)
        given = [*tensors, *(mask for mask in masks if mask is not None)]
        return tf.nest.flatten(self.graph(given if len(given) > 1 else given[0]))

    def hold(self, name: str, outputs: list[Any], masks: list[Any]) -> None:
        """Note the masks that a call made."""
        found = dict(zip(self.masked, masks, strict=True))
        self.masks.hold(name, outputs, [found.get(n) for n in range(len(outputs))])


def read(args: tuple, kwargs: dict, masks: Masks, is_opened: bool) -> tuple[list[Any], list[Any]]:
    """Return the tensors that a call reads, and the mask of each.

    An opened layer reads each tensor once. Models take masks as an argument, too.
    """
    own = None if is_opened else kwargs.get("mask")
    given = (args, kwargs if is_opened else {k: v for k, v in kwargs.items() if k != "mask"})
    tensors = [value for value in tf.nest.flatten(given) if keras_compat.is_keras_tensor(value)]
    tensors = list({id(t): t for t in tensors}.values()) if is_opened else tensors
    return tensors, list(map(masks.mask, tensors)) if own is None else tf.nest.flatten(own)


def mask_inputs(tensors: list[Any], masked: tuple[int, ...]) -> list[Any]:
    """Return inputs for the masks of inputs."""
    return [tf_keras.Input(batch_shape=tuple(tensors[n].shape)[:2], dtype="bool") for n in masked]


def passes_mask(node: Any, values: dict[int, Any], masks: Masks) -> bool:
    """Tell whether a layer of Keras 3 hands on a mask, those of what it reads being known.

    Its symbols do not say: they have no masks behind a model inside, for example.
    """
    if not compat.is_keras3(node.operation) or not node.operation.supports_masking:
        return False
    has = {id(s) for s in compat.symbols(node) if masks.mask(values[id(s)]) is not None}
    return compat.makes_mask(node, lambda symbol: id(symbol) in has)


def unmasked_by(node: Any) -> list[Any]:
    """Return the tensors that have no mask behind a call: attention of Keras 3 takes them off."""
    takes = compat.is_instance(node.operation, "layers", "MultiHeadAttention")
    return compat.symbols(node) if takes else []


def without_mask(tensor: Any, masks: Masks) -> Any:
    """Return a tensor without a mask."""
    return tensor if masks.mask(tensor) is None else tf.identity(tensor)


def without_lost_mask(tensor: Any, masks: Masks) -> Any:
    """Return a tensor without a mask that `tf_keras` carries on, and Keras 3 does not."""
    is_hung = keras_compat.is_keras_tensor(tensor) and keras_compat.mask_of(tensor) is not None
    return tf.identity(tensor) if is_hung and masks.mask(tensor) is None else tensor


def as_model(name: str, graph: Any, inputs: list[Any], values: dict[int, Any]) -> tf_keras.Model:
    """Return the model of a graph of Keras 3, in the structure that its user gave."""
    import keras

    given, made = compat.structure(graph)
    outputs = keras.tree.map_structure(lambda symbol: values[id(symbol)], made)
    packed = keras.tree.pack_sequence_as(given, inputs)
    if isinstance(packed, list | tuple) and len(packed) == 1:
        packed = packed[0]
    return tf_keras.Model(packed, outputs, name=name)
