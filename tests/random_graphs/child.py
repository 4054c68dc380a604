"""A process of its own for checks: it may die or hang, and its memory goes with it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.random_graphs.check import Outcome, check_graph
from tests.random_graphs.export import check_export
from tests.random_graphs.graph import Graph

CHECKS = {"check": check_graph, "export": check_export}
# Traces of models leak: so many graphs, and a new process goes on.
MOST_GRAPHS = 60
SECONDS = 180.0


class Child:
    """Runs checks one after the other in a process that is started anew where it has to be."""

    def __init__(self) -> None:
        self.process: Any = None
        self.pipe: Any = None
        self.count = 0
        self.words = Path(tempfile.mkstemp(suffix=".txt")[1])

    def check(self, how: str, graph: Graph, seconds: float = SECONDS) -> Outcome:
        """Return the outcome of a check; `"abort"` where the process died, `"hangs"` in time."""
        if self.process is None or self.count >= MOST_GRAPHS:
            self._start()
        self.count += 1
        try:
            self.pipe.send((how, graph))
            if self.pipe.poll(seconds):
                return self.pipe.recv()
            outcome = Outcome("hangs", f"longer than {seconds:.0f} s", how)
        except (EOFError, ConnectionError):
            self.process.join()
            outcome = Outcome("abort", self._last_words(), f"exit code {self.process.exitcode}")
        self.stop()
        return outcome

    def stop(self) -> None:
        """End the process, if there is one."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.pipe.close()
        self.process = None
        self.words.unlink(missing_ok=True)

    def _start(self) -> None:
        self.stop()
        self.count = 0
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, str(self.words)), daemon=True)
        self.process.start()
        theirs.close()

    def _last_words(self) -> str:
        """Return what the process wrote last to its error stream."""
        with contextlib.suppress(OSError):
            lines = self.words.read_text(errors="replace").strip().splitlines()
            return " / ".join(lines[-2:])[:600]
        return ""


def _serve(pipe: Any, words: str) -> None:
    """Check what comes in until nothing does."""
    with open(words, "w") as file:  # runtimes write to the descriptor, not to `sys.stderr`
        os.dup2(file.fileno(), sys.stderr.fileno())
    import tensorflow as tf
    import tf_keras

    tf.get_logger().setLevel("ERROR")
    while True:
        try:
            how, graph = pipe.recv()
        except EOFError:
            return
        pipe.send(CHECKS[how](graph))
        tf_keras.backend.clear_session()
        if "keras" in sys.modules:
            sys.modules["keras"].backend.clear_session()
