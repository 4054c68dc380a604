"""The way out: one sim, every format, the same scales, checked on the real runtimes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from keras_edgeq.errors import EdgeqError, ExportError, QuantizationWarning, warn
from keras_edgeq.export.artifacts import Artifact, Converted, Request, convert
from keras_edgeq.export.encodings.write import check_version
from keras_edgeq.export.former import REPORT, former_files, size_of
from keras_edgeq.export.report import ExportReport
from keras_edgeq.files import sha256_of
from keras_edgeq.files.file_set import remove, staged
from keras_edgeq.graph.rebuild import calls
from keras_edgeq.layers import FakeQuant
from keras_edgeq.ops import op_of
from keras_edgeq.profiles.formats import checked_formats
from keras_edgeq.runtime.child.process import MEMORY_BYTES, TIMEOUT_S, Child, Limits
from keras_edgeq.runtime.run_report import RunReport
from keras_edgeq.runtime.verify import verify_beside
from keras_edgeq.sim.beside_float import BesideFloat, beside_float
from keras_edgeq.sim.collapse import COLLAPSE, clipped_inputs, collapsed_tensors
from keras_edgeq.sim.fold_batch_norms import fold_batch_norms
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.sim.weight_bytes import float_bytes, weight_bytes


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
    timeout_s: float = TIMEOUT_S,
    memory_bytes: int = MEMORY_BYTES,
) -> ExportReport:
    """Write a sim for its target and verify what was written.

    The files of one export are a set. The new set is written and verified beside an older one, and
    replaces it when it is complete. An export that fails or is killed leaves the older set. Files
    of the older set that are not in the new one are removed, unless they were changed since; other
    files in the folder stay. Exports into one folder at the same time do not mix: the last one
    counts.

    If a format cannot be converted, the others are still written. The failed one has no file; a
    warning and `failed` of the report say why. A file that its runtime cannot run stays, and its
    run in the report says so.

    Args:
        sim: a calibrated sim; it is not changed. Batch norms that train are folded in the files,
            as by `fold_batch_norms`.
        folder: where to write; made if needed.
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
        timeout_s: time limit of a runtime in verification, as in `verify`.
        memory_bytes: limit of a runtime's memory in verification, as in `verify`.

    Returns:
        Files, sizes, what stayed float, and a comparison with the sim per artifact and runtime.
        Also written to `report.json`.

    Raises:
        ExportError: a format the profile does not have; a place that cannot be written; or all
            formats failed.
        EncodingsError: an unknown version of encodings, or the only format is encodings, of a
            version that cannot hold a grid.
        CalibrationDataError: `verify` does not fit the model.

    Warns:
        QuantizationWarning: a format failed; or the data shows a loss that `quantize` did not see.

    Example:
        >>> report = eq.export(sim, "out", ["tflite", "onnx"], verify=test_x, progress=False)
        >>> sorted(report.files)
        ['onnx', 'tflite']
        >>> print(report)
        Exported for litert_int8:
        ...
    """
    options = Options(
        formats, verify, float_io, encodings_version, name, progress, timeout_s, memory_bytes
    )
    return export_set(sim, Path(folder), options)


@dataclass(frozen=True, eq=False)
class Options:
    """The arguments of `export` other than the sim and the folder."""

    formats: Sequence[str] | None = None
    verify: Any = None
    float_io: bool = True
    encodings_version: str = "1.0.0"
    name: str = "model"
    progress: bool = True
    timeout_s: float = TIMEOUT_S
    memory_bytes: int = MEMORY_BYTES


def export_set(
    sim: QuantSim, folder: Path, options: Options, beside: Mapping[str, str] | None = None
) -> ExportReport:
    """Do what `export` does; texts in `beside`, by file name, become part of the set."""
    if not isinstance(sim, QuantSim):
        raise ExportError(
            f"Got {type(sim).__name__}; export takes what keras_edgeq.quantize makes."
        )
    sim = cast(QuantSim, fold_batch_norms(sim))
    wanted = checked_formats(options.formats, sim.record.profile)
    check_version(options.encodings_version)
    _check_name(options.name)
    # Read once: a generator gives its data to the first artifact only.
    known = None if options.verify is False else beside_float(sim, options.verify)
    request = Request(sim, options.name, options.float_io, options.encodings_version)
    with staged(folder, REPORT, is_manifest=True, stale=lambda: former_files(folder)) as stage:
        job = _Job(request, stage, folder)
        for kind in tqdm(wanted, desc="export", disable=not options.progress):
            job.attempt(kind, job.write)
        job.raise_if_none()
        if known is not None:
            job.verify(known, options)
        report = _report(job, known)
        texts = {REPORT: json.dumps(report.to_json(), indent=1), **(beside or {})}
        for name, text in texts.items():
            (stage / name).write_text(text, encoding="utf-8")
    for kind, why in report.failed.items():
        warn(f"Format {kind!r} was not exported: {why}", QuantizationWarning)
    return report


class _Job:
    """One export on its way: what was converted, and what failed."""

    def __init__(self, request: Request, stage: Path, folder: Path):
        self.request, self.stage, self.folder = request, stage, folder
        self.converted: dict[str, Converted] = {}
        self.failures: dict[str, EdgeqError] = {}
        self.runs: list[RunReport] = []

    def attempt(self, kind: str, do: Callable[[str], None]) -> None:
        """Do something for a format; where that fails, nothing of the format is left."""
        try:
            do(kind)
        except EdgeqError as error:
            self.failures[kind] = error
            made = self.converted.pop(kind, None)
            for artifact in () if made is None else made.artifacts:
                remove(self.stage / artifact.name)

    def write(self, kind: str) -> None:
        """Convert the sim to a format and write its artifacts."""
        self.converted[kind] = convert(kind, self.request)
        for artifact in self.converted[kind].artifacts:
            artifact.write(self.stage / artifact.name)

    def verify(self, known: BesideFloat, options: Options) -> None:
        """Run what was written; a runtime that fails is a line of the report."""
        paths = [self.stage / one.name for one in self.artifacts() if one.runs]
        with Child(Limits(options.timeout_s, options.memory_bytes)) as child:
            for path in tqdm(paths, desc="verify", disable=not options.progress):
                self.runs += verify_beside(self.request.sim, path, known, child)

    def artifacts(self) -> list[Artifact]:
        """Return what was written."""
        return [one for made in self.converted.values() for one in made.artifacts]

    def raise_if_none(self) -> None:
        """Raise if no format is left: the only one's own error, or one that lists all."""
        if self.converted:
            return
        if len(self.failures) == 1:
            raise next(iter(self.failures.values()))
        lines = [f"{kind}: {error}" for kind, error in self.failures.items()]
        raise ExportError("\n".join(["No format could be exported.", *lines]))


def _report(job: _Job, known: BesideFloat | None) -> ExportReport:
    sim, artifacts = job.request.sim, job.artifacts()
    tflite = job.converted.get("tflite", Converted(()))
    return ExportReport(
        profile=sim.record.profile.name,
        files={one.kind: job.folder / one.name for one in artifacts},
        sizes={one.kind: size_of(job.stage / one.name) for one in artifacts},
        sha256={one.kind: sha256_of(job.stage / one.name) for one in artifacts},
        failed={kind: str(error) for kind, error in job.failures.items()},
        integer_layers=_integer_layers(sim),
        float_layers=dict(sim.record.plan.floats),
        float_ops=dict(tflite.float_ops),
        constant_bytes=dict(tflite.constant_bytes),
        floored=dict(sim.record.floored),
        runs=tuple(job.runs),
        fidelity=sim.record.fidelity if known is None else known.fidelity,
        float_bytes=float_bytes(sim),
        weight_bytes=weight_bytes(sim),
        warnings=_warnings(sim, known),
    )


def _check_name(name: str) -> None:
    if not isinstance(name, str) or name != Path(name).name or name in ("", ".."):
        raise ExportError(f"name is {name!r}; it must be the stem of file names, without a folder.")


def _warnings(sim: QuantSim, known: BesideFloat | None) -> tuple[str, ...]:
    """Return the sim's warnings, and those that the verification data adds."""
    said = list(sim.record.warnings)
    if known is not None and known.on_data:
        joined = [np.concatenate(parts) for parts in zip(*known.data, strict=True)]
        said += clipped_inputs(sim, joined)
        told = {one for one in said if one.startswith(COLLAPSE)}
        said += () if told else collapsed_tensors(sim, known.lost)
    new = [one for one in said if one not in sim.record.warnings]
    for message in new:
        warn(message, QuantizationWarning)
    return tuple(dict.fromkeys(said))


def _integer_layers(sim: QuantSim) -> tuple[str, ...]:
    """Return the layers that compute in integers, in graph order."""
    floats, profile = sim.record.plan.floats, sim.record.profile
    names = []
    for call in calls(sim):
        op = op_of(getattr(call.layer, "layer", call.layer))
        makes = tf.nest.flatten(call.node.outputs)
        is_real = all(tensor.dtype.is_floating for tensor in makes)
        adds_nothing = op.transparent or isinstance(call.layer, FakeQuant) or not is_real
        if profile.computes(op.name) and not adds_nothing and call.layer.name not in floats:
            names.append(call.layer.name)
    return tuple(dict.fromkeys(names))
