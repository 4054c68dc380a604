"""What files of each precision cost and how good they are, on LiteRT and ONNX Runtime.

    python benchmarks/artifacts.py DATA_FOLDER [MODEL ...] [--samples N] [--table FILE]

Logits of models cut before the softmax. Files of float32, int8, int16x8 (16-bit activations on
ONNX Runtime) and W4A8, all of a model in one `eq.compare`: bytes, top-1 and agreement with the
float model in %, SQNR in dB, the median latency of one sample on one thread and its ratio to the
float file of the same runtime, timed in turn. A precision that a target does not have is left out
and said on stderr. Behind the rows of a model stand what the profilers say of its files: whose
kernels ran, and the operations that took the most time. Allow ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from data import CASES, Case, load
from table import emit, head

import keras_edgeq as eq

HEAD = (
    "model", "precision", "runtime", "bytes", "top-1", "agreement", "SQNR", "ms", "ratio to float",
)  # fmt: skip
# Format, precision -> profile, and what its layers are asked to be.
FILES = {
    ("tflite", "float"): ("litert_int8", "FP32"),
    ("tflite", "int8"): ("litert_int8", None),
    ("tflite", "int16x8"): ("litert_int16x8", None),
    ("tflite", "W4A8"): ("litert_int8", "W4A8"),
    ("onnx", "float"): ("onnxruntime_int8", "FP32"),
    ("onnx", "int8"): ("onnxruntime_int8", None),
    ("onnx", "int16x8"): ("onnxruntime_int8", "W8A16"),
    ("onnx", "W4A8"): ("onnxruntime_int8", "W4A8"),
}
SLOWEST = 5


def files_of(case: Case, folder: Path) -> tuple[eq.QuantSim, dict[str, tuple[str, str]]]:
    """Write the files; return the int8 sim, and path -> format and precision."""
    made, sims = {}, {}
    for (form, name), (profile, precision) in FILES.items():
        try:
            sim = eq.quantize(
                case.model, case.calibration, profile, precision=precision, progress=False
            )
            where = folder / f"{form}_{name}"
            report = eq.export(sim, where, [form], verify=False, progress=False)
        except eq.EdgeqError as error:
            print(f"{case.name}, {form}, {name}: {error}", file=sys.stderr)
            continue
        made[str(report.files[form])] = (form, name)
        sims[form, name] = sim
    return sims["tflite", "int8"], made


def measure(case: Case, options: argparse.Namespace) -> None:
    """Add the rows of a model, and what the profilers say of its files."""
    data = (case.test[: options.samples], case.labels[: options.samples])
    with tempfile.TemporaryDirectory() as folder:
        sim, files = files_of(case, Path(folder))
        found = eq.compare(
            case.model, sim, *files, data=data, metric=_top1, runs=options.runs, progress=False
        )
        for one in found.candidates:
            name = files.get(one.name, ("", one.name))[1]
            cells = [
                case.name,
                name,
                one.runtime,
                "-" if one.size_bytes is None else f"{one.size_bytes:,}",
                f"{100.0 * (one.metric or 0.0):.2f}",
                f"{one.agreement:.2f}",
                f"{one.sqnr_db:.1f}",
                "-" if one.latency is None else f"{one.latency.p50:.3g}",
                "-" if one.latency_ratio is None else f"{one.latency_ratio:.2f}",
            ]
            emit(options.table, f"| {' | '.join(cells)} |")
        said = f"{found.samples} samples, {found.runs} runs, {found.machine}"
        options.notes.append(f"{case.name}: {said}.")
        options.notes += [_profile(case.name, path, *kind) for path, kind in files.items()]


def _top1(labels, logits) -> float:
    return float((logits.reshape(len(logits), -1).argmax(-1) == labels).mean())


def _profile(model: str, path: str, form: str, name: str) -> str:
    """Return whose kernels ran a file, and its slowest operations."""
    found = eq.benchmark(path, runs=100, progress=False)
    kernels = ", ".join(
        f"{kernel} {count} operations, {100.0 * share:.0f} %"
        for kernel, (count, share) in found.kernels.items()
    )
    types: dict[str, float] = {}
    for one in found.operations:
        key = f"{one.type} ({one.kernel})"
        types[key] = types.get(key, 0.0) + one.time_us
    slowest = sorted(types.items(), key=lambda pair: -pair[1])[:SLOWEST]
    times = ", ".join(f"{kind} {time:.3g} µs" for kind, time in slowest if time >= 0.1)
    return f"- {model} {form} {name}: {kernels or found.no_operations}. By type: {times}."


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DATA_FOLDER")
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(CASES))
    parser.add_argument("--samples", type=int, help="test samples at most (default: all)")
    parser.add_argument("--runs", type=int, default=100, help="timed runs per file")
    parser.add_argument("--table", type=Path, help="file to write")
    options = parser.parse_args()
    options.notes = []
    emit(options.table, head(HEAD))
    try:
        for name in options.models or CASES:
            measure(load(options.folder, name), options)
    finally:
        emit(options.table, "\n" + "\n".join(options.notes))


if __name__ == "__main__":
    main()
