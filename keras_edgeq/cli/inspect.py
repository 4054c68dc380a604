"""`keras-edgeq inspect`: what a target computes in integers, without any data."""

from __future__ import annotations

from argparse import Namespace

import keras_edgeq as eq


def run(args: Namespace) -> int:
    """Print the description of a saved model."""
    model = eq.load_model(args.model, args.allow_lambda)
    print(eq.describe(model, args.profile, dict(args.precision)))
    return 0
