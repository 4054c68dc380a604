"""One tensor of an encodings file of any version, and the checks that all versions share."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from keras_edgeq.errors import EncodingsError
from keras_edgeq.layers import FakeQuant
from keras_edgeq.spec.encoding import Encoding

ACTIVATION, PARAM = "activation_encodings", "param_encodings"
SECTIONS = {ACTIVATION: "activation", PARAM: "parameter"}
MOST_BITS = 32


@dataclass(frozen=True)
class TensorGrid:
    """A grid on its way into a file.

    Args:
        section: key of `SECTIONS`.
        name: the tensor in the file.
        encoding: its grid.
        axis: channel axis of a grid per channel, in the layout of the named tensor; None if
            several axes own the scales together.
    """

    section: str
    name: str
    encoding: Encoding
    axis: int | None = None


@dataclass(frozen=True)
class FileEntry:
    """A checked grid out of a file.

    Args:
        name: the tensor in the file.
        section: key of `SECTIONS`, None if the version has one list for both.
        bits: integer width, or the width of the float type.
        scale: float32 vector; None for a float tensor.
        offset: `-zero_point` on the unsigned grid, int64 vector; None for a float tensor.
        symmetric: what the file says; None if the version does not say.
        signed: signedness of the integers; None if the version does not say.
    """

    name: str
    section: str | None
    bits: int
    scale: np.ndarray | None = None
    offset: np.ndarray | None = None
    symmetric: bool | None = None
    signed: bool | None = None

    def encoding(self, quantizer: FakeQuant) -> Encoding:
        """Return the entry as a grid of the quantizer's kind.

        Raises:
            EncodingsError: the quantizer cannot hold it.
        """
        shape, spec = tuple(quantizer.scale.shape), quantizer.spec
        if spec.block_size:
            raise EncodingsError(
                f"{self.name!r} has a scale per block of {spec.block_size} in the sim, which "
                "encodings are not read for; quantize it with a precision without blocks."
            )
        if spec.is_half != (self.scale is None):
            kind = "float" if self.scale is None else "int"
            raise EncodingsError(
                f"{self.name!r} is {kind}{self.bits} in the file and {spec.dtype}{spec.bits} in "
                "the sim; quantize with the precisions of the file."
            )
        if self.scale is None or self.offset is None:
            return Encoding(spec, np.ones(shape, np.float32), np.zeros(shape, np.int32))
        if not 2 <= self.bits <= 16:
            raise EncodingsError(
                f"{self.name!r} has {self.bits} bits in the file; a sim's grids have 2 to 16."
            )
        size = int(np.prod(shape, dtype=int))
        if self.scale.size != size:
            raise EncodingsError(
                f"{self.name!r} has {self.scale.size} scales in the file; the sim has {size}."
            )
        signed = spec.signed
        if signed is None:
            signed = bool(np.any(self.offset)) if spec.symmetric else bool(self.signed)
        zero_point = -self.offset - (2 ** (self.bits - 1) if signed else 0)
        if spec.symmetric and self.symmetric and signed and np.all(zero_point == -1):
            # The grid without its most negative integer: AIMET counts its steps from there.
            zero_point = np.zeros_like(zero_point)
        if spec.symmetric and np.any(zero_point):
            raise EncodingsError(
                f"{self.name!r} has a zero point in the file; the sim's grid is symmetric."
            )
        spec = replace(spec, bits=self.bits, signed=signed)
        return Encoding(spec, self.scale.reshape(shape), zero_point.reshape(shape).astype(np.int32))


def shown(value: Any) -> str:
    """Return a value for a message, however large it is."""
    short = reprlib.Repr()
    short.maxstring = 120
    return short.repr(value)


def text(data: Any, key: str, where: str) -> str:
    """Return the text under a key."""
    value = data.get(key) if isinstance(data, dict) else None
    if not isinstance(value, str) or not value:
        raise EncodingsError(f"{where} is not an object with a {key}.")
    return value


def width(data: dict, key: str, where: str) -> int:
    """Return the width under a key."""
    bits: Any = data.get(key)
    if type(bits) is not int or not 2 <= bits <= MOST_BITS:
        raise EncodingsError(
            f"{where}: {key} is {shown(bits)}; it must be an integer from 2 to {MOST_BITS}."
        )
    return bits


def flag(data: dict, key: str, where: str) -> bool | None:
    """Return a boolean, written as JSON's or as AIMET's text; None if it is missing."""
    value = data.get(key)
    if value is None or isinstance(value, bool):
        return value
    if value in ("True", "False"):
        return value == "True"
    raise EncodingsError(f"{where}: {key} is {shown(value)}; it must be true or false.")


def scales(values: Any, where: str) -> np.ndarray:
    """Return positive finite numbers as float32."""
    if not _numbers(values):
        raise EncodingsError(f"{where}: the scale is neither a number nor a list of numbers.")
    try:
        with np.errstate(over="ignore"):
            made = np.array([float(s) for s in values]).astype(np.float32)
    except OverflowError:  # an integer beyond float64
        made = np.array([np.inf], np.float32)
    if not np.all(np.isfinite(made) & (made > 0.0)):
        raise EncodingsError(f"{where}: a scale is not a positive finite float32.")
    return made


def integers(values: Any, count: int, limits: tuple[int, int], where: str) -> np.ndarray:
    """Return `count` whole numbers, which AIMET also writes as -7.0."""
    if not _numbers(values) or not all(int_like(v) for v in values):
        raise EncodingsError(f"{where}: the offset is neither a whole number nor a list of them.")
    if len(values) != count:
        raise EncodingsError(f"{where}: {count} scales but {len(values)} offsets.")
    if not all(limits[0] <= v <= limits[1] for v in values):
        raise EncodingsError(f"{where}: an offset is not in [{limits[0]}, {limits[1]}].")
    return np.array([int(v) for v in values], np.int64)


def int_like(value: float) -> bool:
    """Tell whether a number is whole."""
    return isinstance(value, int) or value.is_integer()


def _numbers(values: Any) -> bool:
    return (
        isinstance(values, list) and bool(values) and all(type(v) in (int, float) for v in values)
    )
