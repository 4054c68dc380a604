"""Cells of recurrent layers as operations: one step at a time, of parts that all steps share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
import tf_keras

from keras_edgeq.graph import keras_compat
from keras_edgeq.ops.cell_layers import ADD, MUL, SUB, CellActivation, CellDense, CellOp
from keras_edgeq.ops.plain import SWISH
from keras_edgeq.ops.table import FUNCTIONS, activation_name
from keras_edgeq.prepare.affine import affine
from keras_edgeq.spec.tensor_ref import part_name

L = tf_keras.layers
Function = Callable[[Any], Any]


class Operation:
    """A function of TensorFlow as one layer of a name, however often it is called."""

    def __init__(self, function: Callable[..., Any], name: str):
        self._function, self._name, self._layer = function, name, None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it as the function is called."""
        if self._layer is not None:
            return self._layer(*args, **kwargs)
        made = self._function(*args, **kwargs)
        self._layer = keras_compat.producer(tf.nest.flatten(made)[0])[0]
        keras_compat.rename(self._layer, self._name)
        return made


class Cell(Protocol):
    """A cell of a layer in a model, as parts."""

    def project(self, sequence: Any) -> list[list[Any]]:
        """Return what a cell reads of each step: products of all steps at once, taken apart."""
        ...

    def step(self, read: list[Any], states: Sequence[Any]) -> list[Any]:
        """Return the new states of a step, the output first; no states stand for zeros."""
        ...


class _Parts:
    """Makes the parts of a cell of the user's, with its weights, and names them by the layer."""

    def __init__(self, cell: Any, name: str, trainable: bool):
        self.cell, self.name, self.trainable = cell, name, trainable
        self.activation = self.function("candidate", cell.activation)

    def path(self, part: str) -> str:
        return part_name(self.name, part)

    def op(self, part: str, op: str, is_state: bool = False) -> Callable[[Any, Any], Any]:
        """Return a function of two tensors."""
        layer = CellOp(op, is_state, name=self.path(part))
        return lambda one, other: layer([one, other])

    def function(self, part: str, function: Any) -> Function:
        """Return an activation function, named by what it reads."""
        name = activation_name(function)
        if name == "linear":
            return lambda x: x
        if FUNCTIONS.get(name) == SWISH.name:
            gate = CellActivation("sigmoid", name=self.path(f"{part}/sigmoid"))
            product = self.op(f"{part}/{name}", MUL)
            return lambda x: product(x, gate(x))
        return CellActivation(function, name=self.path(f"{part}/{name}"))

    def projection(self, part: str, columns: np.ndarray, bias: np.ndarray | None) -> Function:
        """Return the products of all steps with columns of the kernel, one tensor per step."""
        name, kernel = self.path(f"{part}_kernel"), self.cell.kernel.numpy()[:, columns]
        dense = self._dense(L.Dense, name, "kernel", kernel, bias)
        steps = Operation(tf.unstack, self.path(f"{part}_steps"))
        return lambda sequence: steps(dense(sequence), axis=1)

    def recurrent(self, part: str, columns: np.ndarray, bias: np.ndarray | None = None) -> Function:
        """Return the product of a state with columns of the recurrent kernel."""
        name = self.path(f"{part}_recurrent")
        kernel = self.cell.recurrent_kernel.numpy()[:, columns]
        dense = self._dense(CellDense, name, "recurrent", kernel, bias)
        rate = self.cell.recurrent_dropout
        if not rate:
            return dense
        dropout = L.Dropout(rate, name=self.path(f"{part}_dropout"))
        return lambda state: dense(dropout(state))

    def split(self, part: str, number: int) -> Function:
        """Return what takes gates apart that are computed together."""
        operation = Operation(tf.split, self.path(part))
        return lambda gates: operation(gates, num_or_size_splits=number, axis=-1)

    def _dense(self, kind: type, name: str, role: str, kernel: np.ndarray, bias: Any) -> Any:
        cell, use_bias = self.cell, bias is not None
        options = {
            "kernel_regularizer": getattr(cell, f"{role}_regularizer"),
            "kernel_constraint": getattr(cell, f"{role}_constraint"),
            "bias_regularizer": cell.bias_regularizer if use_bias else None,
            "bias_constraint": cell.bias_constraint if use_bias else None,
        }
        return kind(
            kernel.shape[1],
            use_bias=use_bias,
            weights=[kernel, bias] if use_bias else [kernel],
            trainable=self.trainable and cell.trainable,
            name=name,
            **options,
        )


class _Gated:
    """What LSTM and GRU have alike: gates that are computed together, and a candidate.

    Gates and candidate own a grid each: the one is read by a function of slope 1/4, the other by
    one of slope 1, to which steps are four times as coarse.
    """

    def __init__(self, parts: _Parts, gates: int, order: Sequence[int]):
        units = parts.cell.units
        columns = [np.arange(units) + units * place for place in order]
        self.parts, self.gate_columns = parts, np.concatenate(columns[:gates])
        self.columns = columns[gates]
        self.recurrent_gates = parts.recurrent("gates", self.gate_columns)
        self.sum, self.candidate_sum = parts.op("gates", ADD), parts.op("candidate", ADD)
        self.gate = parts.function("gates", parts.cell.recurrent_activation)
        self.split = parts.split("gates/each", gates)
        bias = self._bias()
        self.projections = [
            parts.projection(part, own, None if bias is None else bias[own])
            for part, own in (("gates", self.gate_columns), ("candidate", self.columns))
        ]

    def project(self, sequence: Any) -> list[list[Any]]:
        """Return what gates and candidate read of each step."""
        made = (projection(sequence) for projection in self.projections)
        return [list(read) for read in zip(*made, strict=True)]

    def _bias(self) -> np.ndarray | None:
        """Return what is added to the input's products."""
        return self.parts.cell.bias.numpy() if self.parts.cell.use_bias else None

    def gates(self, read: Any, state: Any) -> list[Any]:
        """Return each gate of a step; without a state, of one of zeros."""
        total = read if state is None else self.sum(read, self.recurrent_gates(state))
        return self.split(self.gate(total))


class Lstm(_Gated):
    """`LSTMCell`: kernels hold input, forget, candidate and output, one behind the other."""

    def __init__(self, parts: _Parts):
        super().__init__(parts, 3, (0, 1, 3, 2))
        self.recurrent_candidate = parts.recurrent("candidate", self.columns)
        self.new, self.kept = (parts.op(p, MUL, is_state=True) for p in ("new", "kept"))
        self.carry = parts.op("carry", ADD, is_state=True)
        self.output = parts.op("output", MUL)
        self.shown = parts.function("carry", parts.cell.activation)

    def step(self, read: list[Any], states: Sequence[Any]) -> list[Any]:
        """Return hidden state and carry."""
        hidden, carry = states or (None, None)
        total = read[1]
        if hidden is not None:
            total = self.candidate_sum(total, self.recurrent_candidate(hidden))
        enter, forget, show = self.gates(read[0], hidden)
        new = self.new(enter, self.parts.activation(total))
        carry = new if carry is None else self.carry(self.kept(forget, carry), new)
        return [self.output(show, self.shown(carry)), carry]


class Gru(_Gated):
    """`GRUCell`: kernels hold update, reset and candidate, one behind the other."""

    def __init__(self, parts: _Parts):
        super().__init__(parts, 2, (0, 1, 2))
        bias = self._recurrent_bias()
        self.recurrent_candidate = parts.recurrent("candidate", self.columns, bias)
        self.is_after = bool(parts.cell.reset_after)
        self.reset, self.kept = parts.op("reset", MUL), parts.op("kept", MUL, is_state=True)
        self.apart, self.first = (parts.op(p, SUB, is_state=True) for p in ("apart", "first"))
        self.output = parts.op("output", ADD, is_state=True)
        self.first_reset = None
        if bias is not None and np.any(bias):
            name = parts.path("first_reset")
            self.first_reset = affine(name, bias, np.zeros_like(bias), trainable=False)

    def _bias(self) -> np.ndarray | None:
        """Return what is added to the input's products, and to those of gates with the state."""
        bias = super()._bias()
        if bias is None or bias.ndim == 1:
            return bias
        return np.concatenate([bias[:, self.gate_columns].sum(axis=0), bias[0, self.columns]])

    def _recurrent_bias(self) -> np.ndarray | None:
        bias = super()._bias()
        return None if bias is None or bias.ndim == 1 else bias[1, self.columns]

    def step(self, read: list[Any], states: Sequence[Any]) -> list[Any]:
        """Return the hidden state: the candidate plus what the update gate keeps of the old one."""
        hidden = states[0] if states else None
        update, reset = self.gates(read[0], hidden)
        candidate = self.parts.activation(self._candidate(read[1], reset, hidden))
        if hidden is None:
            return [self.first(candidate, self.kept(update, candidate))]
        return [self.output(candidate, self.kept(update, self.apart(hidden, candidate)))]

    def _candidate(self, read: Any, reset: Any, hidden: Any) -> Any:
        if hidden is None:
            first = self.first_reset
            return read if first is None else self.candidate_sum(read, first(reset))
        if self.is_after:
            product = self.reset(reset, self.recurrent_candidate(hidden))
        else:
            product = self.recurrent_candidate(self.reset(reset, hidden))
        return self.candidate_sum(read, product)


class Simple:
    """`SimpleRNNCell`."""

    def __init__(self, parts: _Parts):
        self.parts, self.columns = parts, np.arange(parts.cell.units)
        self.recurrent = parts.recurrent("candidate", self.columns)
        self.sum = parts.op("candidate", ADD)
        bias = parts.cell.bias.numpy() if parts.cell.use_bias else None
        self.projection = parts.projection("candidate", self.columns, bias)

    def project(self, sequence: Any) -> list[list[Any]]:
        """Return what each step reads."""
        return [[read] for read in self.projection(sequence)]

    def step(self, read: list[Any], states: Sequence[Any]) -> list[Any]:
        """Return the hidden state."""
        total = self.sum(read[0], self.recurrent(states[0])) if states else read[0]
        return [self.parts.activation(total)]


def as_parts(cell: Any, name: str, trainable: bool) -> Cell:
    """Return a cell of a class in `CELLS` as parts that are named `<name>/<part>`."""
    return CELLS[type(cell)](_Parts(cell, name, trainable))


CELLS: Mapping[type, Callable[[_Parts], Cell]] = {
    L.LSTMCell: Lstm,
    L.GRUCell: Gru,
    L.SimpleRNNCell: Simple,
}
