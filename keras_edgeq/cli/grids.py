"""`keras-edgeq grids`: the grid of every tensor of a sim."""

from __future__ import annotations

from argparse import Namespace

import keras_edgeq as eq
from keras_edgeq.cli.command import Result


def run(args: Namespace) -> Result:
    """Return the table, and write it where a file is given."""
    found = eq.grids(eq.load_sim(args.sim, safe_mode=not args.allow_lambda))
    text = str(found)
    if args.csv:
        found.to_csv(args.csv)
        text = f"{len(found)} grids written to {args.csv}"
    return Result(text, found.to_json(), "" if args.csv else text)
