"""A gated computes what the sim of the same precisions computes, and traces each piece once."""

from functools import cache

import numpy as np
import pytest
import tensorflow as tf

import keras_edgeq as eq
from keras_edgeq.measure import gated_sim as twin_module
from keras_edgeq.measure.candidate_grids import candidate_grids
from keras_edgeq.measure.gated_sim import GatedSim
from keras_edgeq.measure.groups import SearchSpace, find_groups
from tests.harness import assert_close, outputs
from tests.models import inputs_for, make

# Not for LiteRT: its 4-bit kernels round sums twice, which a gated sim leaves out.
PROFILE = "onnxruntime_int8"
WEIGHTS_ONLY = ("W4A8", "W8A8")
ALL = ("W4A8", "W8A8", "W8A16", "FP16", "FP32")
HAZARDS = (
    ("grouped", WEIGHTS_ONLY),
    ("residual", ALL),
    ("shared_in_series", ALL),
    ("several_outputs", ALL),
    ("moves", ALL),
)
LONG = ("residual", "moves")


@cache
def sim_of(hazard):
    model = make(hazard)
    return eq.quantize(model, inputs_for(model, 32), PROFILE, progress=False)


def as_list(sim, x):
    parts = [x] if not isinstance(x, dict) else [x[name] for name in sim.input_names]
    return [tf.convert_to_tensor(part) for part in parts]


def run(gated, choice, batch):
    gated.apply(gated.settings(choice))
    values = gated.begin(batch)
    for piece in range(len(gated)):
        values = gated.step(piece, values)
    return gated.outputs(values)


def random_choice(groups, rng):
    return {group.name: str(rng.choice(group.candidates)) for group in groups}


@pytest.mark.parametrize(
    ("hazard", "candidates"),
    [pytest.param(*h, marks=pytest.mark.slow if h[0] in LONG else ()) for h in HAZARDS],
)
def test_every_choice_is_that_of_a_sim(hazard, candidates):
    sim = sim_of(hazard)
    x = inputs_for(make(hazard), 8, seed=1)
    groups = find_groups(sim, candidates)
    grids = candidate_grids(SearchSpace(sim, candidates))
    gated, rng = GatedSim(grids), np.random.default_rng(0)
    choices = [grids.uniform(candidates[-1])]
    choices += [random_choice(groups, rng) for _ in range(2)]
    for choice in choices:
        real = eq.requantize(sim, precision=grids.precisions(choice))
        assert_close(outputs(real, x), run(gated, choice, as_list(sim, x)), 3e-3)


@pytest.mark.slow
def test_a_choice_leaves_no_trace():
    sim = sim_of("residual")
    batch = as_list(sim, inputs_for(sim, 4, seed=2))
    groups = find_groups(sim, ALL)
    gated = GatedSim(candidate_grids(SearchSpace(sim, ALL)))
    base = {group.name: "W8A8" for group in groups}
    before = run(gated, base, batch)
    for name in ALL:
        run(gated, {**base, groups[1].name: name}, batch)
    after = run(gated, base, batch)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_sim_is_not_changed():
    sim = sim_of("residual")
    kept = [w.copy() for w in sim.get_weights()]
    gated = GatedSim(candidate_grids(SearchSpace(sim, ALL)))
    run(gated, {g.name: "W4A8" for g in gated.grids.groups}, as_list(sim, inputs_for(sim, 2)))
    for a, b in zip(kept, sim.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_each_piece_is_traced_once(monkeypatch):
    traced = []

    def counted(walked, *args):
        traced.extend(walked)
        return original(walked, *args)

    original = twin_module.trace_piece
    monkeypatch.setattr(twin_module, "trace_piece", counted)
    sim = sim_of("residual")
    gated = GatedSim(candidate_grids(SearchSpace(sim, ALL)))
    batch, rng = as_list(sim, inputs_for(sim, 4)), np.random.default_rng(0)
    for size in (4, 3):
        for _ in range(5):
            choice = random_choice(gated.grids.groups, rng)
            run(gated, choice, [part[:size] for part in batch])
    assert len(traced) == len({id(call.node) for call in traced}) == len(gated._calls)


def test_what_precedes_a_change_need_not_be_computed():
    sim = sim_of("residual")
    groups = find_groups(sim, WEIGHTS_ONLY)
    gated = GatedSim(candidate_grids(SearchSpace(sim, WEIGHTS_ONLY)))
    batch = as_list(sim, inputs_for(sim, 4))
    base = {group.name: "W8A8" for group in groups}
    changed = {**base, groups[-1].name: "W4A8"}
    start = gated.start(gated.settings(changed), gated.settings(base))
    assert start == len(gated) - 1
    wanted = run(gated, changed, batch)
    gated.apply(gated.settings(base))
    values = gated.begin(batch)
    for piece in range(start):
        values = gated.step(piece, values)
    gated.apply(gated.settings(changed))
    for piece in range(start, len(gated)):
        values = gated.step(piece, values)
    for a, b in zip(wanted, gated.outputs(values), strict=True):
        np.testing.assert_array_equal(a, b)
    assert gated.start(gated.settings(base), gated.settings(base)) == len(gated)
    assert sum(gated.shares) == pytest.approx(1.0)
