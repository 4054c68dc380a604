"""`QuantPlan`: which tensor of a model gets which grid; pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from keras_edgeq.errors import ProfileError
from keras_edgeq.spec.quant_spec import QuantSpec
from keras_edgeq.spec.tensor_ref import TensorRef

SCHEMA = 1


@dataclass(frozen=True)
class QuantPlan:
    """Maps every quantized tensor to its grid.

    Args:
        specs: grid per tensor that owns one (activations and parameters).
        shared: tensor -> owner, for tensors that are quantized again on another tensor's grid.
        carriers: tensor -> owner, for tensors that lie on a grid without a quantizer of their own
            (reshaped, pooled by max, concatenated).
        rounding: tensor -> how its kernel rounds ties, where that is not half to even.
        floats: layer -> why it stays float.
    """

    specs: Mapping[TensorRef, QuantSpec]
    shared: Mapping[TensorRef, TensorRef] = field(default_factory=dict)
    carriers: Mapping[TensorRef, TensorRef] = field(default_factory=dict)
    rounding: Mapping[TensorRef, str] = field(default_factory=dict)
    floats: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self):
        for name in ("specs", "shared", "carriers", "rounding", "floats"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        missing = {str(o) for o in self.shared.values() if o not in self.specs}
        if missing:
            raise ProfileError(f"Tensors share the grid of {sorted(missing)}, which own none.")

    def owner(self, ref: TensorRef) -> TensorRef | None:
        """Return the tensor whose grid `ref` lies on, or None where it is float."""
        if ref in self.specs:
            return ref
        return self.shared.get(ref) or self.carriers.get(ref)

    def replace(self, specs: Mapping[TensorRef, QuantSpec]) -> QuantPlan:
        """Return a plan with some grids exchanged; every tensor must own one already."""
        unknown = sorted(str(ref) for ref in specs if ref not in self.specs)
        if unknown:
            raise ProfileError(f"The plan has no grid of their own for {unknown}.")
        return replace(self, specs={**self.specs, **specs})

    def to_json(self) -> dict:
        """Return the plan as JSON values, tensors by their printed names."""
        return {
            "schema": SCHEMA,
            "tensors": [
                {"tensor": str(ref), "kind": ref.kind, "spec": spec.to_json()}
                for ref, spec in self.specs.items()
            ],
            "shared": [_pair(ref, owner) for ref, owner in self.shared.items()],
            "carriers": [_pair(ref, owner) for ref, owner in self.carriers.items()],
            "rounding": {str(ref): kind for ref, kind in self.rounding.items()},
            "floats": dict(self.floats),
        }

    @classmethod
    def from_json(cls, data: dict) -> QuantPlan:
        """Read `to_json` output."""
        if data.get("schema") != SCHEMA:
            raise ProfileError(f"Plan schema {data.get('schema')!r}; this version reads {SCHEMA}.")
        return cls(
            {
                TensorRef.parse(t["tensor"], t["kind"]): QuantSpec.from_json(t["spec"])
                for t in data["tensors"]
            },
            dict(_read_pair(pair) for pair in data["shared"]),
            dict(_read_pair(pair) for pair in data["carriers"]),
            {TensorRef.parse(text, "output"): kind for text, kind in data["rounding"].items()},
            data["floats"],
        )


def _pair(ref: TensorRef, owner: TensorRef) -> list[str]:
    return [str(ref), ref.kind, str(owner), owner.kind]


def _read_pair(pair: list[str]) -> tuple[TensorRef, TensorRef]:
    text, kind, owner, owner_kind = pair
    return TensorRef.parse(text, kind), TensorRef.parse(owner, owner_kind)
