"""`keras-edgeq verify`: do exported files do what the sim said?"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence

import keras_edgeq as eq
from keras_edgeq.cli.command import DISAGREES, Result
from keras_edgeq.runtime.run_report import RunReport


def run(args: Namespace) -> Result:
    """Return one line per artifact and runtime; status 1 where one disagrees or failed."""
    sim = eq.load_sim(args.sim, safe_mode=not args.allow_lambda)
    runs = [run for path in args.artifacts for run in eq.verify(sim, path, args.data)]
    lines = [f"{'agrees   ' if run.agrees else 'DISAGREES'} {run}" for run in runs]
    values = {"agrees": all(run.agrees for run in runs), "runs": [run.to_json() for run in runs]}
    return Result("\n".join(lines), values, disagreeing(runs), status_of(runs))


def disagreeing(runs: Sequence[RunReport]) -> str:
    """Return a line per run that disagrees."""
    return "\n".join(f"DISAGREES {run}" for run in runs if not run.agrees)


def status_of(runs: Sequence[RunReport]) -> int:
    """Return the exit status for what runs found."""
    return 0 if all(run.agrees for run in runs) else DISAGREES
