"""An artifact on disk: which runtime it is for, and its bytes, looked through for damage."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from keras_edgeq.errors import EdgeqError
from keras_edgeq.runtime.child.process import Limits

# Kind of an artifact -> the extra of the package that brings its runtime, and the runtime.
RUNTIMES = {"tflite": ("tflite", "ai_edge_litert"), "onnx": ("onnx", "onnxruntime")}


@dataclass(frozen=True)
class ArtifactFile:
    """An artifact that was found and is no damaged one.

    Args:
        path: the file, or the folder of a SavedModel.
        kind: `"tflite"`, `"onnx"` or `"saved_model"`.
        content: its bytes; of a folder, none.
    """

    path: Path
    kind: str
    content: bytes = b""

    @property
    def size_bytes(self) -> int:
        """Bytes on disk, of a folder those of all files in it."""
        if self.kind != "saved_model":
            return len(self.content)
        return sum(part.stat().st_size for part in self.path.rglob("*") if part.is_file())

    @property
    def has_runtime(self) -> bool:
        """Whether the runtime of its kind is installed."""
        return self.kind not in RUNTIMES or find_spec(RUNTIMES[self.kind][1]) is not None

    def need_runtime(self) -> None:
        """Raise where its runtime is not installed.

        Raises:
            EdgeqError: names the extra.
        """
        if not self.has_runtime:
            raise _missing(self.path, RUNTIMES[self.kind][1])


def read_artifact(path: str | Path, limits: Limits) -> ArtifactFile:
    """Read a `.tflite` or `.onnx` file, or look at the folder of a SavedModel.

    Raises:
        EdgeqError: it is missing, of another kind, larger than the limits, or damaged so that no
            runtime is needed to tell.
    """
    path = _as_path(path)
    try:
        exists = path.exists()
    except (OSError, ValueError):  # too long, or a null byte
        exists = False
    if not exists:
        raise EdgeqError(f"No such artifact: {path}.")
    if path.is_dir() and (path / "saved_model.pb").is_file():
        return ArtifactFile(path, "saved_model")
    kind = path.suffix.removeprefix(".")
    if kind not in RUNTIMES:
        raise EdgeqError(
            f"{path} is not an artifact that can be run: .tflite, .onnx or a SavedModel folder."
        )
    content = _content(path, limits)
    try:
        if kind == "tflite":
            from keras_edgeq.runtime.tflite_check import check_tflite

            check_tflite(content)
        else:
            from keras_edgeq.runtime.onnx_file import check_onnx

            check_onnx(content)
    except ImportError as error:
        raise _missing(path, str(error.name)) from None
    return ArtifactFile(path, kind, content)


def _as_path(path: Any) -> Path:
    if not isinstance(path, str | Path):
        files = getattr(path, "files", None)
        hint = f" It lists files: {', '.join(map(str, files.values()))}." if files else ""
        raise EdgeqError(
            f"An artifact is given by its path, not as {type(path).__name__}: a .tflite or .onnx "
            f"file or a SavedModel folder.{hint}"
        )
    return Path(path)


def _missing(path: Path, package: str) -> EdgeqError:
    extra = RUNTIMES[path.suffix.removeprefix(".")][0]
    return EdgeqError(f"{path.name} needs {package}: pip install 'keras_edgeq[{extra}]'.")


def _content(path: Path, limits: Limits) -> bytes:
    """Read a file; a pipe or a device may never end."""
    if not path.is_file():
        raise EdgeqError(f"Cannot read {path}: it is not a file.")
    try:
        size = path.stat().st_size
        if size > limits.memory_bytes:
            raise EdgeqError(
                f"{path} has {size} bytes, more than may be taken (memory_bytes="
                f"{limits.memory_bytes})."
            )
        return path.read_bytes()
    except OSError as error:
        raise EdgeqError(f"Cannot read {path}: {error.strerror}.") from None
