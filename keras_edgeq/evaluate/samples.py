"""What an artifact is timed on: a batch of data, or random inputs of its own signature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_edgeq.errors import EdgeqError
from keras_edgeq.evaluate.signature import Port, Signature
from keras_edgeq.nearest import did_you_mean
from keras_edgeq.sim.data import batches

Sizes = Sequence[int] | Mapping[str, Sequence[int]] | None
SEED = 0


def timed_batch(
    signature: Signature, data: Any = None, sizes: Sizes = None, batch_size: int = 1
) -> list[np.ndarray]:
    """Return one batch of real numbers, always the same.

    Args:
        signature: of the artifact.
        data: in any form that `quantize` takes; its first batch is taken.
        sizes: of the inputs, samples first, where the file leaves some free; for one input or by
            name.
        batch_size: the number of samples where `sizes` says nothing; a file of a fixed batch gets
            that.

    Raises:
        EdgeqError: a size that is free in the file is not given, or one does not fit it.
        CalibrationDataError: the data does not fit the file.
    """
    count = signature.fixed_batch or batch_size
    if data is not None:
        return next(batches(data, signature, count, steps=1))  # type: ignore[arg-type]
    given = _by_name(signature, sizes)
    generator = np.random.default_rng(SEED)
    return [
        _random(port, _shape(port, given.get(port.name), count), generator)
        for port in signature.ports
    ]


def _by_name(signature: Signature, sizes: Sizes) -> dict[str, tuple[int, ...]]:
    names = signature.input_names
    if sizes is None:
        return {}
    if not isinstance(sizes, Mapping):
        if len(names) > 1:
            raise EdgeqError(
                f"The file has the inputs {names}; give sizes by name: {{{names[0]!r}: (1, ...)}}."
            )
        sizes = {names[0]: sizes}
    unknown = next((name for name in sizes if name not in names), None)
    if unknown is not None:
        raise EdgeqError(
            f"The file has no input {unknown!r}; it has {names}.{did_you_mean(unknown, names)}"
        )
    return {name: tuple(shape) for name, shape in sizes.items()}


def _shape(port: Port, given: tuple[int, ...] | None, count: int) -> tuple[int, ...]:
    if given is None:
        made = (count, *port.sizes[1:])
        if None in made:
            example = tuple(64 if size is None else size for size in made)
            raise EdgeqError(
                f"Input {port.name!r} of the file has free sizes: {port.sizes}. Give them, "
                f"sizes={{{port.name!r}: {example}}}, or give data."
            )
        return made  # type: ignore[return-value]
    whole = all(isinstance(size, int | np.integer) and size > 0 for size in given)
    fits = len(given) == len(port.sizes) and all(
        own in (None, size) for own, size in zip(port.sizes, given, strict=True)
    )
    if not (whole and fits):
        raise EdgeqError(
            f"Input {port.name!r} of the file has sizes {port.sizes} (None is free), not {given}."
        )
    return given


def _random(port: Port, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Return uniform numbers: over a grid's range, else between -1 and 1; ids are 0 or 1."""
    if port.dtype.kind == "f" or port.quantization:
        values = generator.uniform(*(port.range or (-1.0, 1.0)), shape)
        return values.astype(np.float32 if port.quantization else port.dtype)
    return generator.integers(0, 2, shape).astype(port.dtype)
