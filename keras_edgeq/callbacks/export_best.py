"""`ExportBest`: the artifacts of the best epoch, verified, while training goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tf_keras

from keras_edgeq.callbacks.sim_of import sim_of
from keras_edgeq.errors import EdgeqError, ExportError
from keras_edgeq.export.export import Options, export_set
from keras_edgeq.export.former import REPORT
from keras_edgeq.export.report import ExportReport
from keras_edgeq.files import read_json
from keras_edgeq.files.file_set import recover
from keras_edgeq.graph import keras_compat
from keras_edgeq.nearest import did_you_mean
from keras_edgeq.profiles.formats import checked_formats

STATE = "best.json"
MODES = ("auto", "min", "max")
MOST_BYTES = 1_000_000


class ExportBest(tf_keras.callbacks.Callback):
    """Exports a sim at the end of each epoch that improved a monitored value.

    The folder always holds one complete set of artifacts, that of the best epoch so far: a new set
    is written and verified beside it, then replaces it. `best.json` in the folder keeps the value,
    so a restarted training goes on from there; for a new training give a new folder. Batch norms
    that still train are folded in the exported files. The sim stays as it is.

    List it after the callbacks that log the monitored value.

    Args:
        folder: where the artifacts go; made if needed. Nothing else may be in it.
        monitor: name of a value in the logs of an epoch.
        mode: `"min"`, `"max"`, or `"auto"`: the maximum for accuracy and AUC, the minimum for
            others.
        formats: as for `export`.
        verify: data to verify on, as for `export`.
        options: further arguments of `export`.

    Attributes:
        best: the best value, None before the first.
        report: of the last export, None before it.

    Raises:
        ValueError: an unknown mode.
        UnsupportedModelError: when `fit` starts, the model is not a sim.
        ExportError: when `fit` starts, the folder holds other files, or the best of another value;
            or a format that the profile does not have. At an epoch's end, as `export` raises.
        EdgeqError: at an epoch's end, the logs do not have the monitored value.

    Example:
        >>> best = eq.callbacks.ExportBest("out/best", "val_loss", verify=x[:8])
        >>> history = sim.fit(x, y, validation_split=0.5, callbacks=[best], verbose=0)
        >>> best.report
        <ExportReport for litert_int8: ...>
    """

    best: float | None
    report: ExportReport | None

    def __init__(
        self,
        folder: str | Path,
        monitor: str = "val_loss",
        mode: str = "auto",
        formats: Sequence[str] | None = None,
        verify: Any = None,
        **options: Any,
    ):
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"mode is {mode!r}; it must be one of {', '.join(MODES)}.")
        if mode == "auto":
            mode = "max" if monitor.endswith(("acc", "accuracy", "auc")) else "min"
        self.folder, self.monitor, self.mode = Path(folder), monitor, mode
        self.options = Options(formats, verify, **{"progress": False, **options})
        self.best = self.report = None

    def on_train_begin(self, logs=None):
        del logs
        checked_formats(self.options.formats, sim_of(self).record.profile)
        self.best = self._kept()

    def on_epoch_end(self, epoch, logs=None):
        logs = logs or {}
        if self.monitor not in logs:
            raise EdgeqError(
                f"ExportBest monitors {self.monitor!r}, which this epoch did not log; it logged "
                f"{', '.join(sorted(logs)) or 'nothing'}. Name one of these, or list ExportBest "
                "behind the callback that logs it." + did_you_mean(self.monitor, logs)
            )
        value = float(logs[self.monitor])
        if not self._improves(value):
            return
        state = {"monitor": self.monitor, "mode": self.mode, "best": value, "epoch": epoch}
        with keras_compat.kept_seeds():
            beside = {STATE: json.dumps(state, indent=1)}
            self.report = export_set(sim_of(self), self.folder, self.options, beside)
        self.best = value

    def _improves(self, value: float) -> bool:
        if math.isnan(value) or math.isinf(value):
            return False
        if self.best is None:
            return True
        return value > self.best if self.mode == "max" else value < self.best

    def _kept(self) -> float | None:
        """Return the best value of a training that is continued."""
        path = self.folder / STATE
        try:
            recover(self.folder, REPORT)
        except OSError as error:
            raise ExportError(f"Cannot write {self.folder}: {error.strerror or error}.") from error
        if not path.exists():
            if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
                raise ExportError(
                    f"{self.folder} holds other files, which ExportBest would replace; give it a "
                    "folder of its own."
                )
            return None
        state = read_json(path, MOST_BYTES, ExportError)
        asked = {"monitor": self.monitor, "mode": self.mode}
        kept = state if isinstance(state, dict) else {}
        if {key: kept.get(key) for key in asked} != asked or type(kept.get("best")) is not float:
            raise ExportError(
                f"{path} keeps no best {self.monitor} ({self.mode}) to go on from; give another "
                "folder, or delete this one."
            )
        return kept["best"]
