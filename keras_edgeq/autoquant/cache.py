"""Stages that were done, in a folder: a run that was killed goes on behind the last of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_edgeq.errors import EdgeqError
from keras_edgeq.files import json_text, write_whole
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.sim.save_load import load_sim, save_sim


class StageCache:
    """Keeps the sims of stages and what was found about them.

    Args:
        folder: of this run, made if need be; None keeps nothing.
    """

    def __init__(self, folder: Path | None):
        self.folder = folder

    def get(self, name: str) -> tuple[QuantSim, dict[str, Any]] | None:
        """Return a stage that was done; None if it was not, or cannot be read."""
        if self.folder is None or not (self._facts(name)).is_file():
            return None
        try:
            facts = json_text.parse(self._facts(name).read_text(encoding="utf-8"))
            return load_sim(self._sim(name)), dict(facts)
        except (EdgeqError, OSError, ValueError, TypeError):
            return None  # it is done again, with the same result

    def put(self, name: str, sim: QuantSim, facts: Mapping[str, Any]) -> None:
        """Keep a stage; its facts come last, so that what was killed was not done."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        save_sim(sim, self._sim(name))
        text = json.dumps(json_text.finite(dict(facts)), indent=1) + "\n"
        write_whole(self._facts(name), lambda path: path.write_text(text, encoding="utf-8"))

    def inner(self, name: str) -> Path | None:
        """Return a folder for what a stage keeps itself."""
        return None if self.folder is None else self.folder / name

    def _facts(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{name}.json"

    def _sim(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{name}.keras"
