"""`keras-edgeq auto`: from a saved model to artifacts that lose no more than they may."""

from __future__ import annotations

from argparse import Namespace

import keras_edgeq as eq
from keras_edgeq.cli.command import DISAGREES, Result
from keras_edgeq.cli.functions import function
from keras_edgeq.cli.image_folder import inputs_at
from keras_edgeq.cli.out_folder import out_folder
from keras_edgeq.cli.verify import disagreeing, status_of
from keras_edgeq.files.json_text import finite


def run(args: Namespace) -> Result:
    """Find the sim, save it and its page, export, and return the stages and the report."""
    score = args.metric if args.score is None else function(args.score, "--score")
    train = None if args.train is None else function(args.train, "--train")
    with out_folder(args.out) as out:
        model = eq.load_model(args.model, args.allow_lambda)
        found = eq.auto_quantize(
            model,
            inputs_at(args.data, args, model),
            args.profile,
            score=score,
            max_drop=args.max_drop,
            min_score=args.min_score,
            budget=args.budget,
            train=train,
            folder=args.resume,
            strict=not args.keep_going,
            batch_size=args.batch_size,
            steps=args.steps,
            progress=not args.quiet,
        )
        eq.save_sim(found.sim, out / "sim.keras")
        if args.save:
            found.save(args.save)
        report = eq.export(found.sim, out, args.formats, progress=not args.quiet)
    wrong = disagreeing(report.runs)
    missed = "" if found.met else "The target was not met."
    text = "\n".join(filter(None, [str(found), str(report), wrong]))
    files = {"folder": str(out), "sim": "sim.keras", "report": report.to_json()}
    status = DISAGREES if report.failed or missed else status_of(report.runs)
    brief = "\n".join(filter(None, [missed, wrong]))
    return Result(text, {**finite(found.to_json()), **files}, brief, status)
