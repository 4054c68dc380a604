"""An artifact on its runtime in a child process, without the sim that it was exported from."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from keras_edgeq.errors import EdgeqError
from keras_edgeq.evaluate.signature import Signature, signature_of
from keras_edgeq.prepare.saved_model_guard import check_saved_model
from keras_edgeq.runtime.artifact_file import ArtifactFile, read_artifact
from keras_edgeq.runtime.child.loaded import Timed
from keras_edgeq.runtime.child.process import Child, Limits
from keras_edgeq.runtime.tflite_tensors import as_input, real_values

KERNELS = ("xnnpack", "builtin")
# Kind of a file -> what a child calls it, the runtime, and the package that it comes in.
RUNTIMES = {
    "tflite": ("litert", "LiteRT", "ai-edge-litert"),
    "onnx": ("onnx", "ONNX Runtime", "onnxruntime"),
    "saved_model": ("saved_model", "TensorFlow", "tensorflow"),
}
NO_PROFILER = "TensorFlow runs a SavedModel as one function; its profiler is not read"


class ArtifactRun:
    """A loaded artifact.

    Args:
        path: a `.tflite` or `.onnx` file or the folder of a SavedModel.
        kernels: LiteRT's, `"xnnpack"` or `"builtin"`.
        threads: CPU threads.
        limits: what it may take.

    Attributes:
        file: what was read.
        runtime: what runs it: `"LiteRT xnnpack"`, `"ONNX Runtime"`, `"TensorFlow"`.
        version: of the runtime.
        signature: its inputs and outputs.
        loaded: what the child says of it.

    Raises:
        EdgeqError: the artifact is missing, damaged, refused by its runtime or of another kind, or
            the runtime is not installed.
        RuntimeFailedError: the runtime ended, or took too long or too much memory.
    """

    def __init__(self, path: str | Path, kernels: str, threads: int, limits: Limits):
        self.file = checked_file(path, kernels, limits)
        kind, name, package = RUNTIMES[self.file.kind]
        self.runtime = f"{name} {kernels}" if kind == "litert" else name
        self.version = _version(package)
        self._options: dict[str, Any] = {"threads": threads}
        if kind == "litert":
            self._options["kernels"] = kernels
        self._limits, self._child = limits, Child(limits)
        try:
            self.loaded = self._child.load(kind, self._content, self.runtime, **self._options)
            self.signature: Signature = signature_of(self.loaded.inputs, self.loaded.outputs)
        except BaseException:
            self._child.close()
            raise

    def __enter__(self) -> ArtifactRun:
        return self

    def __exit__(self, *_: Any) -> None:
        self._child.close()

    def feed(self, batch: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return a batch of real numbers in the types of the file, quantized where it has integers.

        A file of a fixed batch is fed as many: the last sample stands for those that are missing.
        """
        size = self.signature.fixed_batch
        pairs = zip(batch, self.signature.ports, strict=True)
        fed = [as_input(part, port.dtype, port.quantization or (0.0, 0)) for part, port in pairs]
        if size is None or len(fed[0]) == size:
            return fed
        return [np.concatenate([p, np.repeat(p[-1:], size - len(p), axis=0)]) for p in fed]

    def predict(self, batch: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs for a batch by name, real numbers where the file has integers.

        Raises:
            RuntimeFailedError: the runtime ended, failed, or took too long or too much memory.
            EdgeqError: an output does not have a row per sample.
        """
        count = len(batch[0])
        size = self.signature.fixed_batch or count
        pieces = [self._piece([p[at : at + size] for p in batch]) for at in range(0, count, size)]
        return {name: np.concatenate([p[name] for p in pieces])[:count] for name in pieces[0]}

    def time(self, fed: Sequence[np.ndarray], runs: int) -> Timed:
        """Run the file so many times on inputs in the types of the file."""
        return self.loaded.time(fed, self.signature.input_names, runs)

    def profile(self, fed: Sequence[np.ndarray], runs: int) -> tuple[list[dict[str, Any]], str]:
        """Return the time of each operation, and if there are none, why.

        A process of its own runs the profiler, so that it can end without an end to the rest.
        """
        kind = RUNTIMES[self.file.kind][0]
        if kind == "saved_model":
            return [], NO_PROFILER
        try:
            with Child(self._limits) as child:
                name = f"{self.runtime}'s profiler"
                loaded = child.load(f"{kind}_profiler", self._content, name, **self._options)
                return loaded.profile(fed, self.signature.input_names, runs), ""
        except EdgeqError as error:
            return [], str(error)

    @property
    def _content(self) -> bytes:
        """What a child is sent: a SavedModel is a folder, of which the path."""
        file = self.file
        return str(file.path.absolute()).encode() if file.kind == "saved_model" else file.content

    def _piece(self, batch: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        fed = self.feed(batch)
        made = self.loaded.compute(fed, self.signature.input_names)
        for name, value in made.items():
            if value.shape[:1] != (len(fed[0]),):
                raise EdgeqError(
                    f"Output {name!r} of {self.file.path.name} has shape {value.shape} for "
                    f"{len(fed[0])} samples; only outputs with a row per sample are measured."
                )
        grids = {port.name: port.quantization or (0.0, 0) for port in self.signature.outputs}
        return {name: real_values(value, grids[name]) for name, value in made.items()}


def _version(package: str) -> str:
    """Return the version of a package; it may be installed under another name."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def checked_file(path: str | Path, kernels: str, limits: Limits) -> ArtifactFile:
    """Return an artifact that can be run; what is wrong with it is said without starting a runtime.

    Raises:
        EdgeqError: it is missing, damaged or of another kind, its runtime is not installed, there
            are no such kernels, or the graph of a SavedModel does more than compute.
    """
    if kernels not in KERNELS:
        raise EdgeqError(f"kernels is {kernels!r}; it must be 'xnnpack' or 'builtin'.")
    file = read_artifact(path, limits)
    file.need_runtime()
    if file.kind == "saved_model":
        check_saved_model(file.path, "Run it with TensorFlow yourself")
    return file
