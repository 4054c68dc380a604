"""`Evaluation`: losses of choices, from a gated sim and the float model's outputs on batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_edgeq.graph.rebuild import calls, compute
from keras_edgeq.measure.candidate_grids import CandidateGrids
from keras_edgeq.measure.gated_sim import GatedSim
from keras_edgeq.measure.groups import Choice
from keras_edgeq.measure.output_loss import OutputLoss
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.streams.store import StoredBatches, TensorStore
from keras_edgeq.streams.stream import float_call


class Evaluation:
    """Computes the losses of choices, one batch after the other.

    Args:
        grids: what layers and tensors become at each candidate.
        source: batches of model inputs.
        store: where the float model's outputs lie.

    Attributes:
        passes: work done so far, in forward passes over the data.
    """

    def __init__(self, grids: CandidateGrids, source: StoredBatches, store: TensorStore):
        self.grids, self.source = grids, source
        self.passes = 0.0
        self._gated, self._store = GatedSim(grids), store
        self._exact: dict[int, list[int]] = {}
        self._float_function = _float_function(grids.base)

    @property
    def shares(self) -> NDArray[np.float64]:
        """Work of each piece of the network, as a share of one pass."""
        return np.array(self._gated.shares)

    def starts(self, choices: Sequence[Choice], around: Choice) -> list[int]:
        """Return the piece in which each choice begins to differ; the number of pieces if none."""
        base = self._gated.settings(around)
        return [self._gated.start(self._gated.settings(choice), base) for choice in choices]

    def expense(self, choices: Sequence[Choice], around: Choice) -> float:
        """Return the forward passes over the data that measuring choices takes."""
        starts, shares = self.starts(choices, around), self.shares
        return sum(shares[s:].sum() for s in starts) + shares[: max(starts, default=0)].sum()

    def measure(
        self, batch: int, choices: Sequence[Choice], around: Choice
    ) -> Iterator[tuple[Choice, NDArray[np.float64]]]:
        """Yield choices with their sums on a batch, those first that begin to differ first.

        Args:
            batch: number of the batch.
            choices: what to measure.
            around: a choice that they are near: what they have in common with it at the front of
                the network is computed once for all.
        """
        gated, exact = self._gated, self._exact_outputs(batch)
        base = gated.settings(around)
        waiting: dict[int, list[tuple[Choice, Any]]] = {}
        for choice in choices:
            settings = gated.settings(choice)
            waiting.setdefault(gated.start(settings, base), []).append((choice, settings))
        gated.apply(base)
        values = gated.begin(self.source[batch])
        for piece in range(max(waiting) + 1):
            for choice, settings in waiting.get(piece, []):
                gated.apply(settings)
                outputs = gated.outputs(self._finish(piece, values))
                gated.apply(base)
                yield choice, OutputLoss.of(exact, outputs).sums
            if piece < max(waiting):
                values = gated.step(piece, values)
                self._count(gated.shares[piece])

    def _finish(self, piece: int, values: dict[int, Any]) -> dict[int, Any]:
        for following in range(piece, len(self._gated)):
            values = self._gated.step(following, values)
            self._count(self._gated.shares[following])
        return values

    def _count(self, share: float) -> None:
        self.passes += share / len(self.source)

    def _exact_outputs(self, batch: int) -> list[np.ndarray]:
        """Return the float model's outputs on a batch."""
        if batch not in self._exact:
            outputs = self._float_function(self.source[batch])
            self._exact[batch] = [self._store.put(output) for output in outputs]
            self._count(1.0)
        return [self._store.get(number).numpy() for number in self._exact[batch]]


def _float_function(sim: QuantSim) -> Any:
    """Return a traced function of the float model that a sim stands for."""
    walked = [call for call in calls(sim) if not call.node.is_input]

    def run(inputs):
        values = {id(t): value for t, value in zip(sim.inputs, inputs, strict=True)}
        compute(walked, values, float_call)
        return [values[id(t)] for t in sim.outputs]

    signature = [[tf.TensorSpec(t.shape, t.dtype) for t in sim.inputs]]
    return tf.function(run, input_signature=signature, autograph=False)
