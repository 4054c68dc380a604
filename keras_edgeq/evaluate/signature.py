"""The inputs and outputs of an artifact, as data is read for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from keras_edgeq.errors import EdgeqError


@dataclass(frozen=True)
class Port:
    """An input or output.

    Args:
        name: of the signature.
        sizes: None where a size is free.
        dtype: of the numbers in the file.
        quantization: scale and zero point of integers that stand for real numbers; None for others.
    """

    name: str
    sizes: tuple[int | None, ...]
    dtype: np.dtype
    quantization: tuple[float, int] | None = None

    @property
    def range(self) -> tuple[float, float] | None:
        """The real numbers between which those on the grid of an integer tensor lie."""
        if self.quantization is None:
            return None
        scale, zero_point = self.quantization
        limits = np.iinfo(self.dtype)
        return scale * (limits.min - zero_point), scale * (limits.max - zero_point)


@dataclass(frozen=True)
class Signature:
    """The ports of an artifact. `batches` reads data for it as it does for a model.

    Args:
        ports: its inputs.
        outputs: its outputs.
    """

    ports: tuple[Port, ...]
    outputs: tuple[Port, ...]

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs, in the order of the file."""
        return [port.name for port in self.ports]

    @property
    def inputs(self) -> list[tf.TensorSpec]:
        """What a batch has to be: real numbers where integers of the file stand for them.

        The number of samples is free, whatever the file has: others are run in pieces of it.
        """
        return [
            tf.TensorSpec((None, *port.sizes[1:]), np.float32 if port.quantization else port.dtype)
            for port in self.ports
        ]

    @property
    def fixed_batch(self) -> int | None:
        """The number of samples that the file takes at once, None if it takes any."""
        return next((port.sizes[0] for port in self.ports if port.sizes[0] is not None), None)


def signature_of(inputs: Mapping[str, dict], outputs: Mapping[str, dict]) -> Signature:
    """Return the ports that a loaded file tells of.

    Raises:
        EdgeqError: an input that has no numbers, no fixed number of axes, or none for the samples.
    """
    sides = ([_port(name, form) for name, form in side.items()] for side in (inputs, outputs))
    found = Signature(*map(tuple, sides))
    for port in found.ports:
        if not port.sizes:
            raise EdgeqError(
                f"Input {port.name!r} of the file has no axis for samples; such a file is not run."
            )
    return found


def _port(name: str, form: dict[str, Any]) -> Port:
    kind, sizes = form["dtype"], form["shape_signature"]
    try:
        dtype = np.dtype(kind)
    except TypeError:
        dtype = np.dtype(object)
    if dtype.kind not in "biuf":
        raise EdgeqError(f"{name!r} of the file is of type {kind}; files of numbers are run.")
    if sizes is None:
        raise EdgeqError(f"{name!r} of the file has any number of axes; such a file is not run.")
    scale, zero_point = form.get("quantization") or (0.0, 0)
    quantization = (scale, zero_point) if scale and dtype.kind in "iu" else None
    return Port(name, tuple(s if s >= 0 else None for s in sizes), dtype, quantization)
