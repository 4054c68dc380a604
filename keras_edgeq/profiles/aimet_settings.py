"""What the sections of an AIMET configuration say, operation by operation."""

from __future__ import annotations

from typing import Any

from keras_edgeq.errors import ProfileError
from keras_edgeq.profiles.aimet_ops import OPS, REORDERS

# Settings of one operation, each with the place in the file that says it.
Said = dict[str, tuple[Any, str]]


def refuse_what_aimet_refuses(data: dict[str, Any]) -> None:
    """Raise for what would leave inputs of operations or outputs by default unquantized."""
    ops, kinds = data["defaults"]["ops"], data["op_type"]
    refused = {
        "defaults/ops/is_input_quantized": "is_input_quantized" in ops,
        "defaults/ops/is_output_quantized": not flag(ops.get("is_output_quantized", False)),
        "model_input/is_input_quantized": not flag(
            data["model_input"].get("is_input_quantized", True)
        ),
        "model_output/is_output_quantized": not flag(
            data["model_output"].get("is_output_quantized", True)
        ),
    }
    for kind, entry in kinds.items():
        refused[f"op_type/{kind}/is_input_quantized"] = not flag(
            entry.get("is_input_quantized", True)
        )
    for place, is_refused in refused.items():
        if is_refused:
            raise ProfileError(
                f"{place} cannot have this value, as in AIMET: outputs are quantized by default "
                "(is_output_quantized True) and inputs where they are made; other entries of "
                "is_input_quantized and is_output_quantized are True or left out."
            )


def by_operation(section: dict[str, Any]) -> dict[str, Said]:
    """Return what `op_type` says of each operation of a profile; its aliases must agree."""
    said: dict[str, Said] = {}
    for kind, entry in section.items():
        for key, value in _settings(entry).items():
            path = f"op_type/{kind}/{key}"
            for op in OPS.get(kind, ()):
                if op in REORDERS and key in ("is_output_quantized", "is_input_quantized"):
                    continue
                known = said.setdefault(op, {}).setdefault(key, (value, path))
                if known[0] != value:
                    raise ProfileError(
                        f"{path} conflicts with {known[1]}: both are about {op} layers of Keras."
                    )
    return said


def _settings(entry: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of an operation type without nesting."""
    flat: dict[str, Any] = {k: flag(v) for k, v in entry.items() if not isinstance(v, dict | list)}
    for param, fields in entry.get("params", {}).items():
        flat.update({f"params/{param}/{key}": flag(value) for key, value in fields.items()})
    if "supported_kernels" in entry:
        flat["supported_kernels"] = entry["supported_kernels"]
    if "encoding_constraints" in entry:
        limits = entry["encoding_constraints"]
        flat["encoding_constraints"] = (limits["min"], limits.get("max"))
    return flat


def flag(value: Any) -> bool:
    """Return a boolean, which AIMET writes as text."""
    return value in (True, "True")
