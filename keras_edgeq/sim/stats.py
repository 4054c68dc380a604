"""`CalibrationStats`: what calibration saw, kept so that grids can change without data."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_edgeq.errors import CalibrationDataError
from keras_edgeq.files import write_whole
from keras_edgeq.numerics.histogram import Histogram


@dataclass(frozen=True, eq=False)
class CalibrationStats:
    """Histograms of the float activations, by the name of the tensor that owns the grid.

    Args:
        histograms: tensor name -> histogram over all calibration samples.
        samples: number of samples seen.
    """

    histograms: Mapping[str, Histogram]
    samples: int

    def save(self, path: str | Path) -> None:
        """Write an `.npz` file, whole or not at all."""
        names = list(self.histograms)
        hists = list(self.histograms.values())
        head = json.dumps({"schema": 1, "tensors": names, "samples": self.samples})

        def write(target: Path) -> None:
            with target.open("wb") as file:
                np.savez_compressed(
                    file,
                    head=np.frombuffer(head.encode(), np.uint8),
                    counts=np.stack([h.counts for h in hists]),
                    exponent=np.array([h.exponent for h in hists]),
                    range=np.array([[h.low, h.high] for h in hists], np.float64),
                )

        write_whole(Path(path), write)

    @classmethod
    def load(cls, path: str | Path) -> CalibrationStats:
        """Read `save` output.

        Raises:
            CalibrationDataError: the file is missing, damaged or of another kind.
        """
        try:
            with np.load(path, allow_pickle=False) as data:
                head = json.loads(data["head"].tobytes())
                rows = zip(data["counts"], data["exponent"], data["range"], strict=True)
                hists = [Histogram(c, int(e), float(lo), float(hi)) for c, e, (lo, hi) in rows]
                names = dict(zip(head["tensors"], hists, strict=True))
                return cls(names, int(head["samples"]))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise CalibrationDataError(f"{path} holds no calibration statistics: {error}") from None
