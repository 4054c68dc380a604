"""Lock files: one process at a time, and no lock outlives the process that holds it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


# What taking a lock raises that another process, or another thread, holds.
HELD = (BlockingIOError, PermissionError)
WAIT_SECONDS = 60.0
POLL_SECONDS = 0.01


class FileLock:
    """A file that is locked while this object holds it; the system frees it with the process.

    On a file system without locks `take` succeeds, and nothing is excluded: `is_sure` is False.

    Args:
        path: of the lock file; its folder exists.
    """

    def __init__(self, path: Path):
        self.path = path
        self.is_sure = False
        self._descriptor: int | None = None

    def take(self) -> bool:
        """Make and lock the file; False if another process or thread has it.

        Raises:
            OSError: the file cannot be made.
        """
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(descriptor)
            self.is_sure = True
        except HELD:
            os.close(descriptor)
            return False
        except OSError:
            self.is_sure = False
        if not _is_at(descriptor, self.path):  # its former holder removed it in between
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def release(self, remove: bool = False) -> None:
        """Free the lock, and remove its file first where asked."""
        if self._descriptor is None:
            return
        if remove:
            with suppress(OSError):  # Windows keeps open files
                self.path.unlink()
        os.close(self._descriptor)
        self._descriptor = None


@contextmanager
def locked(path: Path, seconds: float = WAIT_SECONDS) -> Iterator[None]:
    """Hold a lock for the length of the context; its file is removed at the end.

    Raises:
        TimeoutError: another process holds it all the time.
        OSError: the file cannot be made.
    """
    lock, end = FileLock(path), time.monotonic() + seconds
    while not lock.take():
        if time.monotonic() > end:
            raise TimeoutError(f"another process holds {path.name} for {seconds:.0f} s")
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        lock.release(remove=True)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
