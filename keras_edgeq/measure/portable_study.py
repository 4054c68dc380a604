"""`Recipe`: what another process needs to measure the same choices; data that pickles."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import tf_keras
from numpy.typing import NDArray

from keras_edgeq.measure.candidate_grids import Bank, Form
from keras_edgeq.measure.evaluation import Bench
from keras_edgeq.measure.fingerprint import fingerprint
from keras_edgeq.measure.groups import Group, folded_graph
from keras_edgeq.spec.encoding import Encoding
from keras_edgeq.streams.store import StoredBatches, TensorStore

# Whose classes another process finds by itself.
OWN_PACKAGES = ("keras_edgeq", "tf_keras", "builtins")


@dataclass(frozen=True, eq=False)
class Recipe:
    """A bank and its batches without TensorFlow's objects.

    Args:
        key: the same for the same numbers; a process keeps its bench under it.
        sim: the bank's base in pickled form, as an array: joblib shares those between processes.
        custom: the user's own layers and functions by registered name.
        groups: as in the bank.
        candidates: as in the bank.
        forms: as in the bank.
        activations: as in the bank.
        batches: inputs of the model.
        memory_bytes: what a worker keeps of the data stays in memory up to that size.
    """

    key: str
    sim: NDArray[np.uint8]
    custom: Mapping[str, Any]
    groups: tuple[Group, ...]
    candidates: tuple[str, ...]
    forms: Mapping[str, Mapping[str, Form]]
    activations: Mapping[str, Mapping[str, Encoding]]
    batches: tuple[tuple[NDArray, ...], ...]
    memory_bytes: int

    @classmethod
    def of(cls, bank: Bank, source: StoredBatches, memory_bytes: int) -> Recipe:
        """Write down a bank and its batches."""
        parts = (bank.groups, bank.candidates, bank.forms, bank.activations)
        print_ = fingerprint(bank.base, source, {})
        key = sha256(print_.encode() + pickle.dumps(parts)).hexdigest()
        sim = np.frombuffer(pickle.dumps(bank.base), np.uint8)
        batches = tuple(tuple(part.numpy() for part in batch) for batch in source)
        return cls(key, sim, _custom_objects(bank.base), *parts, batches, memory_bytes)

    def bench(self) -> Bench:
        """Build what the recipe describes."""
        with tf_keras.saving.custom_object_scope(dict(self.custom)):
            base = pickle.loads(self.sim.tobytes())
        graph = folded_graph(base)
        bank = Bank(base, graph, self.groups, self.candidates, self.forms, self.activations)
        store = TensorStore(self.memory_bytes)
        return Bench(bank, StoredBatches([list(batch) for batch in self.batches], store), store)

    def __sizeof__(self) -> int:
        """Return the bytes of all arrays: Dask sends what is large to its workers once."""
        values = [v for c in self.forms.values() for f in c.values() for v in f.values.values()]
        arrays = [self.sim, *values, *(part for batch in self.batches for part in batch)]
        return object.__sizeof__(self) + sum(array.nbytes for array in arrays)


def _custom_objects(sim: tf_keras.Model) -> dict[str, Any]:
    """Return what a file of a sim needs beside this package to be read."""
    registered = tf_keras.saving.get_custom_objects()
    classes = {
        tf_keras.saving.get_registered_name(type(layer)): type(layer)
        for layer in sim.submodules
        if isinstance(layer, tf_keras.layers.Layer)
    }
    return {
        name: found
        for name, found in {**registered, **classes}.items()
        if str(getattr(found, "__module__", "")).partition(".")[0] not in OWN_PACKAGES
    }
