"""`Op`: what the package knows of one operation, and `Unsupported` where something is not known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from keras_edgeq.ops.channel_map import ChannelMap
    from keras_edgeq.ops.matrix_form import MatrixForm


@dataclass(frozen=True)
class Unsupported:
    """The reason why there is no answer: the end of a sentence that names the layer."""

    why: str

    def __bool__(self) -> Literal[False]:
        return False


@dataclass(frozen=True)
class Weights:
    """Parameters of a layer: attribute names, and the axes of the kernel that own a scale each."""

    kernel: str
    axes: tuple[int, ...]
    bias: str | None = "bias"


@dataclass(frozen=True)
class Operands:
    """What an elementwise or joining operation takes beside tensors.

    Args:
        count: number of operands; None takes all there are.
        scalars: whether a kernel takes a constant of one element, in real units. Other constants
            are taken by none: a kernel that compares or moves integers reads every operand in steps
            of one grid, which a constant is not on.
        condition: whether the first of them says which of the others to take, and may be any
            constant.
    """

    count: int | None
    scalars: bool = False
    condition: bool = False


NO_WEIGHTS = Unsupported("has no kernel")


@dataclass(frozen=True, kw_only=True)
class Op:
    """An operation in the vocabulary of the profiles. Techniques ask it and have no own tables.

    Args:
        name: as profiles name it.
        classes: Keras layers that compute it, exactly these: a subclass may compute something else.
        symbols: TensorFlow functions that compute it, as layers of a functional model name them.
        functions: names of activation functions that compute it.
        weights: layer -> its parameters; None if it has none that are quantized.
        matrix: layer -> the layer as a product of matrices: what gptq, adaround, seq_mse, bias
            correction and costs work on.
        in_blocks: layer -> whether blocks of its inputs may own a scale each: they are summed over
            one axis of the kernel.
        channels: layer -> which channels its kernel connects: what folding, equalization,
            smoothing, absorption, bias correction and ranges without data work on.
        macs: how often each element of the kernel is multiplied for one sample: once per position
            of the `"result"` or of the `"input"`, by the layer's `"equation"`, as the `"operands"`
            say, in each of the `"steps"`; `"none"`.
        window: whether it slides a window over its input, as convolutions do.
        sees_all: layer -> whether each output sees the whole kernel on real inputs, no padding;
            None if it never does.
        scale: what a factor `s > 0` per channel does: `"passes"` through, `"caps"` while it stays
            below a cap, `"pools"` where the channels stay apart, `"joins"` those of all operands,
            `"moves"` with the elements, or `"stops"`.
        rectifies: whether it makes zero of all negative numbers.
        shifts: whether `f(x - c) = f(x) - c` holds for each channel.
        spread: what it does with the distribution of an input: `"keeps"` it, computes `"each"`
            element on its own, `"moves"` elements; looks up a `"table"`, makes a `"normal"`
            distribution, `"shares"` that add up to one; `"other"`.
        combine: how two operands become one, in NumPy; None if that needs more than their moments.
        bounds: between which the results lie for all inputs.
        stays_in_range: whether results lie between the least and greatest input and zero.
        activates: whether it is an activation function of single elements.
        transparent: whether it computes nothing: its output equals its input.
        affine: a constant, and whether it is the second operand -> scale and offset of the same
            function of the other one; None if it is not such a function.
        steep_at_zero: whether its slope grows without bound towards zero.
        singular: whether it makes NaN, infinite or very large numbers of some usual ones.
        operands: what is read beside tensors; None for all but elementwise and joining operations.
        reads_ids: whether it reads whole numbers, of any type: no grid may round them.
    """

    name: str
    classes: tuple[type, ...] = ()
    symbols: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    weights: Callable[[Any], Weights] | None = None
    matrix: Callable[[Any], MatrixForm | Unsupported] | Unsupported = NO_WEIGHTS
    in_blocks: Callable[[Any], bool] | None = None
    channels: Callable[[Any], ChannelMap | Unsupported] | Unsupported = NO_WEIGHTS
    macs: str = "none"
    window: bool = False
    sees_all: Callable[[Any], bool] | None = None
    scale: str = "stops"
    rectifies: bool = False
    shifts: bool = False
    spread: str = "other"
    combine: Callable[[Any, Any], Any] | None = None
    bounds: tuple[float, float] | None = None
    stays_in_range: bool = False
    activates: bool = False
    transparent: bool = False
    steep_at_zero: bool = False
    singular: bool = False
    affine: Callable[[Any, bool], tuple[Any, Any] | None] | None = None
    operands: Operands | None = None
    reads_ids: bool = False

    @property
    def is_pointwise(self) -> bool:
        """Tell whether it is an activation function that is the same for all elements."""
        return self.activates and self.weights is None
