"""`PlanDiff`: what becomes another grid from one plan to another, and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from keras_edgeq.spec.quant_spec import QuantSpec
from keras_edgeq.spec.tensor_ref import TensorRef
from keras_edgeq.table import aligned, brief, counted, html

if TYPE_CHECKING:
    from keras_edgeq.plan.quant_plan import QuantPlan


@dataclass(frozen=True)
class Change:
    """One layer's precision or one tensor's grid, before and after.

    Args:
        name: of the layer, or the printed name of the tensor.
        before: precision, or grid.
        after: precision, or grid, after the change.
        why: `"asked for"`, the tensor whose grid it shares, or the layer that quantizes it again.
    """

    name: str
    before: str
    after: str
    why: str = ""


@dataclass(frozen=True)
class PlanDiff:
    """What differs between two plans; prints as a table, and is false where nothing does.

    Args:
        layers: those that compute in another precision. A change that is not resolved yet is
            `"asked for"`, and tensors do not show it.
        tensors: those on another grid.
    """

    layers: tuple[Change, ...]
    tensors: tuple[Change, ...]

    def __bool__(self) -> bool:
        return bool(self.layers or self.tensors)

    def tables(self) -> list[list[tuple[str, ...]]]:
        """Return the tables for people: layers, and tensors; titles first."""
        rows = [(c.name, c.before, c.after, c.why) for c in self.layers]
        grids = [(c.name, c.before, c.after, c.why) for c in self.tensors]
        parts = (("layer", rows), ("tensor", grids))
        return [[(head, "before", "after", ""), *part] for head, part in parts if part]

    def to_json(self) -> dict[str, list[dict[str, str]]]:
        """Return JSON values."""
        return {
            "layers": [asdict(change) for change in self.layers],
            "tensors": [asdict(change) for change in self.tensors],
        }

    def __repr__(self) -> str:
        return brief(
            "PlanDiff", counted(len(self.layers), "layer"), counted(len(self.tensors), "tensor")
        )

    def __str__(self) -> str:
        return "\n\n".join(map(aligned, self.tables())) or "no difference"

    def _repr_html_(self) -> str:
        return "\n".join([html(repr(self).strip("<>")), *(html("", t) for t in self.tables())])


def diff_plans(before: QuantPlan, after: QuantPlan) -> PlanDiff:
    """Return what differs from one plan of a model to another."""
    layers = []
    for name in {**before.kernels, **after.kernels}:
        old, new = _precision(before, name), _precision(after, name)
        if old != new:
            asked = name in after.asked and new != after.kernels[name].precision
            layers.append(Change(name, old, new, "asked for" if asked else ""))
    tensors = []
    for ref in dict.fromkeys(ref for plan in (after, before) for ref in _quantized(plan)):
        change = _change(ref, before, after)
        if change is not None:
            tensors.append(change)
    return PlanDiff(tuple(layers), tuple(tensors))


def _precision(plan: QuantPlan, layer: str) -> str:
    kernel = plan.kernels.get(layer)
    return plan.asked.get(layer, "float" if kernel is None else kernel.precision)


def _quantized(plan: QuantPlan) -> list[TensorRef]:
    return [*plan.specs, *plan.shared, *plan.carriers]


def _change(ref: TensorRef, before: QuantPlan, after: QuantPlan) -> Change | None:
    owners = (before.owner(ref), after.owner(ref))
    specs = [p.specs[o] if o else None for p, o in zip((before, after), owners, strict=True)]
    same_owner = None in owners or owners[0] == owners[1]
    if specs[0] == specs[1] and same_owner:
        return None
    old, new = (_told(spec, ref) for spec in specs)
    if old == new and specs[0] is not None and specs[1] is not None:
        old, new = _apart(specs[0], specs[1])
    return Change(str(ref), old, new, _why(ref, owners[1]))


def _told(spec: QuantSpec | None, ref: TensorRef) -> str:
    if spec is None:
        return "as made" if ref.kind == "input" else "float"
    return "float16" if spec.is_half else f"int{spec.bits}"


def _apart(one: QuantSpec, other: QuantSpec) -> tuple[str, str]:
    """Return two specs of the same bits by the fields in which they differ."""
    fields, others = asdict(one), asdict(other)
    names = [name for name in fields if fields[name] != others[name]]
    old, new = (" ".join(f"{n}={f[n]}" for n in names) for f in (fields, others))
    return f"int{one.bits} {old}".rstrip(), f"int{other.bits} {new}".rstrip()


def _why(ref: TensorRef, owner: TensorRef | None) -> str:
    shared = f"on the grid of {owner}" if owner is not None and owner != ref else ""
    if ref.kind != "input":
        return shared
    if owner is None:
        return f"{ref.layer} reads it as made"
    return ", ".join(filter(None, (f"quantized again for {ref.layer}", shared)))
