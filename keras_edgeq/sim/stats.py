"""`CalibrationStats`: what calibration saw, kept so that grids can change without data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from keras_edgeq.errors import CalibrationDataError
from keras_edgeq.files import json_text, write_whole
from keras_edgeq.numerics.histogram import Histogram
from keras_edgeq.sim.npz import READ_ERRORS, open_arrays
from keras_edgeq.table import aligned, brief, counted, html

# A tensor takes 32 KB: what 8,000 of them need.
MAX_BYTES = 256_000_000
MOST_COUNTED = 2**53


@dataclass(frozen=True, eq=False)
class CalibrationStats:
    """Histograms of the float activations, by the name of the tensor.

    Args:
        histograms: tensor name -> histogram over all calibration samples.
        samples: number of samples seen.
        means: tensor name -> mean per channel of the last axis, as the model's batch norms know it;
            only tensors of which they know something.

    Example:
        >>> sim.stats.save("sim.stats.npz")
        >>> eq.CalibrationStats.load("sim.stats.npz")
        <CalibrationStats: 3 tensors, 64 samples>
    """

    histograms: Mapping[str, Histogram]
    samples: int
    means: Mapping[str, np.ndarray] = field(default_factory=dict)

    def table(self) -> list[tuple[str, ...]]:
        """Return the range of each tensor for people, titles first."""
        ranges = [(n, f"{h.low:.5g}", f"{h.high:.5g}") for n, h in self.histograms.items()]
        return [("tensor", "least", "greatest"), *ranges]

    def __repr__(self) -> str:
        seen = counted(self.samples, "sample") if self.samples else "no data"
        return brief("CalibrationStats", counted(len(self.histograms), "tensor"), seen)

    def __str__(self) -> str:
        return aligned(self.table())

    def _repr_html_(self) -> str:
        return html(repr(self).strip("<>"), self.table())

    def save(self, path: str | Path) -> None:
        """Write an `.npz` file, whole or not at all.

        Raises:
            ExportError: the place cannot be written.
        """
        write_whole(Path(path), self.write)

    def write(self, path: Path) -> None:
        """Write an `.npz` file."""
        names = list(self.histograms)
        hists = list(self.histograms.values())
        sizes = {name: len(mean) for name, mean in self.means.items()}
        head = json.dumps({"schema": 1, "tensors": names, "samples": self.samples, "means": sizes})
        with path.open("wb") as file:
            np.savez_compressed(
                file,
                head=np.frombuffer(head.encode(), np.uint8),
                counts=np.array([h.counts for h in hists], np.int64),
                exponent=np.array([h.exponent for h in hists], np.int64),
                range=np.array([[h.low, h.high] for h in hists], np.float64),
                average=np.array([[h.average_low, h.average_high] for h in hists]),
                batches=np.array([h.batches for h in hists]),
                means=np.concatenate([np.zeros(0, np.float32), *self.means.values()]),
            )

    @classmethod
    def load(cls, path: str | Path) -> CalibrationStats:
        """Read `save` output.

        Raises:
            CalibrationDataError: the file is missing, damaged or of another kind.
        """
        try:
            with open_arrays(path, MAX_BYTES) as data:
                return _read(data)
        except READ_ERRORS as error:
            raise CalibrationDataError(f"{path} holds no calibration statistics: {error}") from None


def _read(data: Mapping[str, np.ndarray]) -> CalibrationStats:
    head = json_text.parse(data["head"].tobytes())
    names, samples = head["tensors"], head["samples"]
    if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise ValueError("The tensors have no names of their own.")
    if type(samples) is not int or samples < 0:
        raise ValueError("The number of samples is not a whole number.")
    columns = {"counts": data["counts"], "exponent": data["exponent"]}
    columns["low"], columns["high"] = data["range"].reshape(-1, 2).T
    if "average" in data:
        columns["average_low"], columns["average_high"] = data["average"].reshape(-1, 2).T
        columns["batches"] = data["batches"]
    hists = [
        Histogram.from_arrays(dict(zip(columns, row, strict=True)))
        for row in zip(*columns.values(), strict=True)
    ]
    for name, hist in zip(names, hists, strict=True):
        empty = not hist.counts.any()
        if int(hist.counts.max()) > MOST_COUNTED // len(hist.counts):
            raise ValueError(f"{name[:100]!r} counts more values than there are.")
        if not empty and not -np.inf < hist.low <= hist.high < np.inf:
            raise ValueError(f"{name[:100]!r} has no range.")
    means = _read_means(head.get("means", {}), data)
    return CalibrationStats(dict(zip(names, hists, strict=True)), samples, means)


def _read_means(sizes: Mapping[str, int], data: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    if not sizes:
        return {}
    values, ends = data["means"], np.cumsum(list(sizes.values()))
    if min(sizes.values()) < 0 or values.shape != (ends[-1],) or not np.isfinite(values).all():
        raise ValueError("The means do not fit the tensors.")
    parts = np.split(values.astype(np.float32), ends[:-1])
    return dict(zip(sizes, parts, strict=True))
