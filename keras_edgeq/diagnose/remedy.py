"""`Remedy`: a change of a sim that may help against a cause of lost accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True)
class Remedy:
    """A change of a sim that may help.

    Args:
        name: `"range_rule"`, `"calibrate"`, `"equalize"`, `"per_channel"`, `"correct_bias"`,
            `"gptq"`, `"absorb_bias"` or `"precision"`.
        options: what it is done with: names of tensors, layers, precisions and rules.
    """

    name: str
    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))

    def __hash__(self) -> int:
        return hash((self.name, tuple(sorted(self.options.items()))))

    def __str__(self) -> str:
        if self.name == "precision":
            return f"{self.options['layer']} in {self.options['precision']}"
        if self.name == "range_rule":
            return f"rule {self.options['rule']} for {self.options['tensor']}"
        if self.name == "per_channel":
            return f"a scale per channel ({self.options['profile']})"
        return self.name

    @property
    def reads_data(self) -> bool:
        """Whether it is fitted to data, on which the sim is calibrated anew."""
        return self.name not in ("precision", "range_rule", "per_channel")

    @property
    def code(self) -> str:
        """What does the same by hand."""
        one = self.options
        if self.name == "precision":
            asked = f'**sim.record.precision, "{one["layer"]}": "{one["precision"]}"'
            return f"eq.requantize(sim, precision={{{asked}}})"
        if self.name == "range_rule":
            asked = f'**sim.record.rules, "{one["tensor"]}": "{one["rule"]}"'
            return f"eq.requantize(sim, rules={{{asked}}})"
        if self.name == "per_channel":
            return f'eq.requantize(sim, "{one["profile"]}")'
        if self.name == "calibrate":
            return "eq.quantize(model, data, ...)"
        if self.name in ("equalize", "absorb_bias"):
            return f"eq.quantize(eq.{self.name}(model, data), data, ...)"
        return f"eq.{self.name}(sim, data)"
