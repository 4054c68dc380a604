"""`keras-edgeq inspect`: what a target computes in integers, without any data."""

from __future__ import annotations

from argparse import Namespace

import keras_edgeq as eq
from keras_edgeq.cli.command import Result


def run(args: Namespace) -> Result:
    """Return the description of a saved model."""
    model = eq.load_model(args.model, args.allow_lambda)
    found = eq.describe(model, args.profile, dict(args.precision))
    return Result(str(found), found.to_json(), str(found))
