"""Keep what HiGHS prints for its own developers off stdout."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import tempfile
import threading
from collections.abc import Iterator

# `HighsMipSolverData::transformNewIntegerFeasibleSolution tmpSolver.run();` of some versions.
PREFIX = b"Highs"
# Files are those of the process: two threads must not exchange them at once.
_LOCK = threading.Lock()


@contextlib.contextmanager
def without_solver_output() -> Iterator[None]:
    """Drop lines of HiGHS that its C++ code writes to file 1; other lines written there follow."""
    with _LOCK, tempfile.TemporaryFile() as kept:
        try:
            _flush()
            real = os.dup(1)
        except OSError:  # there is no stdout
            yield
            return
        os.dup2(kept.fileno(), 1)
        try:
            yield
        finally:
            _flush()
            os.dup2(real, 1)
            kept.seek(0)
            for line in kept:
                if not line.startswith(PREFIX):
                    os.write(real, line)
            os.close(real)


def _flush() -> None:
    """Empty the buffers of Python and C, so that each line goes where it was meant to."""
    with contextlib.suppress(AttributeError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).fflush(None)
