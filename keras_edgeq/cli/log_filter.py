"""Keep the log lines of TensorFlow's C++ code off the terminal, and let everything else through.

They are written before any setting of TensorFlow is read, straight to the file of stderr. A process
of its own reads that file: a thread would wait for the one that writes, and what a crash prints
last would be lost. This file is that process's program, too.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator

# Level letter, date and time, thread, file: `I0000 00:00:1764326189.1 14866 port.cc:153] ...`
NOISE = re.compile(
    rb"[IWE]\d{4} \d\d:\d\d:\d\d|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IWE] "
    rb"|WARNING: All log messages before absl::|To enable the following instructions: "
    rb"|INFO: Created TensorFlow Lite |INFO: Initialized TensorFlow Lite runtime"
)
LONGEST_WAIT = 2.0


@contextlib.contextmanager
def filtered_stderr() -> Iterator[None]:
    """Filter what is written to file 2; Python's own `sys.stderr` goes on as it was."""
    if not sys.executable or getattr(sys, "frozen", False):
        yield  # what would be started is another program than Python
        return
    try:
        real = os.dup(2)
        reader = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stderr=real,
            start_new_session=True,  # Ctrl-C is not for it
        )
    except OSError:
        yield
        return
    assert reader.stdin is not None  # a pipe was asked for
    os.dup2(reader.stdin.fileno(), 2)
    reader.stdin.close()
    before = sys.stderr
    # Loggers made meanwhile keep this one, so its file stays open until the process ends.
    sys.stderr = open(real, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    try:
        yield
    finally:
        sys.stderr.flush()
        sys.stderr = before
        os.dup2(real, 2)
        # A process that was left running may hold the pipe open.
        with contextlib.suppress(subprocess.TimeoutExpired):
            reader.wait(LONGEST_WAIT)


def drop_noise() -> None:
    """Copy stdin to stderr without the lines that are noise."""
    for line in sys.stdin.buffer:
        if not NOISE.match(line):
            sys.stderr.buffer.write(line)
            sys.stderr.buffer.flush()


if __name__ == "__main__":
    drop_noise()
