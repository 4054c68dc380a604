"""`keras-edgeq quantize`: from a saved model and a file of inputs to artifacts."""

from __future__ import annotations

from argparse import Namespace

import keras_edgeq as eq
from keras_edgeq.cli.command import DISAGREES, Result
from keras_edgeq.cli.image_folder import inputs_at
from keras_edgeq.cli.out_folder import out_folder
from keras_edgeq.cli.verify import disagreeing, status_of


def run(args: Namespace) -> Result:
    """Quantize, save the sim, export, and return the report."""
    with out_folder(args.out) as out:
        progress = not args.quiet
        model = eq.load_model(args.model, args.allow_lambda)
        sim = eq.quantize(
            model,
            inputs_at(args.calibration, args, model),
            args.profile,
            input_range=None if args.input_range is None else tuple(args.input_range),
            precision=dict(args.precision),
            batch_size=args.batch_size,
            steps=args.steps,
            keep_samples=args.keep_samples,
            progress=progress,
        )
        eq.save_sim(sim, out / "sim.keras")
        report = eq.export(
            sim,
            out,
            args.formats,
            inputs_at(args.verify, args, model),
            float_io=not args.integer_io,
            progress=progress,
        )
    wrong = disagreeing(report.runs)
    text = f"{report}\n{wrong}" if wrong else str(report)
    agrees = all(run.agrees for run in report.runs)
    values = {"agrees": agrees, "folder": str(out), "sim": "sim.keras", **report.to_json()}
    return Result(text, values, wrong, DISAGREES if report.failed else status_of(report.runs))
