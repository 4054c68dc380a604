"""The way out: one sim, every format, the same scales, checked on the real runtimes."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from keras_edgeq.errors import ExportError, QuantizationWarning
from keras_edgeq.export.encodings.write import (
    check_version,
    keras_encodings,
    write_aimet_folder,
)
from keras_edgeq.export.report import ExportReport
from keras_edgeq.files import write_whole
from keras_edgeq.graph.rebuild import calls
from keras_edgeq.layers import FakeQuant
from keras_edgeq.layers.layer_traits import op_type
from keras_edgeq.runtime.verify import RunReport, verify_beside
from keras_edgeq.sim.beside_float import BesideFloat, beside_float
from keras_edgeq.sim.choose import TRANSPARENT
from keras_edgeq.sim.collapse import clipped_inputs, collapsed_tensors
from keras_edgeq.sim.fold_batch_norms import fold_batch_norms
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.sim.weight_bytes import float_bytes, weight_bytes
from keras_edgeq.spec.formats import checked_formats


def export(
    sim: QuantSim,
    folder: str | Path,
    formats: Sequence[str] | None = None,
    verify: Any = None,
    *,
    float_io: bool = True,
    encodings_version: str = "1.0.0",
    name: str = "model",
    progress: bool = True,
) -> ExportReport:
    """Write a sim for its target and verify what was written.

    Args:
        sim: a calibrated sim; it is not changed. Batch norms that train are folded in what is
            written, as by `fold_batch_norms`.
        folder: where to write; made if need be. Each file is written whole or not at all.
        formats: of `"tflite"` (integer kernels), `"onnx"` (QDQ with integer initializers),
            `"encodings"` (float ONNX with AIMET encodings in a `.aimet` folder, and encodings by
            Keras names) and `"saved_model"` (frozen, and the float Keras model). Default: all that
            the profile allows.
        verify: data to verify on, in any form that `quantize` takes. Without it the samples that
            the sim keeps are used; False switches verification off.
        float_io: TFLite inputs and outputs in float32; False gives int8 and int16.
        encodings_version: `"0.6.1"`, `"1.0.0"` or `"2.0.0"`, as AIMET numbers them.
        name: stem of the file names.
        progress: show a progress bar.

    Returns:
        Files, sizes, what stayed float, and a comparison with the sim per artifact and runtime.
        Also written to `report.json`.

    Raises:
        ExportError: a format the profile does not have, a missing extra, or a place that cannot
            be written.
        EncodingsError: an unknown version of encodings, or one that cannot hold a grid.
        CalibrationDataError: `verify` does not fit the model.

    Example:
        >>> report = eq.export(sim, "out", ["tflite", "onnx"], verify=test_x, progress=False)
        >>> sorted(report.files)
        ['onnx', 'tflite']
        >>> print(report)
        Exported for litert_int8:
        ...
    """
    if not isinstance(sim, QuantSim):
        raise ExportError(
            f"Got {type(sim).__name__}; export takes what keras_edgeq.quantize makes."
        )
    sim = cast(QuantSim, fold_batch_norms(sim))
    wanted = checked_formats(formats, sim.record.profile)
    check_version(encodings_version)
    # Read once: a generator gives its data to the first artifact only.
    known = None if verify is False else beside_float(sim, verify)
    job = _Job(sim, Path(folder), name, float_io, encodings_version)
    for kind in tqdm(wanted, desc="export", disable=not progress):
        _run(job, kind)
    runs: list[RunReport] = []
    if known is not None:
        for path in tqdm(job.runnable, desc="verify", disable=not progress):
            runs += verify_beside(sim, path, known)
    report = ExportReport(
        profile=sim.record.profile.name,
        files=job.files,
        sizes={kind: _size(path) for kind, path in job.files.items()},
        integer_layers=_integer_layers(sim),
        float_layers=dict(sim.record.plan.floats),
        float_ops=job.float_ops,
        constant_bytes=job.constant_bytes,
        floored=dict(sim.record.floored),
        runs=tuple(runs),
        fidelity=sim.record.fidelity if known is None else known.fidelity,
        float_bytes=float_bytes(sim),
        weight_bytes=weight_bytes(sim),
        warnings=_warnings(sim, known),
    )
    text = json.dumps(report.to_json(), indent=1)
    write_whole(job.folder / "report.json", lambda path: path.write_text(text, encoding="utf-8"))
    return report


@dataclass
class _Job:
    """One export on its way."""

    sim: QuantSim
    folder: Path
    name: str
    float_io: bool
    encodings_version: str
    files: dict[str, Path] = field(default_factory=dict)
    runnable: list[Path] = field(default_factory=list)
    float_ops: dict[str, str] = field(default_factory=dict)
    constant_bytes: dict[str, int] = field(default_factory=dict)

    def write(
        self, kind: str, name: str, write: Callable[[Path], object], runs: bool = False
    ) -> None:
        """Write one artifact whole and remember it."""
        path = self.folder / name
        write_whole(path, write)
        self.files[kind] = path
        if runs:
            self.runnable.append(path)


def _write_tflite(job: _Job) -> None:
    from keras_edgeq.export.tflite import to_tflite

    artifact = to_tflite(job.sim, job.float_io)
    job.float_ops, job.constant_bytes = artifact.floats, artifact.constant_bytes
    job.write("tflite", f"{job.name}.tflite", lambda p: p.write_bytes(artifact.content), runs=True)


def _write_onnx(job: _Job) -> None:
    from keras_edgeq.export.onnx_qdq import to_onnx_qdq

    content = to_onnx_qdq(job.sim).SerializeToString()
    job.write("onnx", f"{job.name}.onnx", lambda path: path.write_bytes(content), runs=True)


def _write_encodings(job: _Job) -> None:
    version = job.encodings_version
    text = json.dumps(keras_encodings(job.sim, version), indent=1)
    name = f"{job.name}.encodings.json"
    job.write("encodings", name, lambda path: path.write_text(text, encoding="utf-8"))
    job.files["aimet"] = write_aimet_folder(job.sim, job.folder, job.name, version)


def _write_saved_model(job: _Job) -> None:
    from keras_edgeq.export.saved_model import write_saved_model
    from keras_edgeq.sim.strip import stripped

    folder = job.folder / "saved_model"
    write_saved_model(job.sim, folder)
    job.files["saved_model"] = folder
    job.runnable.append(folder)
    model = stripped(job.sim)
    job.write("float", f"{job.name}_float.keras", lambda path: model.save(path))


_WRITERS: dict[str, Callable[[_Job], None]] = {
    "tflite": _write_tflite,
    "onnx": _write_onnx,
    "encodings": _write_encodings,
    "saved_model": _write_saved_model,
}
_EXTRAS = {"tflite": "tflite", "onnx": "onnx", "encodings": "onnx"}


def _run(job: _Job, kind: str) -> None:
    try:
        _WRITERS[kind](job)
    except ImportError as error:
        extra = _EXTRAS.get(kind, "all")
        raise ExportError(
            f"Format {kind!r} needs {error.name}: pip install 'keras_edgeq[{extra}]'."
        ) from error


def _warnings(sim: QuantSim, known: BesideFloat | None) -> tuple[str, ...]:
    """Return what was said of the sim, and what the data that it was verified on adds."""
    said = list(sim.record.warnings)
    if known is not None and known.on_data:
        joined = [np.concatenate(parts) for parts in zip(*known.data, strict=True)]
        said += clipped_inputs(sim, joined)
        told = {one for one in said if one.startswith("Rounding leaves")}
        said += () if told else collapsed_tensors(sim, known.lost)
    new = [one for one in said if one not in sim.record.warnings]
    for message in new:
        warnings.warn(message, QuantizationWarning, stacklevel=3)
    return tuple(dict.fromkeys(said))


def _integer_layers(sim: QuantSim) -> tuple[str, ...]:
    """Return the layers that compute in integers, in graph order."""
    floats, profile = sim.record.plan.floats, sim.record.profile
    names = []
    for call in calls(sim):
        op = op_type(getattr(call.layer, "layer", call.layer))
        makes = tf.nest.flatten(call.node.outputs)
        is_real = all(tensor.dtype.is_floating for tensor in makes)
        adds_nothing = op in TRANSPARENT or isinstance(call.layer, FakeQuant) or not is_real
        if profile.computes(op) and not adds_nothing and call.layer.name not in floats:
            names.append(call.layer.name)
    return tuple(dict.fromkeys(names))


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
