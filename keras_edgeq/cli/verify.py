"""`keras-edgeq verify`: do exported files do what the sim said?"""

from __future__ import annotations

from argparse import Namespace

import keras_edgeq as eq


def run(args: Namespace) -> int:
    """Print one line per artifact and runtime.

    Returns:
        0 where all agree with the sim, known differences of kernels included; 2 where a runtime
        failed; else 1.
    """
    sim = eq.load_sim(args.sim, safe_mode=not args.allow_lambda)
    runs = [run for path in args.artifacts for run in eq.verify(sim, path, args.data)]
    for run in runs:
        print("agrees   " if run.agrees else "DISAGREES", run)
    if any(run.failed is not None for run in runs):
        return 2
    return 0 if all(run.agrees for run in runs) else 1
