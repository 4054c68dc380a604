"""How long each node of an ONNX file takes, by ONNX Runtime's own profiler."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from keras_edgeq.runtime.onnx_model import OnnxModel
from keras_edgeq.runtime.operation_times import Event, rows

SUFFIX = "_kernel_time"


class OnnxProfiler:
    """An ONNX file in a session that records each node.

    Args:
        content: the file.
        threads: CPU threads.

    Raises:
        EdgeqError: ONNX Runtime refuses the file.
    """

    def __init__(self, content: bytes, threads: int = 1):
        self._folder = TemporaryDirectory(prefix="keras_edgeq-profile-")
        self._model = OnnxModel(content, threads=threads, profile_to=f"{self._folder.name}/run")

    def form(self) -> dict[str, dict]:
        """Return no inputs or outputs: the file is not run for its outputs."""
        return {"inputs": {}, "outputs": {}}

    def profile(
        self, inputs: Sequence[np.ndarray], names: Sequence[str], runs: int
    ) -> list[dict[str, Any]]:
        """Run the file once, and then so many times that count; return `operation_times.rows`."""
        self._model.time(inputs, names, 1 + runs)
        path = Path(self._model.end_profile())
        recorded = json.loads(path.read_text(encoding="utf-8"))
        self._folder.cleanup()
        return rows(_events(recorded, first=1), runs)


def _events(recorded: Sequence[dict[str, Any]], first: int) -> Iterator[Event]:
    """Yield what nodes did from one run on; each run ends with an entry of its own."""
    run = 0
    for entry in recorded:
        if entry.get("name") == "model_run":
            run += 1
        elif run >= first and entry.get("cat") == "Node" and entry["name"].endswith(SUFFIX):
            more, name = entry["args"], entry["name"].removesuffix(SUFFIX)
            place = name, more.get("node_index")
            yield Event(place, name, more["op_name"], more["provider"], float(entry["dur"]))
