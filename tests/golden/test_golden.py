"""What version 0.1.0 wrote is read as it was: the same grids, plans, statistics and outputs."""

import json
from pathlib import Path

import numpy as np
import pytest

import keras_edgeq as eq
from keras_edgeq.sim.derive import derive_activations
from keras_edgeq.spec.encoding import Encoding
from tests.golden.write import grids, images

FOLDER = Path(__file__).parent / "0.1.0"
EXPECTED = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))


@pytest.fixture(params=EXPECTED)
def saved(request):
    return request.param, EXPECTED[request.param], eq.load_sim(FOLDER / request.param)


def test_a_sim_has_its_grids_and_makes_the_same_outputs(saved):
    name, expected, sim = saved
    assert grids(sim) == expected["grids"]
    with np.load(FOLDER / "outputs.npz") as outputs:
        np.testing.assert_array_equal(sim.predict(images(8, 2), verbose=0), outputs[name])


def test_its_plan_and_profile_mean_the_same(saved):
    _, expected, sim = saved
    plan = eq.QuantPlan.from_json(expected["plan"])
    assert plan == sim.record.plan
    assert plan.to_json() == expected["plan"]
    profile = eq.TargetProfile.from_json(expected["profile"])
    assert profile == sim.record.profile
    assert profile.to_json() == expected["profile"]
    again = eq.requantize(sim, check=False)
    if not sim.batch_norms():
        assert grids(again) == expected["grids"]


@pytest.mark.parametrize("name", [n for n in EXPECTED if n not in ("learned.h5", "trained.keras")])
def test_statistics_give_the_same_ranges(name):
    sim, expected = eq.load_sim(FOLDER / name), EXPECTED[name]["grids"]
    for quantizer in sim.quantizers().values():
        quantizer.assign(Encoding(quantizer.spec, np.float32(1.0), np.float32(0.0)))
    derive_activations(sim, sim.stats)
    names = set(sim.quantizers()) & set(expected)
    assert len(names) > 3
    assert {n: grids(sim)[n] for n in names} == {n: expected[n] for n in names}
