"""`QuantPlan`: which tensor of a model gets which grid; pure data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from types import MappingProxyType
from typing import Any

from keras_edgeq.errors import ProfileError
from keras_edgeq.nearest import did_you_mean
from keras_edgeq.plan.kernel import Kernel, kernels_from_json, kernels_to_json, matching
from keras_edgeq.plan.plan_diff import PlanDiff, diff_plans
from keras_edgeq.spec.quant_spec import QuantSpec
from keras_edgeq.spec.tensor_ref import TensorRef
from keras_edgeq.table import aligned, brief, counted, html

SCHEMA = 1
KINDS = ("activations", "weights")


@dataclass(frozen=True)
class QuantPlan:
    """Maps every quantized tensor to its grid.

    Args:
        specs: grid per tensor that owns one (activations and parameters).
        shared: tensor -> owner, for tensors that are quantized again on another tensor's grid.
        carriers: tensor -> owner, for tensors that lie on a grid without a quantizer of their own
            (reshaped, pooled by max, concatenated).
        rounding: tensor -> how its kernel rounds ties, if that is not half to even.
        floats: layer -> why it stays float.
        kernels: layer -> what it computes in and could compute in; `with_bits` chooses among them.
            Empty in a plan from before they were kept.
        asked: layer -> precision that was asked for and is not resolved yet. Only `quantize` and
            `requantize`, which see the model, can tell which quantizers it takes.

    Example:
        >>> sim.record.plan
        <QuantPlan: 7 grids (5 int8, 2 int32)>
        >>> QuantPlan.from_json(sim.record.plan.to_json()) == sim.record.plan
        True
    """

    specs: Mapping[TensorRef, QuantSpec]
    shared: Mapping[TensorRef, TensorRef] = field(default_factory=dict)
    carriers: Mapping[TensorRef, TensorRef] = field(default_factory=dict)
    rounding: Mapping[TensorRef, str] = field(default_factory=dict)
    floats: Mapping[str, str] = field(default_factory=dict)
    kernels: Mapping[str, Kernel] = field(default_factory=dict)
    asked: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self):
        for name in ("specs", "shared", "carriers", "rounding", "floats", "kernels", "asked"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        missing = {str(o) for o in self.shared.values() if o not in self.specs}
        if missing:
            raise ProfileError(f"Tensors share the grid of {sorted(missing)}, which have none.")

    def owner(self, ref: TensorRef) -> TensorRef | None:
        """Return the tensor whose grid `ref` lies on, or None if it is float."""
        if ref in self.specs:
            return ref
        return self.shared.get(ref) or self.carriers.get(ref)

    def replace(self, specs: Mapping[TensorRef, QuantSpec]) -> QuantPlan:
        """Return a plan with some grids exchanged; every tensor must own one already."""
        unknown = sorted(str(ref) for ref in specs if ref not in self.specs)
        if unknown:
            raise ProfileError(
                f"The plan has no grid of their own for {unknown}."
                + did_you_mean(unknown[0], self.specs)
            )
        return replace(self, specs={**self.specs, **specs})

    def with_rules(self, rules: Mapping[str, str | Mapping[str, Any]]) -> QuantPlan:
        """Return a plan with other range rules; later entries of `rules` win.

        Args:
            rules: `"activations"`, `"weights"` or a glob over tensor names (`"conv1/kernel"`) ->
                name of a rule, or fields of `QuantSpec` such as
                `{"rule": "percentile", "percentile": 99.9}`.

        Raises:
            ProfileError: a glob matches no grid that a rule could choose, or no such rule.
        """
        specs = dict(self.specs)
        for key, rule in rules.items():
            fields = {"rule": rule} if isinstance(rule, str) else dict(rule)
            if not set(fields) <= {"rule", "percentile"}:
                raise ProfileError(f"A range rule has fields rule and percentile, not {fields}.")
            refs = [ref for ref, spec in specs.items() if _has_rule(spec) and _is_meant(key, ref)]
            if not refs and key not in KINDS:
                raise ProfileError(
                    f"Range rules name {key!r}, but no calibrated grid has that name."
                    + did_you_mean(key, [*KINDS, *(ref for ref in specs if _has_rule(specs[ref]))])
                )
            specs.update({ref: replace(specs[ref], **fields) for ref in refs})
        return replace(self, specs=specs)

    def with_bits(
        self,
        *patterns: str,
        weights: int | None = None,
        activations: int | None = None,
        precision: str | None = None,
    ) -> QuantPlan:
        """Return a plan that asks for other bits for some layers.

        The plan's grids stay as they are until `quantize(model, data, plan=plan)` or
        `requantize(sim, plan=plan)` resolves the request, names the other layers that follow, and
        keeps range rules and exchanged grids where nothing else changed.

        Args:
            patterns: names of layers or of nested models, globs, operations (`"Conv2D"`), or
                `"input"` and `"output"`: the layers between an input or output of the model and the
                next layer with weights, and that one. What is fused into a layer names the layer.
            weights: bits of the weights; None keeps them. Layers without weights have none.
            activations: bits of the layers' inputs and outputs; None keeps them.
            precision: name of a precision, instead of bits: `"FP16"`, `"FP32"`, `"W8A16"`.

        Raises:
            ProfileError: a pattern matches nothing, or the profile has no such kernel for a layer;
                the existing ones are listed.

        Example:
            >>> plan = sim.record.plan.with_bits("conv*", weights=4)
            >>> mixed = eq.requantize(sim, plan=plan)
            >>> print(sim.record.plan.diff(mixed.record.plan))
            layer    before  after
            conv     W8A8    W4A8
            flatten  W8A8    W4A8
            <BLANKLINE>
            tensor       before  after
            conv/kernel  int8    int4
        """
        kernels = self.known_kernels
        bits = (weights, activations)
        if not patterns or (bits == (None, None)) == (precision is None):
            raise ProfileError(
                "with_bits takes patterns, and either weights= and activations= or precision=."
            )
        asked, met = dict(self.asked), False
        for pattern in patterns:
            for layer in matching(kernels, pattern, self.floats):
                kernel = kernels[layer]
                now = self.asked.get(layer, kernel.precision)
                if precision is not None:
                    asked[layer] = kernel.named(layer, precision)
                elif kernel.has_weights or activations is not None:
                    asked[layer] = kernel.of_bits(layer, now, weights, activations)
                met |= kernel.has_weights or weights is None
        if not met:
            raise ProfileError(f"{', '.join(patterns)} name no layer with weights to quantize.")
        return replace(self, asked=asked)

    @property
    def known_kernels(self) -> Mapping[str, Kernel]:
        """The kernels.

        Raises:
            ProfileError: the plan has none.
        """
        if self.kernels:
            return self.kernels
        raise ProfileError(
            "The plan does not say which kernels there are: an earlier version made it. Take "
            "the plan of a sim that quantize or requantize returns now."
        )

    @cached_property
    def parts(self) -> Mapping[str, str]:
        """Layer that is fused into another -> that layer."""
        return {part: name for name, kernel in self.kernels.items() for part in kernel.parts}

    def diff(self, other: QuantPlan) -> PlanDiff:
        """Return what differs in `other`, a later plan of the same model; `print` shows a table."""
        return diff_plans(self, other)

    def table(self) -> list[tuple[str, ...]]:
        """Return a row per tensor for people, titles first."""
        rows: list[tuple[str, ...]] = [
            ("tensor", "kind", "type", "grid", "range rule", "on the grid of")
        ]
        for ref, spec in self.specs.items():
            kind = "weight" if ref.kind == "param" else "activation"
            rows.append((str(ref), kind, spec.type_name, spec.kind, spec.range_rule, ""))
        for ref, owner in {**self.shared, **self.carriers}.items():
            spec = self.specs.get(owner)
            told = ("", "") if spec is None else (spec.type_name, spec.kind)
            rows.append((str(ref), "activation", *told, "", str(owner)))
        return rows

    def __repr__(self) -> str:
        types = Counter(spec.type_name for spec in self.specs.values())
        mix = ", ".join(f"{count} {name}" for name, count in types.most_common())
        floats = f"{counted(len(self.floats), 'layer')} in float" if self.floats else ""
        asked = f"{counted(len(self.asked), 'layer')} asked for" if self.asked else ""
        return brief("QuantPlan", f"{counted(len(self.specs), 'grid')} ({mix})", floats, asked)

    def __str__(self) -> str:
        floats = [f"float: {name}: {why}" for name, why in self.floats.items()]
        asked = [f"asked for, not resolved: {name}: {p}" for name, p in self.asked.items()]
        return "\n".join([aligned(self.table()), *floats, *asked])

    def _repr_html_(self) -> str:
        floats = [f"float: {name}: {why}" for name, why in self.floats.items()]
        return html(repr(self).strip("<>"), self.table(), "\n".join(floats))

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
            "kernels": kernels_to_json(self.kernels),
            "asked": dict(self.asked),
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
            {
                TensorRef.parse(text, "input" if "<" in text else "output"): kind
                for text, kind in data["rounding"].items()
            },
            data["floats"],
            kernels_from_json(data["kernels"]) if "kernels" in data else {},
            data.get("asked", {}),
        )


def _has_rule(spec: QuantSpec) -> bool:
    return spec.rule != "derived" and not spec.is_half and spec.fixed_range is None


def _is_meant(key: str, ref: TensorRef) -> bool:
    if key in KINDS:
        return (ref.kind == "param") == (key == "weights")
    return fnmatchcase(str(ref), key)


def _pair(ref: TensorRef, owner: TensorRef) -> list[str]:
    return [str(ref), ref.kind, str(owner), owner.kind]


def _read_pair(pair: list[str]) -> tuple[TensorRef, TensorRef]:
    text, kind, owner, owner_kind = pair
    return TensorRef.parse(text, kind), TensorRef.parse(owner, owner_kind)
