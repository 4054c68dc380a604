"""Profiles that say only what differs from another profile."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from keras_edgeq.errors import ProfileError
from keras_edgeq.files import read_json
from keras_edgeq.nearest import did_you_mean

EXTENDS = "extends"
MAX_FILE_BYTES = 1_000_000
# Profiles one behind the other; more is a circle, or nothing that a reader could follow.
DEEPEST = 8
MERGED = ("regrid", "fixed_ranges", "precisions", "ops", "parts", "mixtures")


def packaged(name: str) -> Any:
    """Return the JSON of a file of this folder."""
    return json.loads(resources.files("keras_edgeq.profiles").joinpath(name).read_text("utf-8"))


def built_in() -> list[str]:
    """Return the names of the built-in profiles."""
    files = resources.files("keras_edgeq.profiles").iterdir()
    names = [f.name for f in files if f.name.endswith(".json")]
    return sorted(n.removesuffix(".json") for n in names if not n.endswith(".schema.json"))


def whole(data: Any, where: str, folder: Path | None = None, depth: int = 0) -> Any:
    """Return the JSON of a profile with what it takes from the one that it extends.

    Entries of `MERGED` stand beside those of the other profile, or replace them; null takes one
    out. Whatever else is given replaces what the other profile says.

    Args:
        data: JSON of a profile.
        where: names it in errors.
        folder: where paths begin; None takes names of built-in profiles only.
        depth: how many profiles extend one another so far.

    Raises:
        ProfileError: there is no such profile, or profiles extend each other in a circle.
    """
    if not isinstance(data, dict) or EXTENDS not in data:
        return data
    if depth > DEEPEST:
        raise ProfileError(f"{where} extends a profile that extends it, or too many in a row.")
    base, own = data[EXTENDS], {key: value for key, value in data.items() if key != EXTENDS}
    if base in built_in():
        below = whole(packaged(f"{base}.json"), base, None, depth + 1)
    elif folder is not None and str(base).endswith(".json") and (folder / base).is_file():
        path = folder / base
        found = read_json(path, MAX_FILE_BYTES, ProfileError)
        below = whole(found, str(path), path.parent, depth + 1)
    else:
        raise ProfileError(
            f"{where} extends {base!r}, which is neither a .json file beside it nor a built-in "
            f"profile: {', '.join(built_in())}." + did_you_mean(str(base), built_in())
        )
    return {**below, **{key: _merged(key, below.get(key), value) for key, value in own.items()}}


def _merged(key: str, base: Any, own: Any) -> Any:
    if key not in MERGED or not isinstance(base, dict) or not isinstance(own, dict):
        return own
    return {name: value for name, value in {**base, **own}.items() if value is not None}
