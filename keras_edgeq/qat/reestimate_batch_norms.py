"""Measure the statistics of batch norms again, on the sim as it computes after training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_edgeq.errors import CalibrationDataError, UnsupportedModelError
from keras_edgeq.layers import FreezableBatchNorm
from keras_edgeq.progress import each
from keras_edgeq.ptq.session import check_calibrated
from keras_edgeq.sim.data import batches as read_batches
from keras_edgeq.sim.freeze import copy_sim
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.streams.store import MEMORY_BYTES, StoredBatches, TensorStore
from keras_edgeq.streams.stream import Stream, rounded_call


def reestimate_batch_norms(
    sim: QuantSim,
    data: Any,
    batches: int | None = None,
    *,
    batch_size: int = 32,
    memory_bytes: int = MEMORY_BYTES,
    cache_folder: str | Path | None = None,
    progress: bool = True,
) -> QuantSim:
    """Return a sim whose batch norms hold the exact statistics of some data.

    At few bits weights oscillate between two integers, and moving averages collected meanwhile
    belong to other weights. Here mean and variance of each batch norm's input are those of all
    samples together. The sim computes them as in prediction, with the batch norms in front measured
    already. It takes one pass over the graph. A batch norm that is called several times gets the
    statistics of all its calls; in front of the last one it uses those of the earlier ones.

    Args:
        sim: made with `batch_norm="train"` and trained; it is not changed.
        data: in any form that `quantize` takes, like the training data, augmentation included; a
            few hundred samples are enough.
        batches: read at most that many batches; fewer are fine.
        batch_size: for arrays and files.
        memory_bytes: activations are kept in memory up to that size, and in files past it.
        cache_folder: where those files lie meanwhile; None takes the system's temporary folder.
        progress: show a progress bar.

    Raises:
        UnsupportedModelError: the sim has no batch norms to measure.
        CalibrationDataError: the data is empty, does not fit the model or holds NaN.

    Example:
        >>> sim = eq.quantize(model, data, batch_norm="train", progress=False)
        >>> exact = eq.reestimate_batch_norms(sim, data, progress=False)

    Reference:
        Nagel et al. 2022, "Overcoming Oscillations in Quantization-Aware Training",
        arXiv:2203.11086, section 4.1; Chan et al. 1983 for the sums of squares.
    """
    check_calibrated(sim)
    if not sim.batch_norms():
        raise UnsupportedModelError(
            f"Sim {sim.name!r} has no batch norms to measure; they are folded. Quantize with "
            'batch_norm="train" to keep them.'
        )
    work = copy_sim(sim)
    with TensorStore(memory_bytes, cache_folder) as store:
        source = StoredBatches(read_batches(data, sim, batch_size, batches), store)
        stream = Stream(work, rounded_call, source, store)
        found: dict[str, Moments] = {}
        wanted = [i for i, c in enumerate(stream.calls) if isinstance(c.layer, FreezableBatchNorm)]
        for position in each(wanted, "reestimate", "batch norm", progress):
            stream.advance(position)
            layer = stream.calls[position].layer
            moments = found.setdefault(layer.name, Moments())
            for index in range(len(source)):
                moments.add(stream.arguments(index)[0][0])
            if not np.isfinite(moments.squares).all():
                raise CalibrationDataError(
                    f"The input of batch norm {layer.name!r} becomes NaN or infinite on the data."
                )
            layer.moving_mean.assign(np.float32(moments.mean))
            layer.moving_variance.assign(np.float32(moments.squares / moments.count))
    return work


class Moments:
    """Mean and sum of squared deviations per channel, merged exactly over batches."""

    def __init__(self):
        self.count, self.mean, self.squares = 0, np.zeros(()), np.zeros(())

    def add(self, tensor: tf.Tensor) -> None:
        """Count in a tensor of channels last."""
        rows = np.reshape(tensor, (-1, tensor.shape[-1]))
        mean = rows.mean(0, dtype=np.float64)
        squares = np.square(rows - np.float32(mean)).sum(0, dtype=np.float64)
        count = self.count + len(rows)
        apart = mean - self.mean
        self.squares = self.squares + squares + np.square(apart) * (self.count * len(rows) / count)
        self.mean = self.mean + apart * (len(rows) / count)
        self.count = count
