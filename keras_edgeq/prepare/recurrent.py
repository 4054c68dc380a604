"""Recurrent layers as their steps, of parts that all steps share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import tensorflow as tf
import tf_keras

from keras_edgeq.graph import keras_compat
from keras_edgeq.graph.rebuild import calls, clone, copy_weights, rebuild
from keras_edgeq.prepare.cells import CELLS, Operation, as_parts
from keras_edgeq.spec.tensor_ref import part_name

L, R = tf_keras.layers, tf_keras.regularizers
MOST_STEPS = 128
RECURRENT = (L.LSTM, L.GRU, L.SimpleRNN, L.RNN)
UNROLLED = (*RECURRENT, L.Bidirectional)


def unrolled(model: tf_keras.Model) -> tf_keras.Model:
    """Return an equal model with recurrent layers written out, step by step.

    The products of all steps with the input's kernel are those of one `Dense`; the parts of the
    cell are layers that are called once per step. Layers of more than 128 steps, and those of
    which `why_rolled` tells, stay.

    Args:
        model: a functional model without models inside and with masks as arguments; it is not
            changed.
    """
    if not any(type(call.layer) in UNROLLED for call in calls(model)):
        return model
    walk = _Walk()
    result = rebuild(model, walk.on_layer)
    for old, new in walk.copies:
        copy_weights(old, new)
    return result


def why_rolled(layer: Any, args: tuple, kwargs: dict) -> str | None:
    """Return why a recurrent layer is not written out in a call; None if it is."""
    both = [layer.forward_layer, layer.backward_layer] if _is_both(layer) else [layer]
    read = tf.nest.flatten((args, kwargs))
    sequence = read[0]
    if any(type(one) not in RECURRENT for one in both):
        return f"it holds a {next(type(o).__name__ for o in both if type(o) not in RECURRENT)}"
    if any(one.time_major for one in both if hasattr(one, "time_major")):
        return "its first axis is time (time_major=True)"
    if not keras_compat.is_keras_tensor(sequence) or sequence.shape.rank != 3:
        return "it reads more than one vector per step"
    steps, features = sequence.shape[1:]
    if steps is None or features is None:
        return "its number of steps is not known; build the model with Input((steps, features))"
    if steps > MOST_STEPS:
        return f"{steps} steps; up to {MOST_STEPS} are unrolled"
    if any(one.activity_regularizer for one in (layer, *both)):
        return "it has an activity_regularizer"
    cells = [cell for one in both for cell in _cells(one)]
    return next(filter(None, map(_why_cell, cells)), None) or _why_states(cells, args, kwargs)


def _why_states(cells: list[Any], args: tuple, kwargs: dict) -> str | None:
    states = _states(args, kwargs)
    if len(states) not in (0, sum(map(_count, cells))) or kwargs.get("constants") is not None:
        return "it reads constants"
    if not all(map(keras_compat.is_keras_tensor, states)):
        return "its initial state is a constant"
    return None if all(t.dtype == tf.float32 for t in states) else "its state is not float32"


def _why_cell(cell: Any) -> str | None:
    if type(cell) not in CELLS:
        return f"its cell is a {type(cell).__name__}"
    for name, value in vars(cell).items():
        if name.endswith("activation") and isinstance(value, L.Layer):
            return f"its {name} is a layer"
        is_regularizer = name.endswith("_regularizer") and not name.startswith("_")
        if is_regularizer and value is not None and type(value) not in (R.L1, R.L2, R.L1L2):
            return f"its {name} is not one of L1, L2 and L1L2"
    return None


def _is_both(layer: Any) -> bool:
    return type(layer) is L.Bidirectional


def _cells(layer: Any) -> list[Any]:
    """Return the cells of a layer, one after the other."""
    cell = layer.cell
    return list(cell.cells) if type(cell) is L.StackedRNNCells else [cell]


def _count(cell: Any) -> int:
    """Return the number of tensors that are the state of a cell."""
    return len(tf.nest.flatten(cell.state_size))


def _states(args: tuple, kwargs: dict) -> list[Any]:
    """Return the initial states in a call: behind the sequence, or by name."""
    given = kwargs.get("initial_state")
    return tf.nest.flatten(args)[1:] if given is None else tf.nest.flatten(given)


class _Walk:
    """One rebuild on its way.

    Attributes:
        copies: layers that stay, and what they became.
    """

    def __init__(self):
        self.copies: list[tuple[Any, Any]] = []

    def on_layer(self, layer: Any) -> Any:
        """Return the function of tensors that a recurrent layer becomes; None for others."""
        if type(layer) not in UNROLLED:
            return None
        whole: list[Any] = []
        made: list[Any] = []

        def apply(*args, **kwargs):
            if why_rolled(layer, args, kwargs) is None:
                if not made:
                    made.append(_Both(layer) if _is_both(layer) else _Steps(layer, layer.name))
                sequence, mask = tf.nest.flatten(args)[0], kwargs.get("mask")
                return made[0](sequence, _states(args, kwargs), _first(mask))
            if not whole:
                whole.append(clone(layer))
                self.copies.append((layer, whole[0]))
            return whole[0](*args, **kwargs)

        return apply


def _first(mask: Any) -> Any:
    """Return the mask of the sequence, which may stand before those of states."""
    return mask[0] if isinstance(mask, list | tuple) else mask


class _Both:
    """A `Bidirectional` as the steps of its two layers."""

    def __init__(self, layer: Any):
        self.layer, name = layer, layer.name
        pair = (layer.forward_layer, layer.backward_layer)
        self.pair = [_Steps(one, part_name(name, one.name), layer.trainable) for one in pair]
        self.merge = _MERGES[layer.merge_mode](name)

    def __call__(self, sequence: Any, states: list[Any], mask: Any) -> Any:
        half = len(states) // 2
        forward, ends = self.pair[0].run(sequence, states[:half], mask)
        backward, others = self.pair[1].run(sequence, states[half:], mask)
        if self.layer.return_sequences:
            forward, backward = self.pair[0].whole(forward), self.pair[1].whole(backward[::-1])
        else:
            forward, backward = forward[-1], backward[-1]
        made = self.merge(forward, backward)
        if not self.layer.return_state:
            return made
        return [*(made if isinstance(made, list) else [made]), *ends, *others]


class _Steps:
    """A recurrent layer as its cells; all its calls share them."""

    def __init__(self, layer: Any, name: str, trainable: bool = True):
        self.layer = layer
        self.whole = partial(Operation(tf.stack, name), axis=1)
        self.column = Operation(tf.expand_dims, part_name(name, "mask_column"))
        self.masks = Operation(tf.unstack, part_name(name, "mask_steps"))
        is_stacked = type(layer.cell) is L.StackedRNNCells
        self.cells = [
            _Walked(cell, part_name(name, f"cell_{n}") if is_stacked else name, layer, trainable)
            for n, cell in enumerate(_cells(layer))
        ]

    def __call__(self, sequence: Any, states: list[Any], mask: Any) -> Any:
        outputs, ends = self.run(sequence, states, mask)
        made = self.whole(outputs) if self.layer.return_sequences else outputs[-1]
        return [made, *ends] if self.layer.return_state else made

    def run(self, sequence: Any, states: list[Any], mask: Any) -> tuple[list[Any], list[Any]]:
        """Return the outputs of all steps as they are computed, and the last states."""
        ends: list[Any] = []
        masks = None if mask is None else self.masks(self.column(mask, axis=-1), axis=1)
        if masks is not None and self.layer.go_backwards:
            masks = masks[::-1]
        outputs: list[Any] = []
        for number, cell in enumerate(self.cells):
            read = cell.read(sequence)
            if self.layer.go_backwards and not number:
                read = read[::-1]
            given, states = states[: cell.states], states[cell.states :]
            outputs, last = cell.walk(read, given, masks)
            ends += last
            if cell is not self.cells[-1]:
                sequence = cell.whole(outputs)
        return outputs, ends


class _Walked:
    """A cell on its way from step to step."""

    def __init__(self, cell: Any, name: str, layer: Any, trainable: bool):
        self.parts = as_parts(cell, name, trainable and layer.trainable)
        self.states = _count(cell)
        self.whole = partial(Operation(tf.stack, part_name(name, "sequence")), axis=1)
        self.hold = [Operation(tf.where, part_name(name, f"held_{n}")) for n in range(self.states)]
        self.hold_output = Operation(tf.where, part_name(name, "held_output"))
        self.is_zero = layer.zero_output_for_mask
        # What Keras draws once for all steps.
        self.dropout = None
        if cell.dropout:
            self.dropout = L.SpatialDropout1D(cell.dropout, name=part_name(name, "dropout"))

    def read(self, sequence: Any) -> list[list[Any]]:
        """Return what the cell reads of each step."""
        return self.parts.project(sequence if self.dropout is None else self.dropout(sequence))

    def walk(
        self, read: list[list[Any]], states: Sequence[Any], masks: list[Any] | None
    ) -> tuple[list[Any], Sequence[Any]]:
        """Return the outputs and the last states; masked steps keep what was."""
        outputs: list[Any] = []
        is_given = bool(states)
        for number, one in enumerate(read):
            new = self.parts.step(one, states)
            if masks is None:
                states = new
                outputs.append(new[0])
                continue
            mask, before = masks[number], states or [0.0] * self.states
            trio = zip(self.hold, new, before, strict=True)
            states = [hold(mask, state, old) for hold, state, old in trio]
            if self.is_zero or is_given:
                last = outputs[-1] if outputs and not self.is_zero else 0.0
                outputs.append(self.hold_output(mask, new[0], last))
            else:
                outputs.append(states[0])
        return outputs, states


def _halved(name: str) -> Any:
    both, half = L.Add(name=part_name(name, "both")), Operation(tf.multiply, name)
    return lambda one, other: half(both([one, other]), 0.5)


def _of_two(kind: type) -> Any:
    def made(name: str) -> Any:
        layer = kind(name=name)
        return lambda one, other: layer([one, other])

    return made


# By the `merge_mode` of a `Bidirectional`, for the name of what it becomes.
_MERGES: Mapping[str | None, Callable[[str], Any]] = {
    "concat": _of_two(L.Concatenate),
    "sum": _of_two(L.Add),
    "mul": _of_two(L.Multiply),
    "ave": _halved,
    None: lambda _: lambda *both: list(both),
}
