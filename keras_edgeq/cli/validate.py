"""`keras-edgeq validate`: a metric of an artifact on its runtime."""

from __future__ import annotations

from argparse import Namespace

import keras_edgeq as eq
from keras_edgeq.cli.command import Result
from keras_edgeq.cli.saved import saved


def run(args: Namespace) -> Result:
    """Return the report, and write it where a file is given."""
    found = eq.validate(
        args.artifact,
        args.data,
        args.metric,
        output=args.output,
        batch_size=args.batch_size,
        steps=args.steps,
        threads=args.threads,
        kernels=args.kernels,
        progress=not args.quiet,
    )
    return saved(found, args.save)
