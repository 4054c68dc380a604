"""`keras-edgeq plan`: where a sim has quantizers and on which grids, or what differs in another."""

from __future__ import annotations

from argparse import Namespace

import keras_edgeq as eq
from keras_edgeq.cli.command import Result
from keras_edgeq.errors import EdgeqError


def run(args: Namespace) -> Result:
    """Return the plan of a sim, or its difference to that of another."""
    first, *more = (
        eq.load_sim(path, safe_mode=not args.allow_lambda).record.plan for path in args.sims
    )
    if args.action == "show":
        if more:
            raise EdgeqError("plan show takes one sim; plan diff takes two.")
        return Result(str(first), first.to_json())
    if len(more) != 1:
        raise EdgeqError(f"plan diff takes two sims, not {len(args.sims)}.")
    found = first.diff(more[0])
    return Result(str(found), found.to_json())
