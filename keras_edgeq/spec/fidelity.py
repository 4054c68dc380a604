"""`Fidelity`: how far a sim is from its float model, at its outputs and tensor by tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from keras_edgeq.table import aligned, brief, html

WORST = 5
NO_SIGNAL_DB = -1e9  # in JSON, which has no infinity


@dataclass(frozen=True)
class OutputFidelity:
    """How close one output is to the float model's.

    Args:
        output: its name.
        sqnr_db: signal to quantization noise, in dB; infinite where nothing differs.
        agreement: share of samples with the same largest number, in %; None if a sample has
            one number, or positions.
    """

    output: str
    sqnr_db: float
    agreement: float | None


@dataclass(frozen=True)
class TensorError:
    """What rounding does to one tensor.

    Args:
        tensor: printed name.
        own_db: signal to noise if its inputs are float: the error of its own rounding and of its
            layer's weights, in dB.
        inherited_db: signal to the error that comes with the sim's inputs, in dB.
        total_db: signal to the whole error, in dB.
    """

    tensor: str
    own_db: float
    inherited_db: float
    total_db: float


@dataclass(frozen=True)
class Fidelity:
    """A sim compared with its float model.

    Args:
        samples: how many were compared.
        on_data: False if they were random.
        outputs: in the order of the model's.
        tensors: the quantized tensors in graph order.
    """

    samples: int
    on_data: bool
    outputs: tuple[OutputFidelity, ...]
    tensors: tuple[TensorError, ...] = ()

    def worst(self, count: int = WORST) -> tuple[TensorError, ...]:
        """Return the tensors with the largest own error."""
        return tuple(sorted(self.tensors, key=lambda one: one.own_db)[:count])

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; dB are None where nothing differs, -1e9 where there is no signal."""
        return finite_db(asdict(self))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Fidelity:
        """Read `to_json` output."""
        outputs = tuple(OutputFidelity(**_infinite(row)) for row in data["outputs"])
        tensors = tuple(TensorError(**_infinite(row)) for row in data["tensors"])
        return cls(data["samples"], data["on_data"], outputs, tensors)

    def table(self) -> list[tuple[str, ...]]:
        """Return a row per output for people, titles first."""
        rows = [
            (
                one.output,
                f"{one.sqnr_db:.1f} dB",
                "" if one.agreement is None else f"{one.agreement:.2f} %",
            )
            for one in self.outputs
        ]
        return [("", "SQNR to float", "same top-1"), *rows]

    def __repr__(self) -> str:
        what = "samples" if self.on_data else "samples of random input"
        outputs = (f"{one.output} {one.sqnr_db:.1f} dB" for one in self.outputs)
        return brief(f"Fidelity on {self.samples} {what}", *outputs)

    def __str__(self) -> str:
        return aligned(self.table())

    def _repr_html_(self) -> str:
        return html("Beside the float model", self.table())


def finite_db(value: Any) -> Any:
    """Return JSON values of reports in dB: None for infinity and NaN, -1e9 for no signal."""
    if isinstance(value, dict):
        return {key: finite_db(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite_db(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return NO_SIGNAL_DB if value < 0 else None
    return value


def _infinite(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: math.inf if key.endswith("_db") and value is None else value
        for key, value in row.items()
    }
