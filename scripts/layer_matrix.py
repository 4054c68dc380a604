"""Write docs/layers.md: what becomes of each layer of `tf_keras`, and of operations.

    python scripts/layer_matrix.py [NAME ...] [--rows FILE]

Each stands between two layers with weights; the model is quantized, exported, compared with the
runtimes, and trained for one step. Names print their rows alone. FILE keeps the rows, so that a run
that was cut short goes on. Allow half an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import tf_keras  # noqa: E402

import keras_edgeq as eq  # noqa: E402
from keras_edgeq.errors import EdgeqError  # noqa: E402
from tests.layer_cases import CASES, LAYERS, OPERATIONS, OTHERS, Case  # noqa: E402

L = tf_keras.layers
PAGE = ROOT / "docs" / "layers.md"
TARGETS = {"litert_int8": ["tflite", "encodings"], "onnxruntime_int8": ["onnx"]}
TITLES = (
    *("", "LiteRT computes", "TFLite file", "ONNX Runtime computes", "ONNX file"),
    *("encodings", "trains"),
)
OWN = ("front", "back", "back_flatten")
HEAD = """# Layers

What becomes of each layer of `tf_keras.layers`, and of operations of TensorFlow as they are
written in functional models, printed by `scripts/layer_matrix.py` from real runs: each between two
layers with weights, 8-bit, on random data.

- **computes**: in `integers`; `moves` integers without arithmetic; `nothing` at inference; stays
  `float` in the middle of integers, or `in part`; is `refused` with one error. Notes say why.
- **file**: what `eq.verify` says of it on its runtime: `same`, or `kernel` where the runtime's own
  rounding differs by a step in few numbers.
- **trains**: a step of `sim.fit` changes the weights in front of it.
"""


def model_of(case: Case) -> tf_keras.Model:
    """Return a small model with the case in its middle."""
    x = tf_keras.Input(case.shape, dtype=case.dtype)
    kinds = {1: L.Dense, 2: L.Conv1D, 3: L.Conv2D, 4: L.Conv3D}
    window = () if len(case.shape) == 1 else (1,)
    y = x
    if case.front:
        y = kinds.get(len(case.shape), L.Dense)(
            case.shape[-1], *window[: len(case.shape) < 5], name="front"
        )(x)
    y = case.apply(y)
    y = L.Flatten(name="back_flatten")(y) if len(y.shape) > 2 else y
    return tf_keras.Model(x, L.Dense(2, name="back")(y))


def data_of(case: Case) -> np.ndarray:
    """Return samples of a case."""
    rng = np.random.default_rng(1)
    if case.dtype == "string":
        return rng.choice(["a", "b", "c"], (16, *case.shape))
    if case.dtype != "float32":
        return rng.integers(0, 8, (16, *case.shape)).astype(case.dtype)
    return rng.normal(size=(16, *case.shape)).astype(np.float32)


def computed(model: tf_keras.Model, profile: str) -> tuple[str, str]:
    """Return how a target computes what stands in the middle, and why not otherwise."""
    rows = [row for row in eq.describe(model, profile).rows if row.layer not in OWN]
    floats = [row for row in rows if row.computes == "float"]
    if not rows:
        return "nothing", ""
    if floats:
        return "float" if len(floats) == len(rows) else "in part", floats[0].why
    return ("moves" if {row.computes for row in rows} == {"moves integers"} else "integers"), ""


def trains(sim: Any, data: np.ndarray) -> str:
    """Return whether a step changes the first weights."""
    sim.compile("sgd", "mse")
    weights = sim.trainable_weights
    before = weights[0].numpy()
    labels = np.ones_like(sim(data, training=False))
    sim.fit(data, labels, epochs=1, verbose=0)
    after = weights[0].numpy()
    return "yes" if np.isfinite(after).all() and (before != after).any() else "no"


def row_of(name: str) -> dict[str, str]:
    """Return what becomes of a case."""
    case, row = CASES[name], {"": name}
    data, notes = data_of(case), []
    try:
        tf_keras.utils.set_random_seed(0)
        model = model_of(case)
        for place, (profile, formats) in enumerate(TARGETS.items()):
            how, why = computed(model, profile)
            row[TITLES[1 + 2 * place]] = how
            notes += [f"{why}"] if why else []
            sim = eq.quantize(model, data, profile, progress=False)
            with tempfile.TemporaryDirectory() as folder:
                verdict, why = exported(sim, folder, formats, data)
            row[TITLES[2 + 2 * place]] = verdict
            notes += [why] if why else []
            if not place:
                row["encodings"] = "yes"
                row["trains"] = trains(sim, data)
    except EdgeqError as error:
        row |= {title: row.get(title, "refused") for title in TITLES[1:]}
        notes.append(" ".join(str(error).split()))
    except Exception as error:  # a fault of this package, which the page is not to have
        row |= {title: row.get(title, "fault") for title in TITLES[1:]}
        notes.append(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
    return {**row, "notes": "; ".join(dict.fromkeys(notes))}


def exported(sim: Any, folder: str, formats: list[str], data: np.ndarray) -> tuple[str, str]:
    """Return the verdict on a sim's file, and what was said where there is none."""
    try:
        report = eq.export(sim, folder, formats, verify=data, progress=False)
    except EdgeqError as error:
        return "refused", " ".join(str(error).split())
    if report.failed:
        return "refused", "; ".join(report.failed.values())
    return report.runs[0].verdict, ""


def page(rows: list[dict[str, str]]) -> str:
    """Return the page's text."""
    notes: dict[str, int] = {}
    parts = []
    for title, names in (("Layers", LAYERS), ("Operations", OPERATIONS)):
        head = f"| {' | '.join(TITLES)} | |"
        parts += [f"## {title}", "", head, f"|{'---|' * (len(TITLES) + 1)}"]
        for row in (row for row in rows if row[""] in names):
            why = row["notes"]
            mark = f"({notes.setdefault(why, len(notes) + 1)})" if why else ""
            parts.append(f"| `{row['']}` | {' | '.join(row[t] for t in TITLES[1:])} | {mark} |")
        parts.append("")
    told = [f"{number}. {why}" for why, number in notes.items()]
    others = ", ".join(f"`{name}` ({why})" for name, why in OTHERS.items())
    return "\n".join([HEAD, *parts, f"Not in the table: {others}.", "", "## Notes", "", *told, ""])


def main() -> None:
    """Run all cases and write the page, or print the rows of some."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--rows", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    known: dict[str, dict[str, str]] = {}
    if options.rows and options.rows.is_file():
        known = {row[""]: row for row in map(json.loads, options.rows.read_text().splitlines())}
    for name in options.names or CASES:
        if name not in known:
            known[name] = row_of(name)
            print(*(known[name][key] for key in (*TITLES, "notes")), sep=" | ", flush=True)
            tf_keras.backend.clear_session()
            if options.rows:
                with options.rows.open("a") as file:
                    file.write(json.dumps(known[name]) + "\n")
    if not options.names:
        PAGE.write_text(page([known[name] for name in CASES]), encoding="utf-8")


if __name__ == "__main__":
    main()
