"""The child: load files and run them as the other process asks, until it asks no more.

Imports no TensorFlow, unless a SavedModel is to be run. What native code prints goes to the error
stream; the pipe that was standard output carries messages alone.
"""

from __future__ import annotations

import os
import queue
import re
import signal
import sys
import threading
import time
from importlib import import_module
from typing import Any, BinaryIO

import numpy as np

from keras_edgeq.errors import EdgeqError
from keras_edgeq.runtime.child.frames import read_frame, write_frame
from keras_edgeq.runtime.child.limits import (
    end_first,
    end_limit_of_time,
    limit_files,
    limit_memory,
    limit_time,
)
from keras_edgeq.runtime.child.memory import peak_bytes, reset_peak

# Kind of a file -> module and class that load it, and the runtime.
LITERT, ONNX, TENSORFLOW = "ai_edge_litert.interpreter", "onnxruntime", "tensorflow"
LOADERS = {
    "litert": ("keras_edgeq.runtime.litert", "LiteRtModel", LITERT),
    "litert_profiler": ("keras_edgeq.runtime.litert_profiler", "LiteRtProfiler", LITERT),
    "onnx": ("keras_edgeq.runtime.onnx_model", "OnnxModel", ONNX),
    "onnx_profiler": ("keras_edgeq.runtime.onnx_profiler", "OnnxProfiler", ONNX),
    "saved_model": ("keras_edgeq.runtime.tf_model", "TfModel", TENSORFLOW),
}
# How NumPy, LiteRT and ONNX Runtime say that there was no memory.
NO_MEMORY = re.compile(
    r"bad_alloc|out of memory|(unable|fail\w*) to allocate|allocation fail", re.I
)
MOST_WORDS = 2000

Reply = tuple[dict[str, Any], dict[str, np.ndarray]]


def main() -> None:
    """Serve standard input until it ends; then end this process, even in the middle of its work."""
    requests, replies = _pipes()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interruption is for the other process
    limit_files()
    end_first()
    inbox: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=_receive, args=(requests, inbox), daemon=True).start()
    server = Server()
    while True:
        head, arrays = server.answer(inbox.get())
        try:
            write_frame(replies, head, arrays)
        except TypeError as error:
            write_frame(replies, {"failed": str(error)})


class Server:
    """The loaded files, and what is done with them."""

    def __init__(self) -> None:
        self._models: list[Any] = []
        self._is_limited = False
        self._memory_before = 0

    def answer(self, request: Any) -> Reply:
        """Do what a message asks for; an error is an answer, too."""
        try:
            if isinstance(request, BaseException):
                raise request
            head, arrays = request
            limit_time(head["timeout_s"])
            return getattr(self, f"_{head['do']}")(head, arrays)
        except Exception as error:  # runtimes raise what they like
            kind = "refused" if isinstance(error, EdgeqError) else "failed"
            words = str(error) or type(error).__name__
            if isinstance(error, MemoryError) or NO_MEMORY.search(words):
                kind = "memory"
            return {kind: words[:MOST_WORDS]}, {}
        finally:
            end_limit_of_time()

    def _load(self, head: dict[str, Any], arrays: dict[str, Any]) -> Reply:
        module, name, runtime = LOADERS[head["kind"]]
        loader = getattr(import_module(module), name)
        import_module(runtime)
        if not self._is_limited:  # what the runtime itself takes is not the file's
            limit_memory(head["memory_bytes"])
            self._is_limited = True
        content = arrays.pop("content").tobytes()
        reset_peak()
        before, begin = peak_bytes(), time.perf_counter()
        model = loader(content, **head["options"])
        self._models.append(model)
        self._memory_before = before
        cost = {"load_s": time.perf_counter() - begin, "memory_bytes": self._memory()}
        return {"number": len(self._models) - 1, **cost, **model.form()}, {}

    def _run(self, head: dict[str, Any], arrays: dict[str, Any]) -> Reply:
        model, names = self._models[head["number"]], head["names"]
        return {}, model.compute([arrays[str(i)] for i in range(len(names))], names, head["wanted"])

    def _time(self, head: dict[str, Any], arrays: dict[str, Any]) -> Reply:
        model, names, count = self._models[head["number"]], head["names"], head["runs"]
        reset_peak()
        begin = time.perf_counter()
        taken = model.time([arrays[str(i)] for i in range(len(names))], names, count)
        # LiteRT makes its tensors and packs weights when it knows the sizes of the inputs.
        before = time.perf_counter() - begin - 1e-9 * float(taken.sum())
        return {"memory_bytes": self._memory(), "prepare_s": before}, {"taken_ns": taken}

    def _profile(self, head: dict[str, Any], arrays: dict[str, Any]) -> Reply:
        model, names, count = self._models[head["number"]], head["names"], head["runs"]
        inputs = [arrays[str(i)] for i in range(len(names))]
        return {"operations": model.profile(inputs, names, count)}, {}

    def _memory(self) -> dict[str, int]:
        """Return the peak of this process, and what it is more than before the last file came."""
        peak = peak_bytes()
        return {"process": peak, "file": max(peak - self._memory_before, 0)}


def _pipes() -> tuple[BinaryIO, BinaryIO]:
    """Return what was standard input and output, and leave native code none of them."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return requests, replies


def _receive(requests: BinaryIO, inbox: queue.Queue[Any]) -> None:
    """Read messages; their end is the end of the other process, or its wish."""
    try:
        while True:
            inbox.put(read_frame(requests))
    except (EOFError, OSError):
        os._exit(0)
    except BaseException as error:
        inbox.put(error)
