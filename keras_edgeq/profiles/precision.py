"""`Precision`: the grids of one kind of kernel; `OpRule`: what one operation wants otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from keras_edgeq.errors import ProfileError
from keras_edgeq.spec.quant_spec import BIAS_SPEC, HALF, WIDE_BIAS_SPEC, QuantSpec
from keras_edgeq.table import brief

FLOAT = "FP32"
FLOAT_BITS = 32
# The glob that means every layer that can.
ALL = "*"
BIAS_SPECS = {"int32": BIAS_SPEC, "int64": WIDE_BIAS_SPEC, "half": HALF, "float": None}


@dataclass(frozen=True)
class Precision:
    """Describes the numbers that one kind of kernel computes with.

    Args:
        name: such as `"W4A8"`: 4-bit weights, 8-bit activations; `"W4g32"`: 4-bit weights with a
            scale per group (block) of 32, float activations; `"FP16"`; `"FP32"`.
        activation: grid of the kernel's inputs and outputs; None leaves them float.
        weight: grid of its weights; None leaves them float.
        bias: `"int32"` or `"int64"` (grid: input scale times weight scale), `"half"`, `"float"`.
        fixed_ranges: operation -> `(low, high)` of its output.
        dynamic: operations whose kernels read float tensors on 8-bit grids that they make of each
            row as they run; only where `activation` is None and weights are integers.

    Example:
        >>> eq.load_profile("litert_int8").precision("W4A8")
        <Precision W4A8: weights int4, activations int8, bias int32>
    """

    name: str
    activation: QuantSpec | None
    weight: QuantSpec | None
    bias: str
    fixed_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    dynamic: frozenset[str] = frozenset()

    def __post_init__(self):
        object.__setattr__(self, "fixed_ranges", MappingProxyType(dict(self.fixed_ranges)))
        if self.activation is not None and self.activation.block_size:
            raise ProfileError(f"Precision {self.name}: only weights have blocks.")
        weight = self.weight
        if weight is not None and weight.scales_blocks and self.activation:
            raise ProfileError(
                f"Precision {self.name}: no kernel multiplies integers with a scale per block; "
                'blocks beside quantized activations take "block_bits", multiples of the scale of '
                'their channel, or "activation": null.'
            )

    def __repr__(self) -> str:
        grids = {"weights": self.weight, "activations": self.activation}
        told = (f"{name} {'float32' if g is None else g.type_name}" for name, g in grids.items())
        return brief(f"Precision {self.name}", *told, f"bias {self.bias}")

    @property
    def is_integer(self) -> bool:
        """Tell whether kernels of this precision compute in integers."""
        return self.activation is not None and not self.activation.is_half

    @property
    def weight_bits(self) -> int:
        """Bits of its weights, of any operation without a rule of its own; 32 for float."""
        return FLOAT_BITS if self.weight is None else self.weight.bits

    @property
    def activation_bits(self) -> int:
        """Bits that a kernel reads and makes; 32 for float, 16 for half."""
        return FLOAT_BITS if self.activation is None else self.activation.bits

    @property
    def bias_spec(self) -> QuantSpec | None:
        """Grid of a bias, None if it stays float."""
        return BIAS_SPECS[self.bias]

    def to_json(self) -> dict[str, Any]:
        """Return the precision as a profile's JSON holds it."""
        return {
            "activation": None if self.activation is None else self.activation.to_json(),
            "weight": None if self.weight is None else self.weight.to_json(),
            "bias": self.bias,
            "fixed_ranges": ranges_to_json(self.fixed_ranges),
            **({"dynamic": sorted(self.dynamic)} if self.dynamic else {}),
        }

    @classmethod
    def from_json(cls, name: str, data: dict, own: Precision) -> Precision:
        """Read a profile's entry; what it leaves out is that of the profile's own precision."""
        grids = {
            key: None if data[key] is None else QuantSpec.from_json(data[key])
            for key in ("activation", "weight")
            if key in data
        }
        ranges = (
            {"fixed_ranges": read_ranges(data["fixed_ranges"])} if "fixed_ranges" in data else {}
        )
        changes: dict[str, Any] = {**grids, **ranges, "bias": data.get("bias", own.bias)}
        changes["dynamic"] = frozenset(data.get("dynamic", ()))
        return replace(own, name=name, **changes)


FLOAT_PRECISION = Precision(FLOAT, None, None, "float")


@dataclass(frozen=True)
class OpRule:
    """A target's rules for one operation that differ from its rules for all.

    Args:
        precisions: names of the precisions it has kernels for, its own first; empty is all.
        activation: fields of its output's grid that differ.
        weight: fields of its weights' grid that differ.
        fixed_range: `(low, high)` of its output, in every precision.
        output: False leaves its output without a quantizer.
        weights: False leaves its weights float.
    """

    precisions: tuple[str, ...] = ()
    activation: Mapping[str, Any] = field(default_factory=dict)
    weight: Mapping[str, Any] = field(default_factory=dict)
    fixed_range: tuple[float, float] | None = None
    output: bool = True
    weights: bool = True

    def __post_init__(self):
        for name in ("activation", "weight"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def to_json(self) -> dict[str, Any]:
        """Return the fields that say something, as JSON values."""
        full = {
            "precisions": list(self.precisions),
            "activation": dict(self.activation),
            "weight": dict(self.weight),
            "fixed_range": None if self.fixed_range is None else list(self.fixed_range),
        }
        flags = {"output": self.output, "weights": self.weights}
        return {k: v for k, v in full.items() if v} | {k: v for k, v in flags.items() if not v}

    @classmethod
    def from_json(cls, data: dict) -> OpRule:
        """Read `to_json` output."""
        pair = data.get("fixed_range")
        return cls(
            tuple(data.get("precisions", ())),
            data.get("activation", {}),
            data.get("weight", {}),
            None if pair is None else (float(pair[0]), float(pair[1])),
            data.get("output", True),
            data.get("weights", True),
        )


def own_name(activation: QuantSpec | None, weight: QuantSpec) -> str:
    """Return the name of a profile's own precision."""
    if weight.is_half and (activation is None or activation.is_half):
        return "FP16"
    if activation is None or activation.is_half or weight.is_half:
        raise ProfileError("A precision is integer or half on both sides; name others FP16.")
    blocks = f"g{weight.block_size}" if weight.block_size else ""
    return f"W{weight.bits}A{activation.bits}{blocks}"


def ranges_to_json(ranges: Mapping[str, tuple[float, float]]) -> dict[str, list[float]]:
    """Return fixed ranges as JSON values."""
    return {op: list(pair) for op, pair in ranges.items()}


def read_ranges(data: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Read `ranges_to_json` output."""
    return {op: (float(low), float(high)) for op, (low, high) in data.items()}
