"""Which layer computes what an operation does with a constant: one reader per operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from string import ascii_letters
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from keras_edgeq.graph import keras_compat
from keras_edgeq.ops.constant_operands import AddConstant, MultiplyConstant

L = tf_keras.layers
Given = Mapping[str, Any]
CONVOLUTIONS = {3: L.Conv1D, 4: L.Conv2D, 5: L.Conv3D}
LAST = (None, "NWC", "NHWC", "NDHWC")


@dataclass(frozen=True, eq=False)
class ConstantForm:
    """A layer that computes an operation.

    Args:
        kind: its class.
        source: the symbolic tensor that it reads.
        held: the constant or variable that its kernel is made of.
        kernel: the kernel, in float32.
        options: other arguments of its constructor.
        has_bias: whether it can add a constant per channel.
        pads: zeros before and behind each axis but the batch and the channels.
    """

    kind: type
    source: Any
    held: Any
    kernel: np.ndarray
    options: dict[str, Any] = field(default_factory=dict)
    has_bias: bool = True
    pads: tuple | None = None

    @property
    def key(self) -> tuple:
        """What layers that may be one have in common."""
        options = repr(sorted(self.options.items()))
        return id(self.held), self.kind, options, self.kernel.shape, self.kernel.tobytes()


def form_of(node: keras_compat.KerasNode) -> ConstantForm | None:
    """Return the layer that computes a call of an operation; None where no layer does."""
    read = FORMS.get(keras_compat.op_symbol(node.layer) or "")
    if read is None:
        return None
    try:
        form = read(keras_compat.bound_arguments(node))
    except TypeError:  # arguments that the function does not name
        return None
    if form is None or (form.kind is not L.Embedding and form.source.dtype != tf.float32):
        return None
    return form


def holds_numbers(value: Any) -> bool:
    """Tell whether an argument holds real numbers that no call changes."""
    if isinstance(value, tf.Variable | tf.Tensor) and not keras_compat.is_keras_tensor(value):
        return value.dtype.is_floating
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def _array(value: Any) -> np.ndarray:
    return np.asarray(value.numpy() if isinstance(value, tf.Variable) else value, np.float32)


def _pair(one: Any, other: Any) -> bool:
    """Tell whether one operand is a tensor of the graph and the other a constant."""
    return keras_compat.is_keras_tensor(one) and holds_numbers(other)


def _matmul(given: Given) -> ConstantForm | None:
    a, b = given["a"], given["b"]
    turned = [bool(given.get(f"transpose_{n}") or given.get(f"adjoint_{n}")) for n in ("a", "b")]
    if _pair(a, b) and not turned[0] and a.shape.rank is not None:
        kernel = _array(b)
        kernel = np.swapaxes(kernel, -1, -2) if turned[1] and kernel.ndim > 1 else kernel
        if kernel.ndim == 2 and a.shape.rank >= 2:
            return _dense(a, b, kernel)
        if kernel.ndim == 3 and a.shape.rank == 4 and kernel.shape[0] == a.shape[1]:
            return _einsum_dense("abcd,bde->abce", a, b, kernel)
    if _pair(b, a) and not turned[1] and b.shape.rank == 3:
        kernel = _array(a)
        if kernel.ndim == 2:
            kernel = kernel if turned[0] else kernel.T
            return _einsum_dense("abc,bd->adc", b, a, kernel)
    return None


def _tensordot(given: Given) -> ConstantForm | None:
    a, b, axes = given["a"], given["b"], given["axes"]
    if not _pair(a, b) or a.shape.rank is None:
        return None
    rank, kernel = a.shape.rank, _array(b)
    if isinstance(axes, int):
        axes = [list(range(rank - axes, rank)), list(range(axes))]
    try:
        ours, theirs = ([int(n) for n in np.atleast_1d(part)] for part in axes)
    except (TypeError, ValueError):
        return None
    ours, theirs = [n % rank for n in ours], [n % kernel.ndim for n in theirs]
    if 0 in ours:  # over the batch
        return None
    if (ours, theirs, kernel.ndim) == ([rank - 1], [0], 2):
        return _dense(a, b, kernel)
    read = ascii_letters[:rank]
    letters = iter(ascii_letters[rank:])
    known = dict(zip(theirs, (read[n] for n in ours), strict=True))
    held = "".join(known.get(n) or next(letters) for n in range(kernel.ndim))
    kept = [read[n] for n in range(rank) if n not in ours]
    kept += [held[n] for n in range(kernel.ndim) if n not in theirs]
    return _einsum_dense(f"{read},{held}->{''.join(kept)}", a, b, kernel)


def _einsum(given: Given) -> ConstantForm | None:
    inputs, equation = given.get("inputs", ()), given["equation"].replace(" ", "")
    left, arrow, made = equation.partition("->")
    parts = left.split(",")
    if len(inputs) != 2 or len(parts) != 2 or not arrow or "." in equation:
        return None
    (one, other), (read, held) = inputs, parts
    if _pair(other, one):
        (one, other), (read, held) = (other, one), (held, read)
    if not _pair(one, other) or not read or made[:1] != read[0] or read[0] in held:
        return None
    if any(len(set(part)) != len(part) for part in (read, held, made)):
        return None
    kernel = _array(other)
    if len(held) == 2 and held[0] == read[-1] and made == read[:-1] + held[1]:
        return _dense(one, other, kernel)
    return _einsum_dense(f"{read},{held}->{made}", one, other, kernel)


def _dense(source: Any, held: Any, kernel: np.ndarray) -> ConstantForm | None:
    if source.shape[-1] != kernel.shape[0]:
        return None
    return ConstantForm(L.Dense, source, held, kernel, {"units": kernel.shape[1]})


def _einsum_dense(equation: str, source: Any, held: Any, kernel: np.ndarray) -> ConstantForm | None:
    read, rest = equation.split(",")
    letters, made = rest.split("->")
    sizes = dict(zip(letters, kernel.shape, strict=True))
    wanted = dict(zip(read, source.shape, strict=True))
    if any(wanted.get(letter, size) != size for letter, size in sizes.items()):
        return None  # a kernel that is broadcast
    has_bias = made[-1:] in set(letters) - {""}
    options = {
        "equation": equation,
        "output_shape": tuple(sizes.get(n, wanted.get(n)) for n in made[1:]),
        "bias_axes": made[-1] if has_bias else None,
    }
    return ConstantForm(L.EinsumDense, source, held, kernel, options, has_bias)


def _convolution(given: Given) -> ConstantForm | None:
    source = given.get("input", given.get("value"))
    held = given["filters"] if given.get("filters") is not None else given.get("filter")
    if not _pair(source, held) or given.get("data_format") not in LAST:
        return None
    kernel, rank = _array(held), source.shape.rank
    channels = source.shape[-1] if rank else None
    if rank not in CONVOLUTIONS or kernel.ndim != rank or not channels:
        return None
    window = _window(given, rank)
    if (
        window is None
        or channels % kernel.shape[-2]
        or kernel.shape[-1] % (groups := channels // kernel.shape[-2])
    ):
        return None
    options, pads = window
    options |= {"filters": kernel.shape[-1], "kernel_size": kernel.shape[:-2], "groups": groups}
    return ConstantForm(CONVOLUTIONS[rank], source, held, kernel, options, pads=pads)


def _depthwise(given: Given) -> ConstantForm | None:
    source, held = given["input"], given["filter"]
    if not _pair(source, held) or given.get("data_format") not in LAST:
        return None
    kernel, window = _array(held), _window(given, 4)
    if window is None or kernel.ndim != 4 or source.shape[-1] != kernel.shape[2]:
        return None
    options, pads = window
    options |= {"kernel_size": kernel.shape[:2], "depth_multiplier": kernel.shape[3]}
    return ConstantForm(L.DepthwiseConv2D, source, held, kernel, options, pads=pads)


def _window(given: Given, rank: int) -> tuple[dict[str, Any], tuple | None] | None:
    """Return strides, rate and padding as a layer takes them, and zeros to add in front."""
    strides = _sizes(given.get("strides", given.get("stride")), rank)
    rates = [_sizes(given.get(n), rank) for n in ("dilations", "dilation_rate", "rate")]
    if strides is None or None in rates:
        return None
    rate = next((r for r in rates if set(r or ()) != {1}), rates[0])
    padding, pads = given.get("padding", "VALID"), None
    if isinstance(padding, str):
        padding = padding.lower()
    elif rank == 4 and np.shape(padding) == (4, 2) and not np.any(np.take(padding, [0, 3], 0)):
        pads = tuple(map(tuple, np.asarray(padding)[1:3].tolist()))
        padding = "valid"
    if padding not in ("same", "valid"):
        return None
    return {"strides": strides, "dilation_rate": rate, "padding": padding}, pads


def _sizes(value: Any, rank: int) -> tuple[int, ...] | None:
    """Return a size for each axis between the batch and the channels."""
    if value is None:
        return (1,) * (rank - 2)
    try:
        sizes = [int(n) for n in np.atleast_1d(value)]
    except (TypeError, ValueError):  # a tensor of the graph
        return None
    if len(sizes) == rank:
        return tuple(sizes[1:-1]) if sizes[0] == sizes[-1] == 1 else None
    return tuple(sizes * (rank - 2))[: rank - 2] if len(sizes) in (1, rank - 2) else None


def _element_by_element(function: str) -> Callable[[Given], ConstantForm | None]:
    """Return the reader of a sum or product with a constant that differs between places."""

    def read(given: Given) -> ConstantForm | None:
        one, other = given["x"], given["y"]
        if _pair(other, one) and function in ("add", "multiply"):
            one, other = other, one
        if not _pair(one, other) or not _is_of_places(_array(other), one.shape):
            return None
        value = _array(other)
        if function == "subtract":
            value = -value
        elif function == "divide":
            if not np.all(value):
                return None
            value = (1.0 / value.astype(np.float64)).astype(np.float32)
        kind = AddConstant if function in ("add", "subtract") else MultiplyConstant
        return ConstantForm(kind, one, other, value, {"shape": value.shape}, has_bias=False)

    return read


def _is_of_places(value: np.ndarray, shape: Any) -> bool:
    """Tell whether a constant is broadcast to each sample and is none per channel."""
    rank = shape.rank
    if not rank or value.ndim > rank or value.size in (1, *value.shape[-1:]):
        return False
    sizes = (1,) * (rank - value.ndim) + value.shape
    return sizes[0] == 1 and all(a in (1, b) for a, b in zip(sizes[1:], shape[1:], strict=True))


def _table(given: Given) -> ConstantForm | None:
    held, source = given["params"], given.get("ids", given.get("indices"))
    if not _pair(source, held) or not source.dtype.is_integer:
        return None
    table, axis = _array(held), given.get("axis") or 0
    if table.ndim != 2 or axis != 0 or given.get("batch_dims") or given.get("max_norm"):
        return None
    sizes = {"input_dim": table.shape[0], "output_dim": table.shape[1]}
    return ConstantForm(L.Embedding, source, held, table, sizes, has_bias=False)


FORMS: dict[str, Callable[[Given], ConstantForm | None]] = {
    **dict.fromkeys(("__operators__.add", "math.add"), _element_by_element("add")),
    "math.subtract": _element_by_element("subtract"),
    "math.multiply": _element_by_element("multiply"),
    **dict.fromkeys(("math.truediv", "math.divide"), _element_by_element("divide")),
    "linalg.matmul": _matmul,
    "tensordot": _tensordot,
    "einsum": _einsum,
    **dict.fromkeys(
        ("nn.conv1d", "nn.conv2d", "nn.conv3d", "nn.convolution", "compat.v1.nn.conv1d",
         "compat.v1.nn.conv2d", "compat.v1.nn.conv3d", "compat.v1.nn.convolution"), _convolution
    ),
    **dict.fromkeys(("nn.depthwise_conv2d", "compat.v1.nn.depthwise_conv2d"), _depthwise),
    **dict.fromkeys(
        ("gather", "compat.v1.gather", "nn.embedding_lookup", "compat.v1.nn.embedding_lookup"),
        _table,
    ),
}  # fmt: skip
