"""`UnitFiles`: the work done so far in a folder, so that an interrupted run goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from keras_edgeq.errors import EdgeqError
from keras_edgeq.files import write_whole
from keras_edgeq.sim.npz import READ_ERRORS, open_arrays

MARK = "fingerprint"


class UnitFiles:
    """Named sets of arrays in a folder, each in an `.npz` that is there whole or not at all.

    Args:
        folder: made where it is missing; None keeps nothing.
        fingerprint: of everything that the work depends on.
    """

    def __init__(self, folder: str | Path | None, fingerprint: str):
        self._folder = None if folder is None else Path(folder)
        self._fingerprint = fingerprint
        if self._folder is not None:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise EdgeqError(f"Cannot use resume={str(folder)!r}: {error}") from None

    def read(self, name: str) -> dict[str, np.ndarray] | None:
        """Return a set, None if it was not written.

        Raises:
            EdgeqError: it is damaged, or of a run with other data, another sim or other options.
        """
        if self._folder is None or not (path := self._path(name)).exists():
            return None
        try:
            with open_arrays(path) as file:
                found = {key: file[key] for key in file.files}
        except READ_ERRORS as error:
            raise EdgeqError(
                f"Cannot read {path} ({error}); delete it to do its work again."
            ) from None
        if str(found.pop(MARK, "")) != self._fingerprint:
            raise EdgeqError(
                f"{path} is of another run: the sim, the data or an option was not the same. Give "
                "resume= another folder, or delete this one."
            )
        return found

    def write(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep a set."""
        if self._folder is None:
            return
        marked = {MARK: np.array(self._fingerprint), **arrays}

        def write(target: Path) -> None:
            with target.open("wb") as file:
                np.savez(file, allow_pickle=False, **marked)

        write_whole(self._path(name), write)

    def _path(self, name: str) -> Path:
        assert self._folder is not None  # asked before
        return self._folder / f"{name}.npz"
