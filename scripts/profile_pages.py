"""Renew the facts that docs/profiles/*.md tell of each profile.

    python scripts/profile_pages.py

Rows of the table that are not asked of the profile here stay as they are written.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import keras_edgeq as eq
from keras_edgeq.ops.table import OPS
from keras_edgeq.profiles import TargetProfile

PAGES = Path(__file__).resolve().parent.parent / "docs" / "profiles"
ORDER = {name: place for place, name in enumerate(OPS)}


def facts(profile: TargetProfile) -> dict[str, str]:
    """Return title -> cell of the rows that a profile decides; empty ones are left out."""
    own = profile.own.name
    rules = []
    for op, rule in profile.ops.items():
        rules += [] if rule.output else [f"{op}: output not quantized"]
        rules += [f"{op}: {', '.join(rule.precisions)} only"] if rule.precisions else []
    every = profile.computes("anything")
    return {
        "precision": f"`{own}`",
        "other precisions": _quoted(name for name in profile.precision_names if name != own),
        "mixtures": _quoted(profile.mixtures),
        "a scale per channel": _in_order(profile.per_channel) or "no operation",
        "computes": "every operation" if every else _in_order(profile.quantized),
        "output on the input's grid": _in_order({*profile.same_grid, *profile.regrid}),
        "exceptions": "; ".join(rules) or "none",
        "parts": ", ".join(f"{kind}: `{name}`" for kind, name in profile.parts.items()),
        "formats": _quoted(profile.formats),
    }


def renewed(text: str, profile: TargetProfile) -> str:
    """Return a page with its facts as the profile has them now."""
    lines, own = text.splitlines(), facts(profile)
    first = lines.index("|---|---|") + 1
    last = next(n for n, line in enumerate(lines) if n >= first and not line.startswith("|"))
    rows = dict(line.strip("| ").split(" | ", 1) for line in lines[first:last])
    rows.update(own)
    titles = [*rows]
    for title, before in (("mixtures", "activations"), ("parts", "formats")):
        titles.remove(title)
        titles.insert(titles.index(before), title)
    made = [f"| {title} | {rows[title]} |" for title in titles if rows[title]]
    return "\n".join([*lines[:first], *made, *lines[last:]]) + "\n"


def _in_order(names: Iterable[str]) -> str:
    return ", ".join(sorted(names, key=lambda name: (ORDER.get(name, len(ORDER)), name)))


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def main() -> None:
    """Write all pages."""
    for name in eq.profile_names():
        page = PAGES / f"{name}.md"
        page.write_text(renewed(page.read_text("utf-8"), eq.load_profile(name)), "utf-8")


if __name__ == "__main__":
    main()
