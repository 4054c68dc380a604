"""`CalibrationStats`: what calibration saw, kept so that grids can change without data."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_edgeq.errors import CalibrationDataError
from keras_edgeq.files import write_whole
from keras_edgeq.numerics.histogram import Histogram

# What reading a file as `.npz` raises when it is missing, damaged or something else.
READ_ERRORS = (
    OSError, ValueError, KeyError, TypeError, EOFError, AttributeError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class CalibrationStats:
    """Histograms of the float activations, by the name of the tensor.

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
                    counts=np.array([h.counts for h in hists], np.int64),
                    exponent=np.array([h.exponent for h in hists], np.int64),
                    range=np.array([[h.low, h.high] for h in hists], np.float64),
                    average=np.array([[h.average_low, h.average_high] for h in hists]),
                    batches=np.array([h.batches for h in hists]),
                )

        write_whole(Path(path), write)

    @classmethod
    def load(cls, path: str | Path) -> CalibrationStats:
        """Read `save` output.

        Raises:
            CalibrationDataError: the file is missing, damaged or of another kind.
        """
        try:
            # Opened here, because np.load leaves a damaged archive open.
            with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as data:
                head = json.loads(data["head"].tobytes())
                columns = {"counts": data["counts"], "exponent": data["exponent"]}
                columns["low"], columns["high"] = data["range"].T
                if "average" in data:
                    columns["average_low"], columns["average_high"] = data["average"].T
                    columns["batches"] = data["batches"]
                hists = [
                    Histogram.from_arrays(dict(zip(columns, row, strict=True)))
                    for row in zip(*columns.values(), strict=True)
                ]
                names = dict(zip(head["tensors"], hists, strict=True))
                return cls(names, int(head["samples"]))
        except READ_ERRORS as error:
            raise CalibrationDataError(f"{path} holds no calibration statistics: {error}") from None
