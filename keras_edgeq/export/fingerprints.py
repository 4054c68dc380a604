"""Constants by which the parameters of a sim are recognized in the output of a converter."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from keras_edgeq.errors import ExportError
from keras_edgeq.layers import QuantizedLayer
from keras_edgeq.numerics.blocks import inner_axes
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.spec.encoding import HALF_MAX, Encoding
from keras_edgeq.spec.tensor_ref import TensorRef

# Fingerprints are consecutive float32 bit patterns from an odd number of about 1e18 up, where no
# constant of a model lies. Converters only move them.
FIRST_PATTERN = 0x5D9A3C17
LAST_PATTERN = 0x7F000000


@dataclass(frozen=True, eq=False)
class Param:
    """One parameter of a quantized layer, as the artifact has to hold it.

    Args:
        ref: its name.
        values: the float values before rounding.
        encoding: its grid; None for a bias whose grid follows from its use.
        integers: int32 values on the grid, as the sim rounds them; None for such a bias, and in
            half precision.
        first: position of its first element among all fingerprints.
    """

    ref: TensorRef
    values: np.ndarray
    encoding: Encoding | None
    integers: np.ndarray | None
    first: int

    @property
    def is_bias(self) -> bool:
        """Whether this is a layer's bias, in any precision."""
        return self.ref.param == "bias"


@dataclass(frozen=True, eq=False)
class Found:
    """A constant of the converter's output, recognized: `param.values.flat[index]`."""

    param: Param
    index: np.ndarray

    @property
    def values(self) -> np.ndarray:
        """The float values before rounding, in the constant's layout."""
        return self.param.values.ravel()[self.index]

    def scale(self) -> np.ndarray:
        """What a step of every element is worth, in the constant's layout."""
        assert self.param.encoding is not None  # asked for weights only
        return self._spread(self.param.encoding.unit(self.param.values.shape))

    def zero_point(self) -> np.ndarray:
        """Zero point of every element, in the constant's layout."""
        encoding = self.param.encoding
        assert encoding is not None  # asked for weights only
        return self._spread(
            np.zeros(1, np.int32) if encoding.spec.symmetric else encoding.zero_point
        )

    def multiple(self) -> np.ndarray:
        """Multiple of its channel's scale of every element, in the constant's layout."""
        assert self.param.encoding is not None  # asked for weights only
        return self._spread(np.asarray(self.param.encoding.multiple(self.param.values.shape)))

    def channel_scale(self) -> np.ndarray:
        """Scale of every element's channel, in the constant's layout."""
        assert self.param.encoding is not None  # asked for weights only
        return self._spread(self.param.encoding.scale)

    def inner(self) -> np.ndarray:
        """Number of every element among those of its channel, in the constant's layout."""
        shape, encoding = self.param.values.shape, self.param.encoding
        assert encoding is not None  # asked for weights only
        axes = inner_axes(len(shape), encoding.spec.axes)
        inner = [shape[axis] if axis in axes else 1 for axis in range(len(shape))]
        return self._spread(np.arange(np.prod(inner)).reshape(inner))

    def integers(self) -> np.ndarray:
        """Integers in the constant's layout, int32."""
        assert self.param.integers is not None  # asked for weights only
        return self.param.integers.ravel()[self.index]

    def half(self) -> np.ndarray:
        """Values in half precision in the constant's layout; the sim saturates at the largest."""
        return np.clip(self.values, -HALF_MAX, HALF_MAX).astype(np.float16)

    def _spread(self, numbers: np.ndarray) -> np.ndarray:
        return np.broadcast_to(numbers, self.param.values.shape).ravel()[self.index]


class Fingerprints:
    """The fingerprints of all quantized parameters of a sim, and the key to read them.

    Attributes:
        variables: layer -> parameter -> its fingerprint.
    """

    def __init__(self, sim: QuantSim):
        self.variables: dict[str, dict[str, tf.Variable]] = {}
        self._params: list[Param] = []
        first = 0
        for layer in sim.quantized_layers().values():
            own = self.variables.setdefault(layer.name, {})
            for name in [*layer.quantizers, *(["bias"] if layer.bias_spec else [])]:
                param = _param(layer, name, first)
                self._params.append(param)
                own[name] = tf.Variable(_fingerprint(param), trainable=False)
                first += param.values.size
        self._starts = np.array([p.first for p in self._params], np.int64)

    def find(self, constant: np.ndarray) -> Found | None:
        """Recognize a constant of the converter's output; None if it belongs to no parameter."""
        if constant.dtype != np.float32 or not constant.size or not self._params:
            return None
        position = constant.view(np.int32).astype(np.int64) - FIRST_PATTERN
        end = self._params[-1].first + self._params[-1].values.size
        if position.min() < 0 or position.max() >= end:
            return None
        owner = int(np.searchsorted(self._starts, position.flat[0], side="right")) - 1
        param = self._params[owner]
        index = position - param.first
        if index.min() < 0 or index.max() >= param.values.size:
            return None
        return Found(param, index)

    def missing(self, constants: Iterable[np.ndarray]) -> list[str]:
        """Return the parameters that are not all there in the constants of a converter's output."""
        there = {param.first: np.zeros(param.values.size, bool) for param in self._params}
        for constant in constants:
            found = self.find(constant)
            if found is not None:
                there[found.param.first][found.index] = True
        return [str(param.ref) for param in self._params if not there[param.first].all()]


def _param(layer: QuantizedLayer, name: str, first: int) -> Param:
    values = getattr(layer.layer, name).numpy()
    grid, integers = _on_grid(layer, name) if name in layer.quantizers else (None, None)
    return Param(TensorRef(layer.name, "param", param=name), values, grid, integers, first)


def _fingerprint(param: Param) -> np.ndarray:
    pattern = FIRST_PATTERN + param.first + np.arange(param.values.size, dtype=np.int64)
    if pattern.size and pattern[-1] > LAST_PATTERN:
        raise ExportError("The model has more than half a billion quantized parameters.")
    return pattern.astype(np.int32).view(np.float32).reshape(param.values.shape)


def _on_grid(layer: QuantizedLayer, name: str) -> tuple[Encoding, np.ndarray | None]:
    """Return the grid of a parameter and its integers, as the sim rounds it."""
    encoding = layer.quantizers[name].encoding
    if encoding is None:
        raise ExportError(f"Weight {layer.name}/{name} has no grid; calibrate the sim first.")
    if encoding.spec.is_half:
        return encoding, None
    steps = layer.quantizers[name](getattr(layer.layer, name))[1].numpy()
    steps = np.rint(steps / encoding.multiple(steps.shape)).astype(np.int32)
    # A symmetric grid has the zero point 0, in the shape of its scales, which blocks do not spread.
    return encoding, steps if encoding.spec.symmetric else steps + encoding.zero_point
