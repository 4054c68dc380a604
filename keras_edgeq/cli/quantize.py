"""`keras-edgeq quantize`: from a saved model and a file of inputs to artifacts."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import keras_edgeq as eq
from keras_edgeq.errors import ExportError
from keras_edgeq.export.export import checked_formats
from keras_edgeq.spec import load_profile


def run(args: Namespace) -> int:
    """Quantize, save the sim, export and print the report."""
    profile = load_profile(args.profile)
    formats = checked_formats(args.formats, profile)
    out = _folder(args.out)
    sim = eq.quantize(
        eq.load_model(args.model, args.allow_lambda),
        args.calibration,
        profile,
        input_range=None if args.input_range is None else tuple(args.input_range),
        precision=dict(args.precision),
        batch_size=args.batch_size,
        steps=args.steps,
        keep_samples=args.keep_samples,
    )
    eq.save_sim(sim, out / "sim.keras")
    report = eq.export(sim, out, formats, args.verify, float_io=not args.integer_io)
    print(report)
    return 1 if report.failed else 0


def _folder(path: str) -> Path:
    """Make the folder now: minutes of calibration are not for a place that cannot be written."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"Cannot write {folder}: {error.strerror}.") from error
    return folder
