"""`TargetProfile`: what a runtime or a chip wants, read from versioned JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from keras_edgeq.errors import ProfileError
from keras_edgeq.nearest import did_you_mean
from keras_edgeq.profiles.extends import packaged, whole
from keras_edgeq.profiles.precision import (
    FLOAT,
    FLOAT_PRECISION,
    OpRule,
    Precision,
    own_name,
    ranges_to_json,
    read_ranges,
)
from keras_edgeq.profiles.renamed import with_new_names
from keras_edgeq.spec.quant_spec import QuantSpec
from keras_edgeq.table import brief

ANY = "*"
DEQUANTIZE = "DequantizeLinear"
SCHEMA_FILE = "profile.schema.json"


@dataclass(frozen=True)
class TargetProfile:
    """Describes the grids and kernels of a target.

    Args:
        name: the name users type.
        description: one sentence: what it is for.
        activation: grid of activation tensors; None if weights are float16 and computation is
            float32.
        weight: grid of weights; its channel axes come from the layer.
        per_channel: operations whose weights own a scale per channel.
        bias: `"int32"` or `"int64"` (grid: input scale times weight scale), `"half"` or `"float"`.
        quantized: operations that the target computes in integers; `"*"` is every operation.
        fused: chains of operations with no quantizer in between.
        same_grid: operations whose kernel only moves or compares integers: the output lies on the
            input's grid, and several inputs share one.
        regrid: operations whose kernel rounds onto its input's grid, with the rounding.
        fixed_ranges: operation -> `(low, high)` of its output.
        precisions: other precisions of the target by name, with their grids. An entry with the name
            of the profile's own precision is not read: activation, weight, bias and fixed_ranges
            describe that one.
        ops: operation -> its rules that differ from those above.
        parts: kind of parts, `"normalization"` or `"state"` of a recurrent cell -> the precision
            they compute in where the layers around them compute in fewer bits, unless they are
            named themselves.
        mixtures: name -> precision by kind of parts, and by `"*"` of everything else; what a target
            has no such kernel for has its own. `precision=` takes these names, too.
        arithmetic: requantization of the kernels: `"xnnpack_float"`, `"fixed_point"` or `"float"`.
        onnx_activation: signedness of activations in an ONNX file: `"uint8"` or `"int8"`.
        onnx_weight: signedness of weights in an ONNX file: `"uint8"` or `"int8"`.
        onnx_opset: lowest opset of an ONNX file; wide and 4-bit grids need 21.
        onnx_blocks: operation that reads weights with a scale per block in an ONNX file:
            `"DequantizeLinear"`, or ONNX Runtime's `"MatMulNBits"` for 4 bits.
        accumulator_bits: of kernels' sums, which `diagnose` checks; None is those of the bias.
        formats: artifacts that can be exported.

    Example:
        >>> profile = eq.load_profile("litert_int8")
        >>> TargetProfile.from_json(profile.to_json()) == profile
        True
    """

    name: str
    description: str
    activation: QuantSpec | None
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
    onnx_weight: str = "uint8"
    onnx_opset: int = 18
    onnx_blocks: str = DEQUANTIZE
    accumulator_bits: int | None = None
    precisions: Mapping[str, Precision] = field(default_factory=dict)
    ops: Mapping[str, OpRule] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)
    mixtures: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def __post_init__(self):
        for name in ("regrid", "fixed_ranges", "precisions", "ops", "parts", "mixtures"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        for op, rule in self.ops.items():
            self._check_rule(op, rule)
        weights = [(p.name, p.weight) for p in (self.own, *self.precisions.values())]
        blocked = [name for name, weight in weights if weight is not None and weight.block_size]
        if blocked and "tflite" in self.formats:
            raise ProfileError(
                f"Profile {self.name!r}: weights of {blocked[0]} have a scale per block, which "
                "TFLite files do not hold; leave out tflite among its formats, or block_size."
            )

    def __repr__(self) -> str:
        others = ", ".join(self.precision_names[1:])
        return brief(
            f"TargetProfile {self.name!r}",
            f"{self.own.name}, or {others} where asked for",
            f"formats {' '.join(self.formats)}",
        )

    @property
    def own(self) -> Precision:
        """The precision that layers get unless asked otherwise."""
        name = own_name(self.activation, self.weight)
        return Precision(name, self.activation, self.weight, self.bias, self.fixed_ranges)

    @property
    def precision_names(self) -> tuple[str, ...]:
        """Names of all precisions, the profile's own first."""
        return tuple(dict.fromkeys((self.own.name, *self.precisions, FLOAT)))

    @property
    def names(self) -> tuple[str, ...]:
        """What `precision=` takes: names of precisions and of mixtures."""
        return (*self.precision_names, *self.mixtures)

    def precision(self, name: str) -> Precision:
        """Return a precision by name.

        Raises:
            ProfileError: the target has none of that name; those it has are listed.
        """
        if name == self.own.name:
            return self.own
        if name == FLOAT:
            return FLOAT_PRECISION
        if name not in self.precisions:
            raise ProfileError(
                f"Profile {self.name!r} has no precision {name!r}; "
                f"it has {', '.join(self.names)}." + did_you_mean(name, self.names)
            )
        return self.precisions[name]

    def of_kind(self, name: str, kind: str | None) -> str:
        """Return the precision that a name means for parts of a kind; a mixture's own for others.

        Raises:
            ProfileError: the target has no precision and no mixture of that name.
        """
        if name in self.mixtures:
            mixture = self.mixtures[name]
            return mixture.get(kind or ANY, mixture[ANY])
        return self.precision(name).name

    def allowed(self, op: str) -> tuple[str, ...]:
        """Return the names of the precisions an operation has kernels for, its own first."""
        rule = self.ops.get(op)
        if rule is None or not rule.precisions:
            return self.precision_names
        # Kernels of floats are everywhere, also where weights beside them are integers.
        floats = (name for name in self.precision_names if self.precision(name).activation is None)
        return tuple(dict.fromkeys((*rule.precisions, *floats)))

    def computes(self, op: str) -> bool:
        """Tell whether the target has a kernel for an operation."""
        return op in self.quantized or ANY in self.quantized

    def quantizes_weights(self, op: str) -> bool:
        """Tell whether an operation's weights have a grid where the precision has one."""
        rule = self.ops.get(op)
        return rule is None or rule.weights

    def weight_spec(self, op: str, precision: Precision) -> QuantSpec | None:
        """Return the grid of an operation's weights at a precision, None if they stay float.

        Its axes come from the layer.
        """
        rule, spec = self.ops.get(op), precision.weight
        if spec is None or not self.quantizes_weights(op):
            return None
        return spec if spec.is_half or rule is None else replace(spec, **rule.weight)

    def _check_rule(self, op: str, rule: OpRule) -> None:
        """Raise if the rule of an operation contradicts another rule of the profile."""
        for name in rule.precisions:
            if name not in self.precision_names:
                raise ProfileError(
                    f"Profile {self.name!r}: ops/{op}/precisions names {name!r}, but the profile's "
                    f"precisions are {', '.join(self.precision_names)}; the two rules conflict."
                )
        moves = op in self.same_grid or op in self.regrid
        if moves and (rule.fixed_range is not None or rule.activation):
            where = "same_grid" if op in self.same_grid else "regrid"
            raise ProfileError(
                f"Profile {self.name!r}: ops/{op} gives the output a grid of its own, and {where} "
                "puts it on its input's; the two rules conflict."
            )
        if not rule.output and (rule.fixed_range is not None or rule.activation):
            raise ProfileError(
                f"Profile {self.name!r}: ops/{op} leaves the output without a quantizer and gives "
                "it a grid; the two rules conflict."
            )

    def to_json(self) -> dict[str, Any]:
        """Return the profile as its JSON file holds it."""
        optional = {
            "parts": dict(self.parts),
            "mixtures": {name: dict(mixture) for name, mixture in self.mixtures.items()},
            "accumulator_bits": self.accumulator_bits,
        }
        return {
            "schema": 1,
            "name": self.name,
            "description": self.description,
            "activation": None if self.activation is None else self.activation.to_json(),
            "weight": self.weight.to_json(),
            "per_channel": sorted(self.per_channel),
            "bias": self.bias,
            "quantized": sorted(self.quantized),
            "fused": [list(chain) for chain in self.fused],
            "same_grid": sorted(self.same_grid),
            "regrid": dict(self.regrid),
            "fixed_ranges": ranges_to_json(self.fixed_ranges),
            "precisions": {name: p.to_json() for name, p in self.precisions.items()},
            "ops": {op: rule.to_json() for op, rule in self.ops.items()},
            "arithmetic": self.arithmetic,
            "onnx_activation": self.onnx_activation,
            "onnx_weight": self.onnx_weight,
            "onnx_opset": self.onnx_opset,
            "formats": list(self.formats),
            **{key: value for key, value in optional.items() if value},
            **({"onnx_blocks": self.onnx_blocks} if self.onnx_blocks != DEQUANTIZE else {}),
        }

    @classmethod
    def from_json(cls, data: Any, where: str = "the profile") -> TargetProfile:
        """Read and validate profile JSON; `where` names it in errors."""
        import jsonschema

        data = whole(data, where)
        try:
            jsonschema.validate(data, schema())
        except jsonschema.ValidationError as error:
            place = "/".join(map(str, error.absolute_path)) or "top level"
            raise ProfileError(
                f"{where} is not a valid profile: at {place[:200]}: {error.message[:400]}"
            ) from None
        return cls.of_valid(with_new_names(data, where))

    @classmethod
    def of_valid(cls, data: Any) -> TargetProfile:
        """Read valid JSON."""
        grid = data["activation"]
        own = cls(
            name=data["name"],
            description=data["description"],
            activation=None if grid is None else QuantSpec.from_json(grid),
            weight=QuantSpec.from_json(data["weight"]),
            per_channel=frozenset(data["per_channel"]),
            bias=data["bias"],
            quantized=frozenset(data["quantized"]),
            fused=tuple(tuple(chain) for chain in data["fused"]),
            same_grid=frozenset(data["same_grid"]),
            regrid=data["regrid"],
            fixed_ranges=read_ranges(data["fixed_ranges"]),
            arithmetic=data["arithmetic"],
            onnx_activation=data["onnx_activation"],
            formats=tuple(data["formats"]),
            onnx_weight=data["onnx_weight"],
            onnx_opset=data["onnx_opset"],
            onnx_blocks=data.get("onnx_blocks", DEQUANTIZE),
            accumulator_bits=data.get("accumulator_bits"),
        )
        named = {"parts": data.get("parts", {}), "mixtures": data.get("mixtures", {})}
        others = {
            name: Precision.from_json(name, entry, own.own)
            for name, entry in data["precisions"].items()
        }
        ops = {op: OpRule.from_json(rule) for op, rule in data["ops"].items()}
        made = replace(own, precisions=others, ops=ops, **named)
        for where, mixture in (("parts", made.parts), *made.mixtures.items()):
            for kind, name in mixture.items():
                if name not in made.precision_names:
                    raise ProfileError(
                        f"Profile {made.name!r}: {where}/{kind} names {name!r}, but the profile's "
                        f"precisions are {', '.join(made.precision_names)}."
                    )
        return made


def schema() -> Any:
    """Return the JSON schema of profiles."""
    return packaged(SCHEMA_FILE)
