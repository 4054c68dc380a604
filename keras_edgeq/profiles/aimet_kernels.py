"""`supported_kernels` of AIMET configurations as precisions."""

from __future__ import annotations

from typing import Any

from keras_edgeq.errors import ProfileError

# What stands for an activation or a weight: an integer width, "FP16", or "FP32".
Kind = int | str
Kernel = tuple[Kind, Kind]

HALF = {"bits": 16, "dtype": "float"}
# A configuration that names no kernels leaves the widths to whoever simulates.
ANY_KERNEL: dict[str, Kernel] = {
    "W8A8": (8, 8), "W4A8": (8, 4), "W8A16": (16, 8), "W4A16": (16, 4), "FP16": ("FP16", "FP16"),
}  # fmt: skip


def kernels(section: list[dict[str, Any]] | None) -> dict[str, Kernel]:
    """Return (activation, weight) of each kernel by the name of its precision."""
    if section is None:
        return dict(ANY_KERNEL)
    found: dict[str, Kernel] = {}
    for number, entry in enumerate(section):
        place = f"defaults/supported_kernels/{number}"
        kernel = (_kind(entry["activation"], place), _kind(entry["param"], place))
        found[_name(kernel, place)] = kernel
    return found


def own_kernel(known: dict[str, Kernel]) -> str:
    """Return the name of the kernel that layers get unless asked otherwise: AIMET's is 8 by 8."""
    integer = [name for name, kernel in known.items() if all(isinstance(k, int) for k in kernel)]
    for name in ("W8A8", *integer, "FP16"):
        if name in known:
            return name
    raise ProfileError("defaults/supported_kernels has neither an integer nor a float16 kernel.")


def allowed_kernels(
    section: list[dict[str, Any]], known: dict[str, Kernel], place: str
) -> list[str]:
    """Return the names of the known kernels that an operation has, its own first."""
    wanted = []
    for number, entry in enumerate(section):
        at = f"{place}/{number}"
        param = _kind(entry["param"], at) if "param" in entry else None
        wanted.append((_kind(entry["activation"], at), param))
    names = [
        name
        for name, (activation, weight) in known.items()
        if (activation, weight) in wanted or (activation, None) in wanted
    ]
    if not names:
        raise ProfileError(
            f"{place} has no kernel in common with defaults/supported_kernels, which has "
            f"{', '.join(known)}; the two rules conflict."
        )
    own = own_kernel(known)
    return sorted(names, key=lambda name: name != own)


def to_precision(
    kernel: Kernel, activation: dict[str, Any], weight: dict[str, Any], bias: str
) -> dict[str, Any]:
    """Return a kernel as a profile's JSON holds a precision."""
    a, w = kernel
    return {
        "activation": _grid(a, activation),
        "weight": _grid(w, weight),
        "bias": "half" if w == "FP16" else bias if isinstance(a, int) else "float",
        "fixed_ranges": {},
    }


def _grid(kind: Kind, fields: dict[str, Any]) -> dict[str, Any] | None:
    if isinstance(kind, int):
        return {"bits": kind, **fields, "rule": "sqnr"}
    return dict(HALF) if kind == "FP16" else None


def _kind(width: dict[str, Any], place: str) -> Kind:
    bits, is_int = width["bitwidth"], width["dtype"] == "int"
    if is_int and bits <= 16:
        return bits
    if not is_int and bits >= 16:
        return f"FP{bits}"
    raise ProfileError(f"{place}: {width['dtype']} of {bits} bits is not a width of a tensor here.")


def _name(kernel: Kernel, place: str) -> str:
    activation, weight = kernel
    if isinstance(weight, int):
        return (
            f"W{weight}A{activation}" if isinstance(activation, int) else f"W{weight}{activation}"
        )
    if activation == weight:
        return weight
    raise ProfileError(f"{place}: {weight} weights need {weight} activations, not {activation}.")
