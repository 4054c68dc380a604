"""`Kernel`: what a layer computes in, and what else the target could compute it in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any

from keras_edgeq.errors import ProfileError
from keras_edgeq.nearest import did_you_mean
from keras_edgeq.profiles.precision import FLOAT_BITS
from keras_edgeq.table import brief

# Bits of weights and activations: None for weights there are none of, and for floats.
Bits = tuple[int | None, int | None]


@dataclass(frozen=True)
class Kernel:
    """Describes the kernel of one layer.

    Args:
        op: operation, as the profiles call it: `"Conv2D"`, `"Add"`.
        precision: name of the precision it computes in.
        allowed: names of the precisions the target has for it, its own first -> bits of its
            weights and of the activations it reads and makes.
        parts: layers behind it that are fused into it.
        ends: `"input"` where it reads an input of the model, `"output"` where it makes an output;
            through layers without weights.
    """

    op: str
    precision: str
    allowed: Mapping[str, Bits]
    parts: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "allowed", MappingProxyType(dict(self.allowed)))

    def __repr__(self) -> str:
        return brief(f"Kernel {self.op}", self.precision, f"allowed {' '.join(self.allowed)}")

    @property
    def has_weights(self) -> bool:
        """Tell whether the target quantizes weights of this layer."""
        return any(weights is not None for weights, _ in self.allowed.values())

    def matches(self, layer: str, pattern: str) -> bool:
        """Tell whether a pattern means this kernel, which is that of `layer`."""
        named = any(names_layer(name, pattern) for name in (layer, *self.parts))
        return named or pattern == self.op or pattern in self.ends

    def named(self, layer: str, precision: str) -> str:
        """Return a precision's name where the target has it, else raise with those it has."""
        if precision not in self.allowed:
            raise self._none(layer, precision, did_you_mean(precision, self.allowed))
        return precision

    def of_bits(self, layer: str, now: str, weights: int | None, activations: int | None) -> str:
        """Return the precision of some bits; None keeps those of the precision `now`.

        Raises:
            ProfileError: the target has no such kernel; those it has are listed.
        """
        kept = self.allowed[now]
        wanted = (
            (kept[0] if weights is None else weights) if self.has_weights else None,
            kept[1] if activations is None else activations,
        )
        found = [name for name, bits in self.allowed.items() if bits == wanted]
        if None in (wanted[1], wanted[0] if self.has_weights else 0) or not found:
            asked = (("weights", weights), ("activations", activations))
            bits = " and ".join(f"{kind}={n!r}" for kind, n in asked if n is not None)
            raise self._none(layer, f"{bits} (it computes in {now} now)")
        return now if now in found else found[0]

    def _none(self, layer: str, asked: str, hint: str = "") -> ProfileError:
        kernels = ", ".join(f"{name} ({_told(bits)})" for name, bits in self.allowed.items())
        return ProfileError(
            f"Layer {layer!r} was asked for {asked}, but the profile has no such kernel for "
            f"{self.op}; it has {kernels}. Name one with precision=, or other layers.{hint}"
        )


def names_layer(layer: str, glob: str) -> bool:
    """Tell whether a glob matches a layer, or what the layer is a part of.

    That is `conv` for `conv/relu`, and a nested model for the layers inside.
    """
    parts = layer.split("/")
    return any(fnmatchcase("/".join(parts[: i + 1]), glob) for i in range(len(parts)))


def parents_first(asked: Mapping[str, str]) -> dict[str, str]:
    """Return precisions by name in the order in which each layer gets its own.

    The last name that matches counts, and `conv` matches `conv/relu`, too.
    """
    return {name: asked[name] for name in sorted(asked, key=lambda name: name.count("/"))}


def precisions_of(kernels: Mapping[str, Kernel]) -> dict[str, str]:
    """Return what has to be asked for by name so that layers get their kernels again."""
    asked: dict[str, str] = {}
    for layer in parents_first({name: kernel.precision for name, kernel in kernels.items()}):
        kernel = kernels[layer]
        hits = [name for name in asked if names_layer(layer, name)]
        own = next(iter(kernel.allowed))
        unasked = asked[hits[-1]] if hits else own
        # Parts that a profile gives more bits than are asked for what they belong to.
        is_narrower = _bits(kernel, kernel.precision) < _bits(kernel, own)
        if kernel.precision != unasked or is_narrower:
            asked[layer] = kernel.precision
    return asked


def _bits(kernel: Kernel, precision: str) -> int:
    return kernel.allowed[precision][1] or FLOAT_BITS


def matching(kernels: Mapping[str, Kernel], pattern: str, floats: Mapping[str, str]) -> list[str]:
    """Return the layers whose kernels a pattern means.

    Raises:
        ProfileError: nothing matches; the reason is given if `floats` (layer -> why) has one.
    """
    found = [layer for layer, kernel in kernels.items() if kernel.matches(layer, pattern)]
    if found:
        return found
    kept = {name: why for name, why in floats.items() if names_layer(name, pattern)}
    if kept:
        reasons = "; ".join(f"{name!r}: {why}" for name, why in list(kept.items())[:10])
        raise ProfileError(f"{pattern!r} names only layers that stay float: {reasons}.")
    some = ", ".join(list(kernels)[:10]) + (", ..." if len(kernels) > 10 else "")
    ops = ", ".join(dict.fromkeys(kernel.op for kernel in kernels.values()))
    raise ProfileError(
        f"No layer matches {pattern!r}. There are layers {some}, operations {ops}, and "
        '"input" and "output".' + did_you_mean(pattern, [*kernels, *ops.split(", ")])
    )


def kernels_to_json(kernels: Mapping[str, Kernel]) -> dict[str, Any]:
    """Return kernels as JSON values; what an operation allows is written once."""
    tables: list[dict[str, Bits]] = []
    layers = []
    for name, kernel in kernels.items():
        if dict(kernel.allowed) not in tables:
            tables.append(dict(kernel.allowed))
        table = tables.index(dict(kernel.allowed))
        entry = {"layer": name, "op": kernel.op, "precision": kernel.precision, "allowed": table}
        lists = {"parts": list(kernel.parts), "ends": list(kernel.ends)}
        layers.append(entry | {key: names for key, names in lists.items() if names})
    # As a list of pairs, because the order says which precision is the profile's own.
    allowed = [[[name, *bits] for name, bits in table.items()] for table in tables]
    return {"allowed": allowed, "layers": layers}


def kernels_from_json(data: dict[str, Any]) -> dict[str, Kernel]:
    """Read `kernels_to_json` output."""
    tables = [_table(rows) for rows in data["allowed"]]
    return {
        entry["layer"]: Kernel(
            entry["op"],
            entry["precision"],
            tables[entry["allowed"]],
            tuple(entry.get("parts", ())),
            tuple(entry.get("ends", ())),
        )
        for entry in data["layers"]
    }


def _table(rows: Iterable[list[Any]]) -> dict[str, Bits]:
    return {name: (weights, activations) for name, weights, activations in rows}


def _told(bits: Bits) -> str:
    weights, activations = bits
    if activations is None:
        return "float"
    return f"activations {activations}" if weights is None else f"{weights}, {activations}"
