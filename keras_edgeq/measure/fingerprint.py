"""A fingerprint of everything that a measurement depends on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from hashlib import sha256
from typing import Any

import numpy as np

from keras_edgeq.sim.quant_sim import QuantSim


def fingerprint(sim: QuantSim, source: Iterable[Iterable[Any]], options: dict[str, Any]) -> str:
    """Return a hash of a sim with its grids, of data and of options.

    Args:
        sim: weights, grids, plan and target count.
        source: batches of inputs.
        options: JSON values.
    """
    digest = sha256(json.dumps(options, sort_keys=True).encode())
    digest.update(json.dumps(sim.record.plan.to_json(), sort_keys=True).encode())
    digest.update(json.dumps(sim.record.profile.to_json(), sort_keys=True).encode())
    for values in sim.get_weights():
        digest.update(np.ascontiguousarray(values).tobytes())
    for batch in source:
        for part in batch:
            array = np.ascontiguousarray(part)
            digest.update(f"{array.shape}{array.dtype}".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()
