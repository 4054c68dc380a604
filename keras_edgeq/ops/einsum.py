"""`EinsumDense` by its equation: which letters are summed over, and which the kernel adds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray

from keras_edgeq.ops.channel_map import ChannelMap
from keras_edgeq.ops.matrix_form import MatrixForm
from keras_edgeq.ops.op import Unsupported

SUMMED_OUTSIDE = Unsupported("sums over axes that its kernel does not have")
NO_LAST_AXIS = Unsupported("has an equation whose last axes are not single letters of the kernel")
OTHER_BIAS = Unsupported("has a bias with other axes than its kernel makes")


@dataclass(frozen=True, eq=False)
class Equation:
    """The letters of an `EinsumDense`, an ellipsis left out.

    Args:
        layer: a built layer.
    """

    layer: Any

    @cached_property
    def parts(self) -> tuple[str, str, str]:
        """Letters of input, kernel and output; `...` stays in input and output."""
        inputs, _, output = self.layer.equation.replace(" ", "").partition("->")
        data, kernel = inputs.split(",")
        return data, kernel.replace("...", ""), output

    @property
    def batched(self) -> str:
        """Letters in which each position has a kernel of its own."""
        data, kernel, output = self.parts
        return "".join(c for c in output if c in kernel and c in data)

    @property
    def units(self) -> str:
        """Letters that the kernel adds, in the order of the output."""
        data, kernel, output = self.parts
        return "".join(c for c in output if c in kernel and c not in data)

    @property
    def summed(self) -> str:
        """Letters of the input that are summed over, in its order."""
        data, kernel, output = self.parts
        return "".join(c for c in data if c in kernel and c not in output)

    @property
    def is_product(self) -> bool:
        """Tell whether every output is a sum of products, and nothing else is summed."""
        data, kernel, output = self.parts
        letters = [data.replace("...", ""), kernel, output.replace("...", "")]
        once = all(len(set(part)) == len(part) for part in letters)
        return once and set(letters[0]) <= {*kernel, *output} and set(kernel) <= {*data, *output}

    def sizes(self, letters: str) -> list[int]:
        """Return the sizes of axes of the kernel."""
        shape = self.layer.kernel.shape
        return [int(shape[self.parts[1].index(letter)]) for letter in letters]

    def axes(self, letters: str) -> list[int]:
        """Return axes of the kernel."""
        return [self.parts[1].index(letter) for letter in letters]

    def number(self, letters: str) -> NDArray[np.intp]:
        """Return the number of an element along some axes, of a shape broadcasting to kernels."""
        sizes, kernel = self.sizes(letters), self.parts[1]
        numbers = np.arange(prod(sizes)).reshape(sizes)
        present = "".join(c for c in kernel if c in letters)
        ordered = np.transpose(numbers, [letters.index(c) for c in present])
        whole = [n if c in letters else 1 for c, n in zip(kernel, self._shape, strict=True)]
        return ordered.reshape(whole)

    @property
    def made(self) -> str:
        """Letters of the kernel in the output, in its order: one bias for each."""
        _, kernel, output = self.parts
        return "".join(letter for letter in output if letter in kernel)

    @property
    def bias_shape(self) -> tuple[int, ...]:
        """Shape of a bias with an element for all that the kernel makes."""
        output = self.parts[2].replace("...", "")
        behind = output[min(output.index(letter) for letter in self.made) :]
        return tuple(self.sizes(c)[0] if c in self.made else 1 for c in behind)

    @property
    def has_own_bias(self) -> bool:
        """Tell whether there is no bias, or one element of it for all that the kernel makes."""
        return self.layer.bias is None or set(self.layer.bias_axes) == set(self.made)

    @property
    def _shape(self) -> tuple[int, ...]:
        return tuple(int(size) for size in self.layer.kernel.shape)


class EinsumForm(MatrixForm):
    """An `EinsumDense`: groups are letters in all three parts, rows what remains of the input."""

    @cached_property
    def equation(self) -> Equation:
        """The layer's letters."""
        return Equation(self.layer)

    @property
    def groups(self) -> int:
        """Number of positions with a kernel of their own."""
        return prod(self.equation.sizes(self.equation.batched))

    def columns(self, kernel: NDArray) -> NDArray:
        """Return values per element of the kernel as `[groups, inputs, outputs]`."""
        order = self.equation.axes(self._letters)
        inputs = prod(self.equation.sizes(self.equation.summed))
        return np.transpose(kernel, order).reshape(self.groups, inputs, -1)

    def kernel(self, columns: NDArray) -> NDArray:
        """Return the kernel that `columns` was made of."""
        order = self.equation.axes(self._letters)
        ordered = columns.reshape(self.equation.sizes(self._letters))
        return np.transpose(ordered, np.argsort(order))

    def of_bias(self, bias: NDArray) -> NDArray:
        """Return a bias of the layer as `[groups, 1, outputs]`."""
        e = self.equation
        each = np.asarray(bias).reshape(e.sizes(e.made))
        order = [e.made.index(letter) for letter in e.batched + e.units]
        return np.transpose(each, order).reshape(self.groups, 1, -1)

    def bias(self, values: NDArray) -> NDArray:
        """Return `[groups, 1, outputs]` in the shape of the layer's bias."""
        e = self.equation
        each = np.asarray(values).reshape(e.sizes(e.batched + e.units))
        order = [(e.batched + e.units).index(letter) for letter in e.made]
        return np.transpose(each, order).reshape(e.bias_shape)

    def positions(self, inputs: Any) -> tuple[int, ...]:
        """Return the number of rows in a sample."""
        return (prod(inputs.shape) // int(inputs.shape[0] or 1) // self._in_kernel,)

    def rows(self, inputs: Any, every: int = 1, offset: int = 0) -> Any:
        """Return `[groups, rows, inputs]` of a batch, a tensor."""
        e = self.equation
        letters = spelled(e.parts[0], len(inputs.shape))
        rest = [c for c in letters if c not in e.parts[1]]
        ordered = self._ordered(inputs, letters, [*e.batched, *rest, *e.summed])
        inputs_of_each = prod(e.sizes(e.summed))
        return tf.reshape(ordered, [self.groups, -1, inputs_of_each])[:, offset::every]

    def products(self, outputs: Any) -> Any:
        """Return the layer's results for a batch as `[rows, groups * outputs]`."""
        e = self.equation
        letters = spelled(e.parts[2], len(outputs.shape))
        rest = [c for c in letters if c not in e.parts[1]]
        ordered = self._ordered(outputs, letters, [*rest, *e.batched, *e.units])
        return tf.reshape(ordered, [-1, prod(e.sizes(e.made))])

    @property
    def _letters(self) -> str:
        return self.equation.batched + self.equation.summed + self.equation.units

    @property
    def _in_kernel(self) -> int:
        return prod(self.equation.sizes(self.equation.batched + self.equation.summed))

    @staticmethod
    def _ordered(tensor: Any, letters: list[str], wanted: list[str]) -> Any:
        return tf.transpose(tensor, [letters.index(letter) for letter in wanted])


def matrix(layer: Any) -> EinsumForm | Unsupported:
    """Return the matrix product that an `EinsumDense` is."""
    equation = Equation(layer)
    if not equation.is_product:
        return SUMMED_OUTSIDE
    return EinsumForm(layer) if equation.has_own_bias else OTHER_BIAS


def in_blocks(layer: Any) -> bool:
    """Tell whether a layer is one product of matrices, summed over one axis of its kernel."""
    equation = Equation(layer)
    return bool(matrix(layer)) and not equation.batched and len(equation.summed) == 1


def channels(layer: Any) -> ChannelMap | Unsupported:
    """Return how the kernel of an `EinsumDense` connects the last axes of input and output."""
    equation = Equation(layer)
    if not equation.is_product:
        return SUMMED_OUTSIDE
    data, kernel, output = equation.parts
    read, made = data[-1], output[-1]
    if read not in kernel:
        return NO_LAST_AXIS
    biases = equation.made if layer.bias is None else layer.bias_axes
    if not set(biases) <= set(equation.made):
        return OTHER_BIAS
    return ChannelMap(
        layer,
        "kernel",
        inputs=equation.number(read),
        outputs=equation.number(made) if made in equation.units and made in biases else None,
        units=equation.number(equation.made),
        bias_shape=equation.bias_shape,
        with_bias={"bias_axes": equation.made},
    )


def kernel_axes(layer: Any) -> tuple[int, ...]:
    """Return the kernel axes of an `EinsumDense` that make up the last axes of its output."""
    _, kernel, output = Equation(layer).parts
    axes = tuple(i for i, letter in enumerate(kernel) if letter in output)
    return axes if output.endswith("".join(kernel[i] for i in axes)) else ()


def spelled(part: str, rank: int) -> list[str]:
    """Return a name for each axis; an ellipsis stands for several."""
    before, dots, after = part.partition("...")
    between = [f"...{i}" for i in range(rank - len(before) - len(after))] if dots else []
    return [*before, *between, *after]


def summed_axes(layer: Any, rank: int) -> tuple[int, ...]:
    """Return the axes of an input of so many that a Dense or EinsumDense layer sums over."""
    if not isinstance(layer, tf_keras.layers.EinsumDense):
        return (rank - 1,)
    equation = Equation(layer)
    return tuple(map(spelled(equation.parts[0], rank).index, equation.summed))
