"""The process of the user: starts a child, asks it, and says how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_edgeq.errors import EdgeqError, RuntimeFailedError
from keras_edgeq.runtime.child.frames import FrameError, read_frame, write_frame
from keras_edgeq.runtime.child.limits import TOO_MUCH_MEMORY
from keras_edgeq.runtime.child.loaded import Loaded

BOOT = Path(__file__).with_name("boot.py")
# Windows has exit codes in the place of signals.
EXITS = {
    0xC0000005: "an access violation",
    0xC0000017: "too little memory",
    0xC00000FD: "a stack overflow",
    0xC0000409: "an abort",
    3: "an abort",
}
MOST_WORDS = 300
# A batch of 32 images takes the largest image networks some ten seconds on one slow core.
TIMEOUT_S = 300.0
MEMORY_BYTES = 16 * 2**30


@dataclass(frozen=True)
class Limits:
    """What a runtime may take.

    Args:
        timeout_s: seconds per call: to load a file, and to run one batch.
        memory_bytes: what a file may take beyond its runtime.
    """

    timeout_s: float = TIMEOUT_S
    memory_bytes: int = MEMORY_BYTES

    def __post_init__(self):
        if not 0.0 < self.timeout_s < float("inf"):
            raise EdgeqError(
                f"timeout_s is {self.timeout_s!r}; it must be a positive number of seconds."
            )
        if not 0 < self.memory_bytes < 2**62:
            raise EdgeqError(
                f"memory_bytes is {self.memory_bytes!r}; it must be a positive number."
            )


class Child:
    """A process that runs files; started when first asked, and again after it ended.

    Args:
        limits: what it may take.
    """

    def __init__(self, limits: Limits | None = None):
        self.limits = Limits() if limits is None else limits
        self._running: _Running | None = None

    def load(self, kind: str, content: bytes, runtime: str, **options: Any) -> Loaded:
        """Load a file.

        Args:
            kind: one of those in `serve.LOADERS`.
            content: the file; of a SavedModel, the path of the folder.
            runtime: what to call the runtime in errors.
            options: of the class that loads it.

        Raises:
            EdgeqError: the runtime refuses the file.
            RuntimeFailedError: it ended, took too long or too much memory.
        """
        if self._running is None or self._running.end is not None:
            self._running = _Running(self.limits)
        head = {"do": "load", "kind": kind, "options": options}
        data = {"content": np.frombuffer(content, np.uint8)}
        answer, _ = self._running.ask(head, data, f"{runtime} %s while it loaded the file")
        return Loaded(self._running.ask, runtime, answer)

    def close(self) -> None:
        """End the process."""
        if self._running is not None:
            self._running.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


class _Running:
    """One process from its start to its end.

    Attributes:
        end: how it ended, None while it runs.
    """

    def __init__(self, limits: Limits):
        self.limits = limits
        self.end: str | None = None
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 closed with the process
        self._lock = threading.Lock()
        if not sys.executable:
            raise EdgeqError(
                "Python does not know its own program, which runs files (sys.executable)."
            )
        path = os.pathsep.join(str(part) for part in sys.path if part)
        self._process = subprocess.Popen(
            [sys.executable, str(BOOT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            env={**os.environ, "PYTHONPATH": path},
        )
        self.close = weakref.finalize(self, _end, self._process, self._words)

    def ask(
        self, head: dict[str, Any], arrays: dict[str, np.ndarray], doing: str
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Send a message and return the answer.

        Args:
            head: the message.
            arrays: what goes with it.
            doing: for errors, with a place for what happened.
        """
        if self.end is not None:
            raise RuntimeFailedError(self.end)
        limits = {"timeout_s": self.limits.timeout_s, "memory_bytes": self.limits.memory_bytes}
        late = threading.Event()
        watch = threading.Timer(self.limits.timeout_s, self._stop, [late])
        watch.daemon = True
        with self._lock:
            watch.start()
            try:
                write_frame(self._process.stdin, {**head, **limits}, arrays)  # type: ignore[arg-type]
                answer, made = read_frame(self._process.stdout, self.limits.memory_bytes)  # type: ignore[arg-type]
            except (EOFError, OSError, FrameError) as error:
                self._ended(doing, late.is_set(), error)
            except BaseException:  # an interruption leaves half a message
                self.end = doing % "was interrupted"
                self.close()
                raise
            finally:
                watch.cancel()
        return self._checked(answer, doing), made

    def _stop(self, late: threading.Event) -> None:
        late.set()
        self._process.kill()

    def _ended(self, doing: str, is_late: bool, error: Exception) -> None:
        """Raise what says how the process ended."""
        if isinstance(error, FrameError):
            self._process.kill()
        code = self._process.wait()
        if is_late:
            how = f"took longer than {self.limits.timeout_s:g} s (timeout_s=)"
        elif isinstance(error, FrameError):
            how = f"sent no readable answer ({error})"
        elif code == TOO_MUCH_MEMORY:
            how = self._too_much()
        else:
            how = f"ended with {_exit(code)}"
        last = "" if is_late else self._last_words()
        self.end = doing % how + (f"; it last said: {last}" if last else "") + "."
        self.close()
        raise RuntimeFailedError(self.end) from None

    def _checked(self, answer: dict[str, Any], doing: str) -> dict[str, Any]:
        if "refused" in answer:
            raise EdgeqError(answer["refused"])
        if "memory" in answer:
            raise RuntimeFailedError(f"{doing % self._too_much()}: {answer['memory']}")
        if "failed" in answer:
            raise RuntimeFailedError(f"{doing % 'failed'}: {answer['failed']}")
        return answer

    def _too_much(self) -> str:
        return (
            f"needed more than {self.limits.memory_bytes / 2**30:g} GiB of memory (memory_bytes=)"
        )

    def _last_words(self) -> str:
        """Return the last line that the process wrote to its error stream."""
        size = self._words.seek(0, os.SEEK_END)
        self._words.seek(max(size - 4096, 0))
        lines = self._words.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip()[:MOST_WORDS] if lines else ""


def _exit(code: int) -> str:
    """Return what a process ended with, in words."""
    if code < 0:
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"
    return EXITS.get(code & 0xFFFFFFFF, f"exit status {code}")


def _end(process: Any, words: Any) -> None:
    process.kill()
    for stream in (process.stdin, process.stdout, words):
        with contextlib.suppress(OSError):  # what was not sent is not wanted any more
            stream.close()
    process.wait()
