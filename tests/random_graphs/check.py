"""What becomes of a graph: quantized well, refused in words, wrong, or an error of another kind."""

from __future__ import annotations

import inspect
import time
import traceback
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import keras_edgeq as eq
from keras_edgeq import errors
from keras_edgeq.layers import FakeQuant
from keras_edgeq.ops import op_of
from keras_edgeq.profiles import TargetProfile, load_profile
from tests.random_graphs.graph import Graph, build, inputs_for, outputs

# Of 16 bits everywhere, random graphs keep 70 to 100 dB.
LEAST_FINE_DB = 35.0
# A batch of few samples next to the same samples in a larger one.
NOISE = 1e-4
PACKAGE = Path(eq.__file__).parent.name
# Outputs of that power are noise of float themselves, such as the mean of what has the mean zero.
NO_POWER = 1e-10
# Stands for "no noise at all".
MOST_DB = 200.0


@dataclass(frozen=True)
class Outcome:
    """What `check_graph` found.

    Args:
        kind: `"ok"`; `"refused"` in words; `"raw"`, an error of another kind; `"wrong"`;
            `"invalid"`, a model that fails by itself; of an export see `check_export`.
        text: the message or the figures.
        where: innermost place in the package, `file:function`, or what was compared.
        coarse_db: least signal to noise of the outputs on 8 bits.
        fine_db: likewise on 16 bits.
        integers: layers that compute in integers.
        layers: layers that compute.
        seconds: what the check took.
    """

    kind: str
    text: str = ""
    where: str = ""
    coarse_db: float = MOST_DB
    fine_db: float = MOST_DB
    integers: int = 0
    layers: int = 0
    seconds: float = 0.0

    @property
    def cause(self) -> tuple[str, str]:
        """What two failures have in common that are one."""
        return self.kind, self.where


def check_graph(graph: Graph) -> Outcome:
    """Quantize a graph's model on 8 bits and on 16, and judge what comes out."""
    start = time.perf_counter()
    try:
        outputs(build(graph), inputs_for(graph))
    except Exception as error:
        return Outcome("invalid", f"{type(error).__name__}: {error}"[:600])
    try:
        outcome = _checked(graph)
    except errors.EdgeqError as error:
        outcome = refusal(error)
    except Exception as error:
        outcome = Outcome("raw", f"{type(error).__name__}: {error}"[:600], place(error))
    return replace(outcome, seconds=time.perf_counter() - start)


def refusal(error: errors.EdgeqError) -> Outcome:
    """Return the outcome of a documented error; one that says the sim is wrong is a fault."""
    kind = "wrong" if type(error).__name__ == "SimMismatchError" else "refused"
    return Outcome(kind, f"{type(error).__name__}: {error}"[:600], place(error))


def quantized(graph: Graph, profile: Any = "litert_int8", samples: int = 16) -> tuple[Any, Any]:
    """Return the sim of a graph's model, and the model."""
    model = build(graph)
    options = {"check": True} if "check" in inspect.signature(eq.quantize).parameters else {}
    data = inputs_for(graph, samples)
    given = data[0] if len(data) == 1 else data
    return eq.quantize(model, given, profile, progress=False, **options), model


def _checked(graph: Graph) -> Outcome:
    sim, model = quantized(graph)
    integers, layers = computed(sim)
    data = inputs_for(graph)
    wanted, coarse = outputs(model, data), outputs(sim, data)
    few = outputs(sim, [array[:3] for array in data])
    fine_sim, _ = quantized(graph, fine_profile())
    fine = outputs(fine_sim, data)
    found = Outcome(
        "ok",
        coarse_db=least_db(wanted, coarse),
        fine_db=least_db(wanted, fine),
        integers=integers,
        layers=layers,
    )
    if [a.shape for a in wanted] != [a.shape for a in coarse]:
        shapes = f"shapes {[a.shape for a in coarse]} for {[a.shape for a in wanted]}"
        return replace(found, kind="wrong", text=shapes, where="shapes")
    if [_type(a) for a in wanted] != [_type(a) for a in coarse]:
        types = f"types {[str(a.dtype) for a in coarse]} for {[str(a.dtype) for a in wanted]}"
        return replace(found, kind="wrong", text=types, where="types")
    for whole, part in zip(coarse, few, strict=True):
        gap = np.max(np.abs(np.float64(whole[: len(part)]) - np.float64(part)), initial=0.0)
        if gap > NOISE + 0.02 * np.max(np.abs(whole), initial=0.0):
            text = f"three samples alone differ by {gap:.3g}"
            return replace(found, kind="wrong", text=text, where="batch")
    if found.fine_db < LEAST_FINE_DB:
        text = f"{found.fine_db:.1f} dB on 16 bits, {found.coarse_db:.1f} dB on 8"
        return replace(found, kind="wrong", text=text, where="numbers")
    return found


def _type(array: np.ndarray) -> np.dtype:
    """Return the type of an output; a sim has float32 where NumPy made a model's numbers longer."""
    return np.dtype(np.float32) if array.dtype == np.float64 else array.dtype


@cache
def fine_profile() -> TargetProfile:
    """Return `litert_int8` with 16 bits throughout, ranges that do not clip, and no fixed ones."""
    data = load_profile("litert_int8").to_json()
    data["name"], data["bias"] = "litert_int8_fine", "int64"
    data["activation"].update(bits=16, rule="minmax")
    data["weight"].update(bits=16, rule="minmax")
    data["fixed_ranges"], data["ops"] = {}, {}
    return TargetProfile.from_json(data)


def least_db(wanted: list[np.ndarray], got: list[np.ndarray]) -> float:
    """Return the least ratio of signal and noise of all real outputs, in dB."""
    ratios = [MOST_DB]
    for a, b in zip(wanted, got, strict=True):
        if a.dtype.kind != "f" or a.shape != b.shape or not a.size:
            continue
        a, b = np.float64(a), np.float64(b)
        if not np.isfinite(b).all():
            return -MOST_DB
        signal, noise = np.mean(a**2) + NO_POWER, np.mean((a - b) ** 2)
        ratios.append(10.0 * np.log10(signal / noise) if noise else MOST_DB)
    return float(min(ratios))


def computed(sim: Any) -> tuple[int, int]:
    """Return how many layers of a sim compute in integers, and how many compute."""
    own = [layer for layer in sim.layers if not isinstance(layer, FakeQuant)]
    ops = {layer.name: op_of(getattr(layer, "layer", layer)) for layer in own}
    computing = [name for name, op in ops.items() if not op.transparent]
    floats = sim.record.plan.floats
    return sum(name not in floats for name in computing), len(computing)


def place(error: BaseException) -> str:
    """Return the innermost place inside the package that an error went through."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [f for f in frames if PACKAGE in Path(f.filename).parts]
    if not inside:
        return type(error).__name__
    return f"{Path(inside[-1].filename).name}:{inside[-1].name} {type(error).__name__}"
