"""The memory that this process holds, and the most that it has held."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from keras_edgeq.runtime.child.limits import resident_bytes

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_bytes() -> int:
    """Return the most memory in RAM since `reset_peak`, or where that does nothing, ever."""
    if sys.platform == "linux":
        # What `getrusage` tells there includes the process that started this one.
        with contextlib.suppress(OSError, ValueError, StopIteration):
            lines = STATUS.read_text().splitlines()
            return 1024 * int(next(one for one in lines if one.startswith("VmHWM")).split()[1])
    return resident_bytes()


def reset_peak() -> None:
    """Let the peak begin at what is held now; Linux only."""
    with contextlib.suppress(OSError):
        RESET.write_text("5")
