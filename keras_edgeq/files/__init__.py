"""Files are written whole or not at all, and JSON is read within bounds."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EINVAL
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

from keras_edgeq.errors import EdgeqError
from keras_edgeq.files import json_text
from keras_edgeq.files.file_set import staged


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file or folder in a scratch folder, then move it to `path`.

    Raises:
        ExportError: the place cannot be written; an older file there stays as it was.
    """
    path = Path(path)
    with staged(path.parent, path.name) as folder:
        write(folder / path.name)
        os.stat(folder / path.name)  # nothing gives way to a writer that wrote nothing


@contextmanager
def open_file(path: str | Path) -> Iterator[BufferedReader]:
    """Open a file for reading in binary; a device or a pipe may never end.

    Raises:
        OSError: there is no such file, or the path is not a file.
    """
    check_file(path)
    with Path(path).open("rb") as file:
        yield file


def check_file(path: str | Path) -> None:
    """Raise OSError where a path leads to something else than a file."""
    if Path(path).exists() and not Path(path).is_file():
        raise OSError(EINVAL, "it is not a file")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and contents of all files in a folder."""
    if not path.is_dir():
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    inside = {f.relative_to(path).as_posix(): f for f in path.rglob("*") if f.is_file()}
    lines = "".join(f"{sha256_of(inside[name])}  {name}\n" for name in sorted(inside))
    return hashlib.sha256(lines.encode()).hexdigest()


def read_json(path: Path, most_bytes: int, error: type[EdgeqError]) -> Any:
    """Return the values of a JSON file of at most `most_bytes`; NaN and double keys are errors.

    Raises:
        EdgeqError: of the given type; the file cannot be read, is too large or no JSON.
    """
    try:
        check_file(path)
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
    raise ValueError(f"{text} is not a number of JSON.")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"{twice[:100]!r} appears twice in one object.")
    return made
