"""How long each operation of a TFLite file takes, by LiteRT's own profiler.

LiteRT's Python interface has no profiler; the library that it comes with has one, in C. Structures
and arguments are those of one version, and another one is refused. Run it in a process of its own.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from ctypes import byref, c_bool, c_char_p, c_int, c_int64, c_size_t, c_uint64, c_void_p
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from keras_edgeq.errors import EdgeqError
from keras_edgeq.runtime.operation_times import Event, rows
from keras_edgeq.runtime.tflite_file import TfliteGraph

KNOWN = "2.3."
LIBRARIES = ("libLiteRt.so", "libLiteRt.dylib", "libLiteRt.dll", "LiteRt.dll")
MOST_AXES = 8
CPU, WRITE = 1, 1
# Kinds of events: operations of LiteRT itself, and two of delegates.
OWN, DELEGATED = 2, (4, 8)


class _Layout(ctypes.Structure):
    # The rank shares its word with a flag for strides.
    _fields_ = (
        ("rank", c_int),
        ("sizes", c_int * MOST_AXES),
        ("strides", c_int * MOST_AXES),
    )


class _TensorType(ctypes.Structure):
    _fields_ = (("element", c_int), ("layout", _Layout))


class _Event(ctypes.Structure):
    _fields_ = (
        ("tag", c_char_p),
        ("kind", c_int),
        ("start_us", c_uint64),
        ("time_us", c_uint64),
        ("memory", c_int64 * 6),
        ("index", c_uint64),
        ("subgraph", c_uint64),
        ("source", c_int),
    )


class LiteRtProfiler:
    """A TFLite file with a signature, compiled so that each operation is recorded.

    Args:
        content: the file.
        kernels: `"xnnpack"` or `"builtin"`.
        threads: CPU threads.

    Raises:
        EdgeqError: the profiler of this LiteRT is not known.
    """

    def __init__(self, content: bytes, kernels: str = "xnnpack", threads: int = 1):
        self._library = _library()
        self._graph = TfliteGraph(content)
        self._kept: list[Any] = [ctypes.create_string_buffer(content, len(content))]
        self._environment, self._model, options = c_void_p(), c_void_p(), c_void_p()
        self._do("CreateEnvironment", 0, None, byref(self._environment))
        arguments = self._kept[0], c_size_t(len(content)), byref(self._model)
        self._do("CreateModelFromBuffer", self._environment, *arguments)
        self._do("CreateOptions", byref(options))
        self._do("SetOptionsHardwareAccelerators", options, CPU)
        mode = 'kernel_mode = "builtin"\n' if kernels == "builtin" else ""
        self._add(options, b"runtime_options_string", "enable_profiling = true\n")
        self._add(options, b"xnnpack", f"num_threads = {threads}\n{mode}")
        self._compiled, self._profiler = c_void_p(), c_void_p()
        made = byref(self._compiled)
        self._do("CreateCompiledModel", self._environment, self._model, options, made)
        self._do("CompiledModelGetProfiler", self._compiled, byref(self._profiler))
        if not self._profiler.value:
            raise EdgeqError("LiteRT gave no profiler.")

    def form(self) -> dict[str, dict]:
        """Return no inputs or outputs: the file is not run for its outputs."""
        return {"inputs": {}, "outputs": {}}

    def profile(
        self, inputs: Sequence[np.ndarray], names: Sequence[str], runs: int
    ) -> list[dict[str, Any]]:
        """Run the file once, and then so many times that count; return `operation_times.rows`."""
        fed = dict(zip(names, inputs, strict=True))
        buffers = self._inputs(fed), self._outputs()
        arrays = [(c_void_p * len(side))(*(one.value for one in side)) for side in buffers]
        arguments = [part for side in arrays for part in (c_size_t(len(side)), side)]
        for number in range(1 + runs):
            if number == 1:
                self._do("StartProfiler", self._profiler)
            self._do("RunCompiledModel", self._compiled, c_size_t(0), *arguments)
        self._do("StopProfiler", self._profiler)
        return rows(self._events(), runs)

    def _do(self, name: str, *arguments: Any) -> None:
        """Call a function of the library; all return a status."""
        function = getattr(self._library, f"LiteRt{name}")
        function.restype = c_int
        if status := function(*arguments):
            raise RuntimeError(f"LiteRt{name} ended with status {status}")

    def _add(self, options: c_void_p, kind: bytes, text: str) -> None:
        """Give compilation a few settings, a text of TOML that stays alive as long as this."""
        setting, held = c_void_p(), ctypes.create_string_buffer(text.encode())
        free = ctypes.CFUNCTYPE(None, c_void_p)(lambda _: None)
        self._kept += [held, free]
        self._do("CreateOpaqueOptions", kind, held, free, byref(setting))
        self._do("AddOpaqueOptions", options, setting)

    def _tensors(self, side: str) -> Iterator[tuple[int, str, _TensorType]]:
        """Yield number, name and type of the inputs or outputs of the signature."""
        signature, count = c_void_p(), c_size_t()
        self._do("GetModelSignature", self._model, c_size_t(0), byref(signature))
        self._do(f"GetNumSignature{side}s", signature, byref(count))
        for number in range(count.value):
            name, tensor, kind = c_char_p(), c_void_p(), _TensorType()
            place = signature, c_size_t(number)
            self._do(f"GetSignature{side}Name", *place, byref(name))
            self._do(f"GetSignature{side}TensorByIndex", *place, byref(tensor))
            self._do("GetRankedTensorType", tensor, byref(kind))
            yield number, (name.value or b"").decode(), kind

    def _inputs(self, fed: dict[str, np.ndarray]) -> list[c_void_p]:
        """Return a buffer per input that holds its array."""
        buffers = []
        for number, name, kind in [*self._tensors("Input")]:
            array = np.ascontiguousarray(fed[name])
            place = self._compiled, c_size_t(0), c_size_t(number)
            if any(size < 0 for size in kind.layout.sizes[: array.ndim]):
                sizes = (c_int * array.ndim)(*array.shape)
                self._do("CompiledModelResizeInputTensor", *place, sizes, c_size_t(array.ndim))
                kind.layout.sizes[: array.ndim] = array.shape
            buffer, memory = self._buffer("Input", number, kind), c_void_p()
            self._do("LockTensorBuffer", buffer, byref(memory), WRITE)
            ctypes.memmove(memory, array.ctypes.data, array.nbytes)
            self._do("UnlockTensorBuffer", buffer)
            buffers.append(buffer)
        return buffers

    def _outputs(self) -> list[c_void_p]:
        """Return a buffer per output, of the size that it has for these inputs."""
        tensors = [*self._tensors("Output")]
        layouts = (_Layout * len(tensors))()
        arguments = c_size_t(0), c_size_t(len(tensors)), layouts, c_bool(True)
        self._do("GetCompiledModelOutputTensorLayouts", self._compiled, *arguments)
        for (_, _, kind), layout in zip(tensors, layouts, strict=True):
            kind.layout = layout
        return [self._buffer("Output", number, kind) for number, _, kind in tensors]

    def _buffer(self, side: str, number: int, kind: _TensorType) -> c_void_p:
        needs, buffer = c_void_p(), c_void_p()
        place = self._compiled, c_size_t(0), c_size_t(number)
        self._do(f"GetCompiledModel{side}BufferRequirements", *place, byref(needs))
        arguments = byref(kind), needs, byref(buffer)
        self._do("CreateManagedTensorBufferFromRequirements", self._environment, *arguments)
        return buffer

    def _events(self) -> Iterator[Event]:
        """Yield the operations that ran, with the name of the tensor that each of LiteRT's made.

        A delegate numbers its operations by itself, and gives no names.
        """
        count = c_int()
        self._do("GetNumProfilerEvents", self._profiler, byref(count))
        recorded = (_Event * count.value)()
        self._do("GetProfilerEvents", self._profiler, count, recorded)
        for event in recorded:
            tag, took = (event.tag or b"").decode(), float(event.time_us)
            place = event.kind, tag, event.index, event.subgraph
            if event.kind in DELEGATED:
                yield Event(place, f"{tag} {event.index}", tag, "XNNPACK", took)
            elif event.kind == OWN and (name := self._made_by(event)) is not None:
                yield Event(place, name, tag, "builtin", took)

    def _made_by(self, event: _Event) -> str | None:
        """Return the tensor that an operation makes; None for what stands for a delegate's."""
        graph = self._graph.model.subgraphs[event.subgraph]
        if event.index >= len(graph.operators):
            return None
        made = graph.operators[event.index].outputs
        name = graph.tensors[made[0]].name if len(made) else b""
        return name.decode(errors="replace") if isinstance(name, bytes) else name


def _library() -> Any:
    """Return LiteRT's library, with functions of the version that is known."""
    version = metadata.version("ai-edge-litert")
    if not version.startswith(KNOWN):
        raise EdgeqError(
            f"the profiler of LiteRT {version} is not known; times per operation need {KNOWN}x"
        )
    spec = find_spec("ai_edge_litert")
    folders = [] if spec is None else [Path(p) for p in spec.submodule_search_locations or ()]
    found = [path for f in folders for name in LIBRARIES if (path := f / name).is_file()]
    if not found:
        raise EdgeqError("this wheel of LiteRT has no library with its profiler")
    return ctypes.CDLL(str(found[0]))
