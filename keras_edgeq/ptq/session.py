"""`PtqSession`: what every technique that works on a sim with data needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from keras_edgeq.errors import EdgeqError
from keras_edgeq.layers import QuantizedLayer
from keras_edgeq.progress import Item, each
from keras_edgeq.sim.calibrate import collect, observer_of
from keras_edgeq.sim.data import batches
from keras_edgeq.sim.derive import derive_activations, raise_scales
from keras_edgeq.sim.freeze import all_quantizers, copy_sim
from keras_edgeq.sim.measure_fidelity import float_tensors, measure_fidelity
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.sim.reference import float_form, float_parameters
from keras_edgeq.sim.samples import few
from keras_edgeq.streams.store import StoredBatches, TensorStore


class PtqSession:
    """A copy of a sim to work on, its float form, and data that can be read again and again.

    A context manager: leaving it deletes what it keeps on disk.

    Args:
        sim: a calibrated sim; it is not changed.
        data: in any form `keras_edgeq.quantize` takes, or as another workshop has it.
        batch_size: for arrays and files.
        steps: read at most that many batches.
        memory_bytes: activations are kept in memory up to that size.
        cache_folder: where the others lie.
        progress: show progress bars.

    Attributes:
        work: the copy, which becomes the result.
        exact: a sim of the same graph with the float parameters.
        source: the batches.
        store: where tensors lie.
    """

    def __init__(
        self,
        sim: QuantSim,
        data: Any,
        batch_size: int,
        steps: int | None,
        memory_bytes: int,
        cache_folder: str | Path | None,
        progress: bool,
    ):
        check_calibrated(sim)
        self.progress = progress
        self.exact = float_form(sim)
        self.work = copy_sim(sim)
        self.work.reference = float_parameters(sim)
        self.store = TensorStore(memory_bytes, cache_folder)
        try:
            self.source = (
                data
                if isinstance(data, StoredBatches)
                else StoredBatches(batches(data, sim, batch_size, steps), self.store)
            )
        except BaseException:
            self.store.close()
            raise

    def calibrate(self, float_weights: bool = False) -> None:
        """Calibrate the activations again, with the weights as they are or with the float ones."""
        observer = observer_of(self.exact if float_weights else self.work, float_weights)
        stats = collect(self.work, self.source, self.progress, observer)
        if self.work.stats is not None:
            stats = replace(stats, means=self.work.stats.means)
        derive_activations(self.work, stats)
        self.work.stats = stats
        if not float_weights:
            raise_scales(self.work)
            floats = float_tensors(self.work, few(self.source[0], self.work))
            self.work.keep(fidelity=measure_fidelity(self.work, floats))

    def bar(
        self, items: Sequence[Item], name: str, unit: str, work: Sequence[float] | None = None
    ) -> Iterator[Item]:
        """Yield items behind a progress bar; `work` says how much each takes beside the others."""
        return each(items, name, unit, self.progress, work)

    def done(self, layer: QuantizedLayer, how: str) -> None:
        """Note that a layer's weights were rounded for good: their grids are frozen."""
        self.work.keep(rounded={**self.work.record.rounded, layer.name: how})
        self.freeze(layer)

    def freeze(self, layer: QuantizedLayer) -> None:
        """Let no calibration change the grid of a layer's kernel."""
        frozen = self.work.record.frozen | {f"{layer.name}/{layer.kernel_name}"}
        self.work.keep(frozen=frozen)

    def __enter__(self) -> PtqSession:
        """Return the workshop."""
        return self

    def __exit__(self, *_: object) -> None:
        """Delete what is kept on disk."""
        self.store.close()


def check_calibrated(sim: Any) -> None:
    """Raise unless `sim` is a sim with all its grids.

    Raises:
        EdgeqError: it is another model, or tensors have no grid; they are named.
    """
    if not isinstance(sim, QuantSim):
        raise EdgeqError(
            f"Got {type(sim).__name__} {getattr(sim, 'name', '')!r}, which is not a sim; a sim is "
            "what keras_edgeq.quantize(model, calibration) returns."
        )
    empty = [name for name, q in all_quantizers(sim).items() if q.encoding is None]
    if empty:
        raise EdgeqError(f"{empty[:20]} have no grid; calibrate the sim first.")
