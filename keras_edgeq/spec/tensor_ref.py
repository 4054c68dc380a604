"""`TensorRef`: the one naming rule for tensors in plans, files, reports and searches."""

from __future__ import annotations

import re
from dataclasses import dataclass

KINDS = ("input", "output", "param")
_SUFFIX = re.compile(r"^(?P<layer>.*?)(@(?P<call>\d+))?(?P<mark>[:<])?(?P<index>(?<=[:<])\d+)?$")


def part_name(layer: str, part: str) -> str:
    """Name a layer that is split off another one: `conv/relu`.

    A part that is named as the path begins gets `_part` appended (`relu/relu_part`), because
    `.h5` files keep the weights of a layer `relu` in a group `relu/relu`.
    """
    return f"{layer}/{part}" + ("_part" if layer.partition("/")[0] == part else "")


@dataclass(frozen=True, order=True)
class TensorRef:
    """Names one tensor of a model.

    Prints as `conv1` (first output of the first call), `conv1@1` (second call of a shared
    layer), `split:1` (second output), `concat<1` (second input of a layer) and
    `encoder/dense/kernel` (a parameter).

    Args:
        layer: path of the layer; inner layers of nested models carry their parents' names.
        kind: `"output"`, `"input"` or `"param"`.
        call: which call of a shared layer, from 0 in graph order; 0 for parameters.
        index: which input or output of the call.
        param: attribute name of the parameter, for kind `"param"` only.
    """

    layer: str
    kind: str = "output"
    call: int = 0
    index: int = 0
    param: str = ""

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"TensorRef.kind is {self.kind!r}; it must be one of {KINDS}.")
        if (self.kind == "param") != bool(self.param):
            raise ValueError("TensorRef.param is set for kind 'param', and only there.")

    def __str__(self) -> str:
        if self.kind == "param":
            return f"{self.layer}/{self.param}"
        call = f"@{self.call}" if self.call else ""
        if self.kind == "input":
            return f"{self.layer}{call}<{self.index}"
        return f"{self.layer}{call}" + (f":{self.index}" if self.index else "")

    @classmethod
    def parse(cls, text: str, kind: str) -> TensorRef:
        """Read a printed reference back; `kind` tells parameters from outputs."""
        if kind == "param":
            layer, _, param = text.rpartition("/")
            return cls(layer, "param", param=param)
        match = _SUFFIX.match(text)
        assert match is not None  # the pattern ends in .*? and so matches every text
        return cls(match["layer"], kind, int(match["call"] or 0), int(match["index"] or 0))
