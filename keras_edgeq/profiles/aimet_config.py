"""Read AIMET's configuration files, those of Hexagon (HTP) versions among them, as profiles."""

from __future__ import annotations

import itertools
import json
import math
import re
from importlib import resources
from typing import Any

from keras_edgeq.errors import ProfileError
from keras_edgeq.profiles.aimet_kernels import allowed_kernels, kernels, own_kernel, to_precision
from keras_edgeq.profiles.aimet_ops import (
    NOT_NEGATIVE,
    OPS,
    PICKS,
    REORDERS,
    WEIGHTED,
    WITH_CHANNELS,
)
from keras_edgeq.profiles.aimet_settings import by_operation, flag, refuse_what_aimet_refuses

SECTIONS = ("defaults", "params", "op_type", "supergroups", "model_input", "model_output")
MAX_CHAINS = 5000


def is_aimet_config(data: Any) -> bool:
    """Tell whether JSON has the shape of an AIMET configuration."""
    return isinstance(data, dict) and "schema" not in data and len(set(SECTIONS) & set(data)) > 1


def read_aimet_config(data: Any, name: str, where: str) -> dict[str, Any]:
    """Return an AIMET configuration as the JSON of a profile.

    Operation types are those of ONNX. Range rules are those of AIMET's default scheme, SQNR. A bias
    that the file quantizes lies on the int32 grid of a kernel, not on one of the weights' width.

    Args:
        data: parsed JSON.
        name: of the file; becomes the name of the profile.
        where: what errors call the file.

    Raises:
        ProfileError: a section, key or value that AIMET does not know or refuses as well, or two
            rules that contradict each other; places are named.
    """
    import jsonschema

    try:
        jsonschema.validate(data, _schema())
    except jsonschema.ValidationError as error:
        place = "/".join(map(str, error.absolute_path)) or "top level"
        raise ProfileError(
            f"{where} is not a valid AIMET configuration: at {place}: {error.message}"
        ) from None
    try:
        return _Reader(data).profile(name)
    except ProfileError as error:
        raise ProfileError(f"{where}: {error}") from None


class _Reader:
    """One configuration on its way to a profile."""

    def __init__(self, data: dict[str, Any]):
        self.data, self.defaults = data, data["defaults"]
        refuse_what_aimet_refuses(data)
        self.strict = flag(self.defaults.get("strict_symmetric", False))
        self.unsigned = flag(self.defaults.get("unsigned_symmetric", False))
        if self.strict and self.unsigned:
            raise ProfileError(
                "defaults/strict_symmetric True conflicts with defaults/unsigned_symmetric True."
            )
        self.said = by_operation(data["op_type"])
        self.symmetric = flag(self.defaults["ops"].get("is_symmetric", False))
        self.kernels = kernels(self.defaults.get("supported_kernels"))
        self._check_inputs()

    def profile(self, name: str) -> dict[str, Any]:
        """Return the JSON of the profile."""
        own = own_kernel(self.kernels)
        activation, weight = (
            self._activation(self.symmetric),
            self._weight(self._param("symmetric")),
        )
        bias = "int32" if self._bias() else "float"
        entries = {n: to_precision(k, activation, weight, bias) for n, k in self.kernels.items()}
        others = {n: entry for n, entry in entries.items() if n not in (own, "FP32")}
        chip = self.defaults.get("hw_version")
        ops = sorted({*self.said, *WEIGHTED})
        rules = {op: rule for op in ops if (rule := self._rule(op))}
        if "is_input_quantized" not in self.data["model_input"]:
            rules["Input"] = {"output": False}
        return {
            "schema": 1,
            "name": re.sub("[^a-z0-9]+", "_", name.lower()).strip("_") or "aimet",
            "description": f"AIMET configuration {name}" + (f" for {chip}." if chip else "."),
            "activation": entries[own]["activation"],
            "weight": entries[own]["weight"],
            "per_channel": [op for op in WITH_CHANNELS if self._is_per_channel(op)],
            "bias": entries[own]["bias"],
            "quantized": ["*"],
            "fused": self._chains(),
            "same_grid": [op for op in (*REORDERS, *PICKS) if self._stays_on_grid(op)],
            "regrid": {},
            "fixed_ranges": {},
            "precisions": others,
            "ops": rules,
            "arithmetic": "float",
            "onnx_activation": "uint8",
            "onnx_weight": "int8",
            "onnx_opset": 18,
            "formats": ["onnx", "encodings", "saved_model"],
        }

    def _says(self, op: str, key: str, default: Any = None) -> Any:
        return self.said.get(op, {}).get(key, (default, ""))[0]

    def _path(self, op: str, key: str) -> str:
        return self.said[op][key][1]

    def _activation(self, symmetric: bool) -> dict[str, Any]:
        if not symmetric:
            return {"symmetric": False, "signed": False, "narrow_range": False}
        return self._symmetric()

    def _weight(self, symmetric: bool) -> dict[str, Any]:
        if not symmetric:
            return {"symmetric": False, "signed": True, "narrow_range": False}
        return self._symmetric()

    def _symmetric(self) -> dict[str, Any]:
        signed = None if self.unsigned else True
        return {"symmetric": True, "signed": signed, "narrow_range": self.strict}

    def _param(self, what: str, op: str = "") -> bool:
        """Return `is_<what>` of an operation's weights: op_type, then params, then defaults."""
        key = f"is_{what}"
        general = self.data["params"].get("weight", {}).get(key, self.defaults["params"].get(key))
        return flag(self._says(op, f"params/weight/{key}", general))

    def _bias(self) -> bool:
        """Tell whether biases are quantized, which is one answer for all operations."""
        key = "is_quantized"
        default = self.defaults["params"].get(key)
        place = "params/bias" if key in self.data["params"].get("bias", {}) else "defaults/params"
        wanted = flag(self.data["params"].get("bias", {}).get(key, default))
        for op in WEIGHTED:
            if self._says(op, f"params/bias/{key}", wanted) != wanted:
                raise ProfileError(
                    f"{self._path(op, f'params/bias/{key}')} conflicts with {place}/{key}: biases "
                    "are quantized in all operations or in none."
                )
        return wanted

    def _is_per_channel(self, op: str) -> bool:
        default = flag(self.defaults.get("per_channel_quantization", False))
        return self._says(op, "per_channel_quantization", default)

    def _is_quantized(self, op: str) -> bool:
        return self._says(op, "is_output_quantized", True)

    def _has_own_grid(self, op: str) -> bool:
        constraint = self._says(op, "encoding_constraints")
        return bool(constraint and constraint[1] is not None) or (
            self._says(op, "is_symmetric", self.symmetric) != self.symmetric
        )

    def _stays_on_grid(self, op: str) -> bool:
        if op in REORDERS:
            return not self._has_own_grid(op)
        return not self._is_quantized(op)

    def _rule(self, op: str) -> dict[str, Any]:
        """Return the profile's rule for one operation, empty where it is like all others."""
        rule: dict[str, Any] = {}
        constraint = self._says(op, "encoding_constraints")
        if constraint is not None:
            rule.update(self._fixed(op, *constraint))
        if op not in REORDERS and not self._is_quantized(op):
            if constraint is not None:
                raise ProfileError(
                    f"{self._path(op, 'is_output_quantized')} False conflicts with "
                    f"{self._path(op, 'encoding_constraints')}, which gives that output a range."
                )
            rule.update({} if op in PICKS else {"output": False})
        elif self._says(op, "is_symmetric", self.symmetric) != self.symmetric:
            rule["activation"] = self._activation(not self.symmetric)
        wanted = self._says(op, "supported_kernels")
        if wanted is not None:
            rule["precisions"] = allowed_kernels(
                wanted, self.kernels, self._path(op, "supported_kernels")
            )
        if op in WEIGHTED:
            rule.update(self._weights(op))
        return rule

    def _weights(self, op: str) -> dict[str, Any]:
        if not self._param("quantized", op):
            return {"weights": False}
        symmetric = self._param("symmetric", op)
        same = symmetric == self._param("symmetric")
        return {} if same else {"weight": self._weight(symmetric)}

    def _fixed(self, op: str, low: float, high: float | None) -> dict[str, Any]:
        path = self._path(op, "encoding_constraints")
        if high is None:
            if low != 0 or op not in NOT_NEGATIVE:
                raise ProfileError(
                    f"{path} gives a min alone, which is taken only as 0 on outputs that are never "
                    f"negative ({', '.join(NOT_NEGATIVE)}); give min and max."
                )
            return {}
        if not (math.isfinite(high - low) and low <= 0 <= high and low < high):
            raise ProfileError(f"{path} is [{low}, {high}]; a range contains 0 and is not empty.")
        return {"fixed_range": [low, high]}

    def _chains(self) -> list[list[str]]:
        """Return the supergroups in all spellings; batch norms are folded, so they do not count."""
        chains: dict[tuple[str, ...], None] = {}
        for number, group in enumerate(self.data["supergroups"]):
            kinds = [kind for kind in group["op_list"] if kind != "BatchNormalization"]
            choices = [OPS.get(kind, ()) for kind in kinds]
            self._check_hidden(choices[:-1], f"supergroups/{number}")
            if len(kinds) > 1 and len(chains) + math.prod(map(len, choices)) <= MAX_CHAINS:
                chains.update(dict.fromkeys(itertools.product(*choices)))
            elif len(kinds) > 1:
                raise ProfileError(f"supergroups name more than {MAX_CHAINS} chains of operations.")
        return [list(chain) for chain in chains]

    def _check_hidden(self, choices: list[tuple[str, ...]], place: str) -> None:
        for op in itertools.chain(*choices):
            constraint = self._says(op, "encoding_constraints")
            if constraint is not None and constraint[1] is not None:
                raise ProfileError(
                    f"{self._path(op, 'encoding_constraints')} gives an output a range, but "
                    f"{place} leaves it without a quantizer; the two rules conflict."
                )

    def _check_inputs(self) -> None:
        """Raise if the file quantizes an input that an operation may leave float."""
        key = "is_input_quantized"
        asking = [self._path(op, key) for op in self.said if self._says(op, key)]
        floats = [
            self._path(op, "is_output_quantized")
            for op in self.said
            if op not in (*REORDERS, *PICKS) and not self._is_quantized(op)
        ]
        if asking and floats:
            raise ProfileError(
                f"{asking[0]} True conflicts with {floats[0]} False: a tensor between the two "
                "would be quantized at its reader alone. Leave one of them out."
            )


def _schema() -> Any:
    text = resources.files("keras_edgeq.profiles").joinpath("aimet_config.schema.json")
    return json.loads(text.read_text("utf-8"))
