"""`keras-edgeq compare`: a float model, its sim and artifacts side by side."""

from __future__ import annotations

from argparse import Namespace

import keras_edgeq as eq
from keras_edgeq.cli.command import Result
from keras_edgeq.cli.saved import saved


def run(args: Namespace) -> Result:
    """Return the table, and write it where a file is given."""
    found = eq.compare(
        eq.load_model(args.model, args.allow_lambda),
        eq.load_sim(args.sim, safe_mode=not args.allow_lambda),
        *args.artifacts,
        data=args.data,
        metric=args.metric,
        output=args.output,
        batch_size=args.batch_size,
        steps=args.steps,
        threads=args.threads,
        runs=args.runs,
        kernels=args.kernels,
        progress=not args.quiet,
    )
    return saved(found, args.save)
