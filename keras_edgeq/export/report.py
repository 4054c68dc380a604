"""`ExportReport`: what was written, what stayed float and why, and how well it was verified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_edgeq.runtime.verify import RunReport


@dataclass(frozen=True)
class ExportReport:
    """The result of an export.

    Args:
        profile: name of the target profile.
        files: artifact -> path.
        sizes: artifact -> bytes.
        integer_layers: layers that compute in integers.
        float_layers: layer -> why it stays float.
        float_ops: result in the TFLite file -> op that stayed float there, and why.
        constant_bytes: bytes of weights, biases and other constants in the TFLite file, by the type
            that holds them.
        floored: layer -> channels whose weight scale was raised for the int32 bias.
        runs: the verification, one entry per artifact and runtime.
    """

    profile: str
    files: Mapping[str, Path]
    sizes: Mapping[str, int]
    integer_layers: tuple[str, ...]
    float_layers: Mapping[str, str]
    float_ops: Mapping[str, str] = field(default_factory=dict)
    constant_bytes: Mapping[str, int] = field(default_factory=dict)
    floored: Mapping[str, int] = field(default_factory=dict)
    runs: tuple[RunReport, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "schema": 1,
            "profile": self.profile,
            "files": {name: path.name for name, path in self.files.items()},
            "sizes": dict(self.sizes),
            "integer_layers": list(self.integer_layers),
            "float_layers": dict(self.float_layers),
            "float_ops": dict(self.float_ops),
            "constant_bytes": dict(self.constant_bytes),
            "floored": dict(self.floored),
            "runs": [run.to_json() for run in self.runs],
        }

    def __str__(self) -> str:
        lines = [f"Exported for {self.profile}:"]
        width = max((len(str(path)) for path in self.files.values()), default=0)
        lines += [
            f"  {path!s:<{width}}  {self.sizes[n]:>12,} bytes" for n, path in self.files.items()
        ]
        total = len(self.integer_layers) + len(self.float_layers)
        lines.append(f"{len(self.integer_layers)} of {total} layers compute in integers.")
        lines += [f"  float: {name}: {why}" for name, why in self.float_layers.items()]
        lines += [f"  float in TFLite: {name}: {why}" for name, why in self.float_ops.items()]
        if self.constant_bytes:
            parts = [f"{kind} {size:,}" for kind, size in self.constant_bytes.items()]
            lines.append(f"  bytes of constants in TFLite: {', '.join(parts)}")
        if self.floored:
            channels = sum(self.floored.values())
            lines.append(
                f"{channels} dead channels got a coarser weight scale so that their bias fits "
                f"int32: {', '.join(self.floored)}"
            )
        lines += [str(run) for run in self.runs]
        return "\n".join(lines)
