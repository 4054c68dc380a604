"""`keras-edgeq diagnose`: which layers of a sim hurt, why, and what helps."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from typing import Any

import numpy as np

import keras_edgeq as eq
from keras_edgeq.cli.command import Result
from keras_edgeq.cli.functions import function
from keras_edgeq.cli.image_folder import inputs_at
from keras_edgeq.cli.saved import saved
from keras_edgeq.errors import EdgeqError
from keras_edgeq.evaluate.metrics import Metric, as_array
from keras_edgeq.graph.rebuild import run as run_model
from keras_edgeq.sim.data import labelled_batches
from keras_edgeq.streams.store import MEMORY_BYTES


def run(args: Namespace) -> Result:
    """Return the diagnosis, and write it where a file is given."""
    score = None if args.score is None else function(args.score, "--score")
    sim = eq.load_sim(args.sim, safe_mode=not args.allow_lambda)
    data = inputs_at(args.data, args, sim)
    if args.metric is not None:
        score = _metric(args)
    found = eq.diagnose(
        sim,
        data,
        score,
        args.remedies,
        args.budget,
        samples=args.samples,
        verify=not args.no_verify,
        batch_size=args.batch_size,
        steps=args.steps,
        progress=not args.quiet,
    )
    return saved(found, args.save)


def _metric(args: Namespace) -> Callable[[Any], float]:
    """Return a score: a metric on the labels of a file."""

    def score(model: Any) -> float:
        if len(model.outputs) != 1:
            raise EdgeqError(
                f"--metric is for models with one output; {model.name!r} has "
                f"{', '.join(model.output_names)}. Give --score MODULE:FUNCTION."
            )
        measured = Metric(args.metric, MEMORY_BYTES)
        for batch in labelled_batches(args.data, model, args.batch_size, args.steps):
            labels = as_array(batch.labels, model.output_names[0], args.metric)
            measured.add(labels, np.asarray(run_model(model, batch.inputs)))
        return measured.result()

    return score
