"""A diagnosis as custom node data of Model Explorer, which colours the exported file with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from keras_edgeq.diagnose.rows import TensorDiagnosis

OVERLAY = ".overlay.json"
# Value up to which a node has a colour, in dB; above the last one it has none.
THRESHOLDS = (
    (10.0, "#a50026", "#ffffff"),
    (20.0, "#e0562f", "#ffffff"),
    (30.0, "#f0a83c", "#000000"),
    (40.0, "#9ab8c9", "#000000"),
    (50.0, "#4f8fc0", "#ffffff"),
)


def overlay_of(tensors: Sequence[TensorDiagnosis]) -> dict[str, Any]:
    """Return the whole error of each tensor, by the names that tensors have in the TFLite file.

    Model Explorer finds a node by the name of a tensor that it makes. Tensors without an error
    have no number and are left out.
    """
    return {
        "results": {
            one.tensor: {"value": round(one.total_db, 2)}
            for one in tensors
            if math.isfinite(one.total_db)
        },
        "thresholds": [
            {"value": value, "bgColor": colour, "textColor": text}
            for value, colour, text in THRESHOLDS
        ],
    }
