"""Write docs/operations.md: what each technique and format does with each operation.

    python scripts/operations_page.py

Everything is asked of the rows in `keras_edgeq/ops` and of the profiles; a test holds the page
against them.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from keras_edgeq.ops import Op, Unsupported
from keras_edgeq.ops.table import OPS
from keras_edgeq.prepare.operations import FUNCTIONS, LAYERS
from keras_edgeq.profiles import load_profile

PAGE = Path(__file__).resolve().parent.parent / "docs" / "operations.md"
PROFILES = ("litert_int8", "litert_int16x8", "litert_w4a8", "onnxruntime_int8", "qnn_w8a8")
HEAD = """# Operations

What is known of each operation, printed by `scripts/operations_page.py` from the rows in
`keras_edgeq/ops`. An operation that is not listed stays float and is named with its reason.

- **fold**: batch norms fold into it; *behind* and *in front*, or behind alone.
- **round**: `gptq`, `adaround`, `seq_mse` and `correct_bias` work on it.
- **scale**: what becomes of the factors of `equalize` and `smooth`: layers with a kernel take them
  up; they pass through, stay below a cap, are shared where tensors meet, move along, or stop.
- **range**: ranges without data, `quantize(input_range=...)`, follow through it.
- **MACs**: counted by `search_mixed_precision`.
- Then, by profile, whether it computes in integers.
"""
WRITTEN = """
## Written with other operations

Before anything else these become operations of the table, where that computes the same: on real
numbers, with constants where they need some, and not along the samples. Add, Multiply, Maximum and
Minimum do so with more than two tensors. Recurrent layers of up to 128 steps become those of their
cells, step by step; the rows above are of those that stay.
"""
SCALES = {
    "passes": "passes", "caps": "below a cap", "pools": "passes", "joins": "shared",
    "moves": "moves", "stops": "stops",
}  # fmt: skip


def page() -> str:
    """Return the page's text."""
    profiles = [load_profile(name) for name in PROFILES]
    notes: dict[str, int] = {}
    head = ["operation", "Keras", "fold", "round", "scale", "range", "MACs", *PROFILES]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for op in OPS.values():
        in_integers = ["yes" if profile.computes(op.name) else "" for profile in profiles]
        cells = [f"`{op.name}`", _keras(op), *_techniques(op, notes), *in_integers]
        lines.append(f"| {' | '.join(cells)} |")
    told = [f"{number}. It {why}." for why, number in notes.items()]
    return "\n".join([HEAD, *lines, "", *told, WRITTEN, _written(), ""])


def _written() -> str:
    layers = [kind.__name__ for kind in LAYERS]
    names = [f"`{name}`" for name in (*layers, *(f"tf.{symbol}" for symbol in FUNCTIONS))]
    return ", ".join(names) + "."


def _keras(op: Op) -> str:
    names = [kind.__name__ for kind in op.classes]
    names += [f"tf.{symbol}" for symbol in op.symbols]
    names += [f"{name!r}" for name in op.functions]
    return ", ".join(names) or "by its options"


def _techniques(op: Op, notes: dict[str, int]) -> list[str]:
    """Return a cell per technique; a reason is a number of the list below the table."""

    def answer(value: object, yes: str = "yes") -> str:
        if not isinstance(value, Unsupported):
            return yes
        return "" if op.weights is None else f"no ({notes.setdefault(value.why, len(notes) + 1)})"

    sides = "behind" if op.sees_all is None else "behind, in front"
    scale = "takes up" if callable(op.channels) else SCALES[op.scale]
    ranges = "yes" if callable(op.channels) or op.spread != "other" or op.bounds else ""
    counted = "" if op.macs == "none" else "yes"
    return [answer(op.channels, sides), answer(op.matrix), scale, ranges, counted]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
