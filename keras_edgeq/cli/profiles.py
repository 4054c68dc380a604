"""`keras-edgeq profiles`: the targets there are."""

from __future__ import annotations

import json
from argparse import Namespace

from keras_edgeq.cli.command import Result
from keras_edgeq.profiles import load_profile, profile_names
from keras_edgeq.table import aligned


def run(args: Namespace) -> Result:
    """Return a table of all profiles, or the JSON of one."""
    if args.show:
        values = load_profile(args.show).to_json()
        text = json.dumps(values, indent=1)
        return Result(text, values, text)
    profiles = [load_profile(name) for name in profile_names()]
    rows = [("profile", "precisions", "what it is for")]
    rows += [(p.name, " ".join(p.names), p.description) for p in profiles]
    values = [
        {
            "name": p.name,
            "description": p.description,
            "precisions": list(p.precision_names),
            "mixtures": list(p.mixtures),
            "formats": list(p.formats),
        }
        for p in profiles
    ]
    return Result(aligned(rows), values, "\n".join(p.name for p in profiles))
