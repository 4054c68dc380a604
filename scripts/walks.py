"""Count how a model passes through the package: `python scripts/walks.py [CHECKOUT]`.

For `quantize` and `search_mixed_precision` of a small network: places that take the model or a sim
(functions of the package with one among their arguments), how often it is handed back up to a room
above, and how many graphs, rebuilt models, folds and stripped models are made.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

CHECKOUT = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1]).resolve()
sys.path.insert(0, str(CHECKOUT))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np  # noqa: E402
import tf_keras  # noqa: E402

import keras_edgeq as eq  # noqa: E402

L = tf_keras.layers
ROOT = str(CHECKOUT / "keras_edgeq") + os.sep
# Rooms of both layouts, from the top; a call never goes up, so only what is returned to does.
ROOMS = (
    *("__init__", "mixed_precision", "analysis", "measure", "qat", "ptq", "streams", "export"),
    *("runtime", "quantize", "requantize", "sim", "prepare", "keras3", "layers", "ops", "graph"),
    *("numerics", "plan", "profiles", "spec"),
)
MADE = {
    "graph": ("layer_graph.py", "__init__"),
    "rebuilt": ("rebuild.py", "rebuild"),
    "folded": ("fold_batch_norms.py", "fold_and_name"),
    "stripped": ("strip.py", "stripped"),
    "resolved": ("resolve.py", "resolve"),
    "inserted": ("insert.py", "insert"),
}


class Walk:
    """What a profiler saw of the calls inside the package."""

    def __init__(self):
        self.places: list[tuple[str, str]] = []
        self.made: Counter[str] = Counter()

    def __call__(self, frame, event, _):
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(ROOT):
            return
        file = code.co_filename.removeprefix(ROOT)
        for name, (ending, function) in MADE.items():
            self.made[name] += file.endswith(ending) and code.co_name == function
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        if any(isinstance(frame.f_locals.get(n), tf_keras.Model) for n in names):
            place = (file, code.co_name)
            if not self.places or self.places[-1] != place:
                self.places.append(place)

    def row(self, what: str) -> str:
        """Return the counts in words."""
        rooms = [ROOMS.index(f.split(os.sep)[0].removesuffix(".py")) for f, _ in self.places]
        up = sum(after < before for before, after in pairwise(rooms))
        made = ", ".join(f"{name} {count}" for name, count in self.made.items())
        distinct = len(set(self.places))
        return f"{what}: {len(self.places)} places ({distinct} functions), {up} back up; {made}"


def watched(what: str, function) -> object:
    """Run a function under the profiler and print what it saw."""
    walk = Walk()
    sys.setprofile(walk)
    try:
        made = function()
    finally:
        sys.setprofile(None)
    print(walk.row(what))
    return made


def main() -> None:
    """Print two rows."""
    x = tf_keras.Input((16, 16, 3))
    y = L.ReLU(6.0)(L.BatchNormalization()(L.Conv2D(8, 3, strides=2, use_bias=False)(x)))
    z = L.ReLU()(L.BatchNormalization()(L.DepthwiseConv2D(3, padding="same", use_bias=False)(y)))
    y = L.Add()([y, L.Conv2D(8, 1, activation="relu")(z)])
    model = tf_keras.Model(x, L.Dense(4)(L.GlobalAveragePooling2D()(y)))
    data = np.random.default_rng(0).normal(size=(32, 16, 16, 3)).astype(np.float32)
    sim = watched("quantize", lambda: eq.quantize(model, data, progress=False))
    watched(
        "search_mixed_precision",
        lambda: eq.search_mixed_precision(
            sim, data, ["W4A8", "W8A8"], size=0.7, effort=1.0, jobs=1, progress=False
        ),
    )


if __name__ == "__main__":
    main()
