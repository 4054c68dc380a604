"""`PortableStudy`: what another process needs to measure the same choices; data that pickles."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import tf_keras
from numpy.typing import NDArray

from keras_edgeq.measure.candidate_grids import CandidateForm, CandidateGrids
from keras_edgeq.measure.evaluation import Evaluation
from keras_edgeq.measure.fingerprint import fingerprint
from keras_edgeq.measure.groups import Group, folded_graph
from keras_edgeq.spec.encoding import Encoding
from keras_edgeq.streams.store import StoredBatches, TensorStore

# Whose classes another process finds by itself.
OWN_PACKAGES = ("keras_edgeq", "tf_keras", "builtins")


@dataclass(frozen=True, eq=False)
class PortableStudy:
    """Candidate grids and their batches without TensorFlow's objects.

    Args:
        key: the same for the same numbers; a process keeps its evaluation under it.
        sim: the grids's base in pickled form, as an array: joblib shares those between processes.
        custom: the user's own layers and functions by registered name.
        groups: as in the grids.
        candidates: as in the grids.
        forms: as in the grids.
        activations: as in the grids.
        batches: inputs of the model.
        memory_bytes: what a worker keeps of the data stays in memory up to that size.
    """

    key: str
    sim: NDArray[np.uint8]
    custom: Mapping[str, Any]
    groups: tuple[Group, ...]
    candidates: tuple[str, ...]
    forms: Mapping[str, Mapping[str, CandidateForm]]
    activations: Mapping[str, Mapping[str, Encoding]]
    batches: tuple[tuple[NDArray, ...], ...]
    memory_bytes: int

    @classmethod
    def of(cls, grids: CandidateGrids, source: StoredBatches, memory_bytes: int) -> PortableStudy:
        """Write down candidate grids and their batches."""
        parts = (grids.groups, grids.candidates, grids.forms, grids.activations)
        print_ = fingerprint(grids.base, source, {})
        key = sha256(print_.encode() + pickle.dumps(parts)).hexdigest()
        sim = np.frombuffer(pickle.dumps(grids.base), np.uint8)
        batches = tuple(tuple(part.numpy() for part in batch) for batch in source)
        return cls(key, sim, _custom_objects(grids.base), *parts, batches, memory_bytes)

    def evaluation(self) -> Evaluation:
        """Build what the portable describes."""
        with tf_keras.saving.custom_object_scope(dict(self.custom)):
            base = pickle.loads(self.sim.tobytes())
        graph = folded_graph(base)
        grids = CandidateGrids(
            base, graph, self.groups, self.candidates, self.forms, self.activations
        )
        store = TensorStore(self.memory_bytes)
        return Evaluation(
            grids, StoredBatches([list(batch) for batch in self.batches], store), store
        )

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
