"""`MeasurementLog`: what was measured, in memory and on disk, so that nothing is measured twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keras_edgeq.errors import EdgeqError
from keras_edgeq.files import check_file, json_text


class MeasurementLog:
    """Arrays by choice and part, such as a batch; on disk a line of JSON each, added as they come.

    Args:
        path: of the file, None keeps everything in memory. An unfinished last line is cut off.
        fingerprint: of all that the numbers depend on.

    Raises:
        EdgeqError: the file cannot be written, is damaged, or of another run.
    """

    def __init__(self, path: Path | None, fingerprint: str):
        self._known: dict[tuple[str, str], NDArray[np.float64]] = {}
        self._path = path
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._read(path, fingerprint)
            except OSError as error:
                raise EdgeqError(f"Cannot keep results in {path}: {error}") from None

    def get(self, choice: Mapping[str, str], part: str) -> NDArray[np.float64] | None:
        """Return what was measured of a choice."""
        return self._known.get((key_of(choice), part))

    def add(self, choice: Mapping[str, str], part: str, numbers: NDArray[np.float64]) -> None:
        """Keep what was measured."""
        key = key_of(choice)
        self._known[key, part] = numbers
        self._write({"choice": key, "part": part, "numbers": numbers.tolist()})

    def _write(self, line: Mapping) -> None:
        if self._path is None:
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise EdgeqError(
                f"Cannot keep results in {self._path} ({error}); earlier results stay valid: make "
                "room and start again."
            ) from error

    def _read(self, path: Path, fingerprint: str) -> None:
        check_file(path)
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            path.write_text(whole, encoding="utf-8")
        try:
            lines = [json_text.parse(line) for line in whole.splitlines()]
            known = lines[0]["fingerprint"] if lines else fingerprint
            for line in lines[1:]:
                numbers = np.array(line["numbers"], np.float64)
                self._known[str(line["choice"]), str(line["part"])] = numbers
        except (KeyError, TypeError, ValueError) as error:
            raise EdgeqError(f"{path} is damaged ({error!r}); delete it to start again.") from None
        if known != fingerprint:
            raise EdgeqError(
                f"{path} is of another run: the sim, the data, the candidates or an option was not "
                "the same. Give resume= another folder, or delete this one."
            )
        if not lines:
            self._write({"fingerprint": fingerprint})


def key_of(choice: Mapping[str, str]) -> str:
    """Return a short name of a choice."""
    text = json.dumps(sorted(choice.items()))
    return sha256(text.encode()).hexdigest()[:24]
