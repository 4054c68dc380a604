"""Data in three parts: to fit techniques to, to choose between them, and to judge the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tf_keras

from keras_edgeq.errors import CalibrationDataError
from keras_edgeq.evaluate.metrics import as_array
from keras_edgeq.sim.data import fixed_batch, labelled_batches
from keras_edgeq.streams.store import StoredBatches, TensorStore

# Of four samples in a row, two are fitted to, one chooses, and one judges the end.
FIT, CHOOSE, TEST = (0, 1), (2,), (3,)
LEAST = 4


@dataclass(frozen=True, eq=False)
class Part:
    """Samples of one part.

    Args:
        batches: of inputs, in the order of the model's.
        labels: of each batch, an array; none without.
        samples: how many.
    """

    batches: StoredBatches
    labels: tuple[np.ndarray, ...]
    samples: int


@dataclass(frozen=True, eq=False)
class Split:
    """Samples in three parts that have none in common.

    Args:
        fit: what techniques are fitted to.
        choose: what they are chosen by.
        test: what neither sees.
    """

    fit: Part
    choose: Part
    test: Part

    def __str__(self) -> str:
        return (
            f"{self.fit.samples:,} samples to fit to, {self.choose.samples:,} to choose by, "
            f"{self.test.samples:,} to judge by"
        )


def split(
    data: Any,
    model: tf_keras.Model,
    store: TensorStore,
    metric: str | None,
    batch_size: int,
    steps: int | None,
) -> Split:
    """Read data and split it: sample by sample, or by batches where the model's are fixed.

    Args:
        data: in any form `quantize` takes, with labels where there is a metric.
        model: that takes the inputs.
        store: where they are kept.
        metric: its name, which labels are read for; None for none.
        batch_size: of arrays and files; half of it is fitted to at once.
        steps: read at most that many batches.

    Raises:
        CalibrationDataError: the data does not fit the model, has no labels, or fewer samples (or
            batches of a fixed size) than parts.
    """
    fixed = fixed_batch(model)
    inputs: dict[tuple[int, ...], list[list[np.ndarray]]] = {FIT: [], CHOOSE: [], TEST: []}
    labels: dict[tuple[int, ...], list[np.ndarray]] = {FIT: [], CHOOSE: [], TEST: []}
    at = 0
    for batch in labelled_batches(data, model, fixed or 2 * batch_size, steps):
        size = len(batch.inputs[0])
        number = np.full(size, at) if fixed else np.arange(at, at + size)
        at += 1 if fixed else size
        given = None if metric is None else as_array(batch.labels, model.output_names[0], metric)
        for part, rows in inputs.items():
            taken = np.isin(number % LEAST, part)
            if taken.any():
                rows.append([np.asarray(one)[taken] for one in batch.inputs])
                if given is not None:
                    labels[part].append(given[taken])
    if at < LEAST:
        what = f"batches of {fixed}" if fixed else "samples"
        raise CalibrationDataError(
            f"The data has {at} {what}; at least {LEAST} are needed to fit, to choose and to judge "
            "on others each, and some hundreds to tell small losses."
        )
    made = [
        Part(StoredBatches(rows, store), tuple(labels[part]), sum(len(row[0]) for row in rows))
        for part, rows in inputs.items()
    ]
    return Split(*made)
