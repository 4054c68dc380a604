"""`keras-edgeq profiles`: the targets there are."""

from __future__ import annotations

import json
from argparse import Namespace

from keras_edgeq.spec import load_profile, profile_names
from keras_edgeq.table import aligned


def run(args: Namespace) -> int:
    """Print a table of all profiles, or the JSON of one."""
    if args.show:
        print(json.dumps(load_profile(args.show).to_json(), indent=1))
    else:
        profiles = [load_profile(name) for name in profile_names()]
        print(
            aligned([("profile", "what it is for"), *((p.name, p.description) for p in profiles)])
        )
    return 0
