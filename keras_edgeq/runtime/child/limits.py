"""What keeps a process within bounds: memory, time, and the life of the process that started it."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import threading
import time
from pathlib import Path

# The exit status of a process that ends itself because it takes too much memory.
TOO_MUCH_MEMORY = 74
WATCHED_EVERY_S = 0.02
MOST_WRITTEN_BYTES = 2**26
# The other process ends a run that takes too long; this is for the case that it is gone.
SPARE_S = 10.0


def limit_memory(most_bytes: int) -> None:
    """Bound what this process takes beyond what it has now.

    Linux refuses the allocation. Where the system has no such limit, or does not keep it (macOS,
    Windows), a thread watches, and ends the process with `TOO_MUCH_MEMORY`.
    """
    if sys.platform == "linux" and _limit_address_space(most_bytes):
        return
    most = resident_bytes() + most_bytes
    threading.Thread(target=_watch_memory, args=(most,), daemon=True).start()


def limit_files() -> None:
    """Bound each file that this process writes, of which its messages are the only one."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_WRITTEN_BYTES, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def end_first() -> None:
    """Tell Linux which process to end if memory runs out nevertheless."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def limit_time(seconds: float) -> None:
    """End this process after a time, even where native code never comes back to Python."""
    faulthandler.dump_traceback_later(seconds + SPARE_S, exit=True)


def end_limit_of_time() -> None:
    """Take back what `limit_time` set."""
    faulthandler.cancel_dump_traceback_later()


def _limit_address_space(most_bytes: int) -> bool:
    """Set the limit of this process; False if the system does not let it."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + most_bytes
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    except (ImportError, OSError, ValueError):
        return False
    return True


def _watch_memory(most: int) -> None:
    while resident_bytes() <= most:
        time.sleep(WATCHED_EVERY_S)
    os._exit(TOO_MUCH_MEMORY)


def resident_bytes() -> int:
    """Return the most memory that this process has taken so far."""
    if sys.platform == "win32":
        return _peak_working_set()
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def _peak_working_set() -> int:
    """Return the same on Windows, whose standard library has no call for it."""
    import ctypes
    from ctypes import wintypes

    class Counters(ctypes.Structure):
        _fields_ = (
            ("cb", wintypes.DWORD),
            ("page_faults", wintypes.DWORD),
            *((f"size{number}", ctypes.c_size_t) for number in range(8)),
        )

    counters = Counters()
    counters.cb = ctypes.sizeof(counters)
    kernel = ctypes.WinDLL("kernel32")  # type: ignore[attr-defined]
    kernel.GetCurrentProcess.restype = wintypes.HANDLE
    query = kernel.K32GetProcessMemoryInfo
    query.argtypes = [wintypes.HANDLE, ctypes.POINTER(Counters), wintypes.DWORD]
    query(kernel.GetCurrentProcess(), ctypes.byref(counters), counters.cb)
    return int(counters.size0)
