"""`TargetProfile`: what a runtime or a chip wants, read from versioned JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jsonschema

from keras_edgeq.errors import ProfileError
from keras_edgeq.spec.quant_spec import QuantSpec

SCHEMA_FILE = "profile.schema.json"
MAX_FILE_BYTES = 1_000_000


@dataclass(frozen=True)
class TargetProfile:
    """Describes the grids and kernels of a target.

    Args:
        name: the name users type.
        description: one sentence: what it is for.
        activation: grid of activation tensors.
        weight: grid of weights; its channel axes come from the layer.
        per_channel: operations whose weights own a scale per channel.
        bias: `"int32"` (grid: input scale times weight scale) or `"float"`.
        quantized: operations that the target computes in integers.
        fused: chains of operations with no quantizer in between.
        same_grid: operations whose kernel only moves or compares integers: the output lies on the
            input's grid, and several inputs share one.
        regrid: operations whose kernel rounds onto its input's grid, with the rounding.
        fixed_ranges: operation -> `(low, high)` of its output.
        arithmetic: requantization of the kernels: `"xnnpack_float"`, `"fixed_point"` or `"float"`.
        onnx_activation: integer type of activations in an ONNX file: `"uint8"` or `"int8"`.
        formats: artifacts that can be exported.
    """

    name: str
    description: str
    activation: QuantSpec
    weight: QuantSpec
    per_channel: frozenset[str]
    bias: str
    quantized: frozenset[str]
    fused: tuple[tuple[str, ...], ...]
    same_grid: frozenset[str]
    regrid: Mapping[str, str]
    fixed_ranges: Mapping[str, tuple[float, float]]
    arithmetic: str
    onnx_activation: str
    formats: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the profile as its JSON file holds it."""
        return {
            "schema": 1,
            "name": self.name,
            "description": self.description,
            "activation": self.activation.to_json(),
            "weight": self.weight.to_json(),
            "per_channel": sorted(self.per_channel),
            "bias": self.bias,
            "quantized": sorted(self.quantized),
            "fused": [list(chain) for chain in self.fused],
            "same_grid": sorted(self.same_grid),
            "regrid": dict(self.regrid),
            "fixed_ranges": {op: list(pair) for op, pair in self.fixed_ranges.items()},
            "arithmetic": self.arithmetic,
            "onnx_activation": self.onnx_activation,
            "formats": list(self.formats),
        }

    @classmethod
    def from_json(cls, data: Any, where: str = "the profile") -> TargetProfile:
        """Read and validate profile JSON; `where` names it in errors."""
        try:
            jsonschema.validate(data, _schema())
        except jsonschema.ValidationError as error:
            place = "/".join(map(str, error.absolute_path)) or "top level"
            raise ProfileError(
                f"{where} is no valid profile: at {place}: {error.message}"
            ) from None
        return cls(
            name=data["name"],
            description=data["description"],
            activation=QuantSpec.from_json(data["activation"]),
            weight=QuantSpec.from_json(data["weight"]),
            per_channel=frozenset(data["per_channel"]),
            bias=data["bias"],
            quantized=frozenset(data["quantized"]),
            fused=tuple(tuple(chain) for chain in data["fused"]),
            same_grid=frozenset(data["same_grid"]),
            regrid=MappingProxyType(dict(data["regrid"])),
            fixed_ranges=MappingProxyType(
                {op: (float(low), float(high)) for op, (low, high) in data["fixed_ranges"].items()}
            ),
            arithmetic=data["arithmetic"],
            onnx_activation=data["onnx_activation"],
            formats=tuple(data["formats"]),
        )


def profile_names() -> list[str]:
    """Return the names of the built-in profiles."""
    files = resources.files("keras_edgeq.spec").joinpath("profiles").iterdir()
    names = (f.name for f in files if f.name.endswith(".json") and f.name != SCHEMA_FILE)
    return sorted(name.removesuffix(".json") for name in names)


def load_profile(profile: str | Path | TargetProfile) -> TargetProfile:
    """Return a profile by its built-in name, from a JSON file, or as given.

    Raises:
        ProfileError: no such name or file, or the file is no valid profile.
    """
    if isinstance(profile, TargetProfile):
        return profile
    if str(profile) in profile_names():
        return TargetProfile.from_json(_packaged(f"{profile}.json"), f"Profile {profile!r}")
    path = Path(profile)
    if path.suffix != ".json":
        raise ProfileError(
            f"Unknown profile {str(profile)!r}. Built in: {', '.join(profile_names())}; "
            "or give the path of a profile's .json file."
        )
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ProfileError(f"{path} is larger than {MAX_FILE_BYTES} bytes; no profile is.")
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ProfileError(f"Cannot read profile {path}: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise ProfileError(f"{path} is not JSON: {error}") from None
    return TargetProfile.from_json(data, str(path))


def _packaged(name: str) -> Any:
    text = resources.files("keras_edgeq.spec").joinpath("profiles", name).read_text("utf-8")
    return json.loads(text)


def _schema() -> Any:
    return _packaged(SCHEMA_FILE)
