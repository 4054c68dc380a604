"""Files are written whole or not at all, and JSON is read within bounds."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from keras_edgeq import json_text
from keras_edgeq.errors import EdgeqError, ExportError


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file or folder beside `path`, then move it into place.

    Raises:
        ExportError: the place cannot be written; an older file there stays as it was.
    """
    path = Path(path)
    scratch = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        new, old = scratch / path.name, scratch / "old" / path.name
        write(new)
        os.stat(new)  # nothing gives way to a writer that wrote nothing
        if path.is_dir() and not path.is_symlink():
            old.parent.mkdir()
            os.replace(path, old)
        try:
            os.replace(new, path)
        except OSError:
            if old.exists():
                os.replace(old, path)
            raise
    except OSError as error:
        raise ExportError(f"Cannot write {path}: {error.strerror or error}.") from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def read_json(path: Path, most_bytes: int, error: type[EdgeqError]) -> Any:
    """Return the values of a JSON file of at most `most_bytes`; NaN and double keys are errors.

    Raises:
        EdgeqError: of the given type; the file cannot be read, is too large or no JSON.
    """
    try:
        if path.exists() and not path.is_file():  # a device or a pipe may never end
            raise error(f"Cannot read {path}: it is no file.")
        if path.stat().st_size > most_bytes:
            raise error(f"{path} is larger than {most_bytes // 1_000_000} MB.")
        text = path.read_text(encoding="utf-8")
        return json_text.parse(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except OSError as problem:
        raise error(f"Cannot read {path}: {problem.strerror}.") from None
    except EdgeqError:
        raise
    except ValueError as problem:
        raise error(f"{path} is not JSON: {problem}") from None


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON.")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"{twice[:100]!r} stands twice in one object.")
    return made
