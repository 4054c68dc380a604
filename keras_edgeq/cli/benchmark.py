"""`keras-edgeq benchmark`: what an artifact costs on its runtime."""

from __future__ import annotations

from argparse import Namespace

import keras_edgeq as eq
from keras_edgeq.cli.command import Result
from keras_edgeq.cli.saved import saved


def run(args: Namespace) -> Result:
    """Return the report, and write it where a file is given."""
    found = eq.benchmark(
        args.artifact,
        args.data,
        threads=args.threads,
        warmup=args.warmup,
        runs=args.runs,
        batch_size=args.batch_size,
        sizes=_sizes(args.sizes),
        kernels=args.kernels,
        operations=not args.no_operations,
        progress=not args.quiet,
    )
    return saved(found, args.save)


def _sizes(given: list[tuple[str, tuple[int, ...]]]):
    """Return sizes by name, those of the only input without one; None where none are given."""
    by_name = dict(given)
    return by_name[""] if [*by_name] == [""] else by_name or None
