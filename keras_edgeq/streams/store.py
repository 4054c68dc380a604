"""`TensorStore`: tensors in memory up to a limit, in files past it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import tensorflow as tf

from keras_edgeq.errors import EdgeqError
from keras_edgeq.sim.data import Batch

MEMORY_BYTES = 2_000_000_000


class TensorStore:
    """Holds tensors by number; what does not fit into memory lies in a temporary folder.

    A context manager: leaving it deletes the folder.

    Args:
        memory_bytes: tensors are kept in memory while their sum stays below.
        folder: where the temporary folder is made; None takes the system's place for such files.
    """

    def __init__(self, memory_bytes: int, folder: str | Path | None = None):
        self.memory_bytes = memory_bytes
        self.used_bytes = 0
        self.peak_bytes = 0
        self._parent = folder
        self._folder: tempfile.TemporaryDirectory | None = None
        self._held: dict[int, tf.Tensor | Path] = {}
        self._next = 0

    def put(self, tensor: tf.Tensor) -> int:
        """Keep a tensor and return its number."""
        number, self._next = self._next, self._next + 1
        size = _bytes(tensor)
        if self.used_bytes + size <= self.memory_bytes:
            self.used_bytes += size
            self.peak_bytes = max(self.peak_bytes, self.used_bytes)
            self._held[number] = tensor
            return number
        try:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="edgeq-", dir=self._parent)
            path = Path(self._folder.name) / f"{number}.npy"
            np.save(path, tensor.numpy())
        except OSError as error:
            raise EdgeqError(
                f"Cannot keep activations on disk ({error}). Give cache_folder= a place with room, "
                "a larger memory_bytes=, or less data."
            ) from error
        self._held[number] = path
        return number

    def get(self, number: int) -> tf.Tensor:
        """Return a tensor."""
        held = self._held[number]
        return tf.convert_to_tensor(np.load(held)) if isinstance(held, Path) else held

    def drop(self, number: int) -> None:
        """Forget a tensor."""
        held = self._held.pop(number)
        if isinstance(held, Path):
            held.unlink()
        else:
            self.used_bytes -= _bytes(held)

    def close(self) -> None:
        """Forget everything and delete the folder."""
        self._held.clear()
        self.used_bytes = 0
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def __enter__(self) -> TensorStore:
        """Return the store."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Delete the folder."""
        self.close()


class StoredBatches:
    """Batches of model inputs that can be read many times, from any kind of source."""

    def __init__(self, source: Iterable[Batch], store: TensorStore):
        self._store = store
        self._batches = [[store.put(tf.convert_to_tensor(p)) for p in batch] for batch in source]

    def every(self, step: int, start: int = 0) -> StoredBatches:
        """Return every so many batches, from a first one; nothing is copied."""
        part = StoredBatches((), self._store)
        part._batches = self._batches[start::step]
        return part

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._batches)

    def __iter__(self) -> Iterator[list[tf.Tensor]]:
        """Yield the batches."""
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> list[tf.Tensor]:
        """Return a batch in the order of the model's inputs."""
        return [self._store.get(number) for number in self._batches[index]]


def _bytes(tensor: tf.Tensor) -> int:
    return int(tensor.shape.num_elements() or 0) * tensor.dtype.size
