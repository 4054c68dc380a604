"""A file that a child holds, as the process of the user sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

# Sends a message with arrays and says what for; returns the answer and its arrays.
Ask = Callable[
    [dict[str, Any], dict[str, np.ndarray], str], tuple[dict[str, Any], dict[str, np.ndarray]]
]


class Timed(NamedTuple):
    """Runs of a file that were timed.

    Attributes:
        taken_ns: how long each took, in nanoseconds.
        prepare_s: seconds until the first began.
        memory: as that of `Loaded`, meanwhile.
    """

    taken_ns: np.ndarray
    prepare_s: float
    memory: dict[str, int]


class Loaded:
    """A file that a child holds.

    Attributes:
        inputs: name -> `shape_signature`, `dtype`, `quantization`.
        outputs: the same for the outputs.
        load_s: seconds that it took to load.
        memory: the peak meanwhile, in bytes: of the `process`, and what the `file` added to it.
    """

    def __init__(self, ask: Ask, runtime: str, form: dict[str, Any]):
        self.inputs: dict[str, dict] = form["inputs"]
        self.outputs: dict[str, dict] = form["outputs"]
        self.load_s, self.memory = float(form["load_s"]), dict[str, int](form["memory_bytes"])
        self._ask, self._runtime, self._number = ask, runtime, form["number"]

    def compute(
        self,
        inputs: Sequence[np.ndarray],
        names: Sequence[str],
        wanted: Sequence[str] | None = None,
        what: str = "",
    ) -> dict[str, np.ndarray]:
        """Run the file.

        Args:
            inputs: arrays.
            names: the input that each is for.
            wanted: the outputs; None for those of the signature.
            what: said after "while it ran the file" in errors.

        Raises:
            RuntimeFailedError: the runtime failed, ended, took too long or too much memory.
        """
        wanted = None if wanted is None else list(wanted)
        return self._on("run", inputs, names, what, wanted=wanted)[1]

    def time(self, inputs: Sequence[np.ndarray], names: Sequence[str], runs: int) -> Timed:
        """Run the file so many times on the same inputs.

        Raises:
            RuntimeFailedError: as for `compute`; the limit of time is for all runs together.
        """
        answer, made = self._on("time", inputs, names, "", runs=runs)
        return Timed(made["taken_ns"], float(answer["prepare_s"]), answer["memory_bytes"])

    def profile(
        self, inputs: Sequence[np.ndarray], names: Sequence[str], runs: int
    ) -> list[dict[str, Any]]:
        """Run a file that was loaded to be profiled; return `operation_times.rows`."""
        return self._on("profile", inputs, names, "", runs=runs)[0]["operations"]

    def _on(
        self, do: str, inputs: Sequence[Any], names: Sequence[str], what: str, **more: Any
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        head = {"do": do, "number": self._number, "names": list(names), **more}
        data = {str(number): np.asarray(part) for number, part in enumerate(inputs)}
        return self._ask(head, data, f"{self._runtime} %s while it ran the file{what}")
