"""A search against brute force, greedy and uniform bits; its work, its limits, its interruption."""

import json
from functools import cache

import numpy as np
import pytest
import tf_keras

import keras_edgeq as eq
from keras_edgeq.analysis.sensitivity import loss_of
from keras_edgeq.errors import EdgeqError, ProfileError, SearchError
from keras_edgeq.measure.evaluation import Evaluation
from keras_edgeq.measure.groups import SearchSpace
from keras_edgeq.measure.precision_study import PrecisionStudy
from keras_edgeq.mixed_precision.cost import CostModel
from keras_edgeq.mixed_precision.solve import brute_force, solve_greedy
from tests.harness import assert_same_arrays, assert_same_state, outputs, snapshot
from tests.models import Input, train_like

L = tf_keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 8, 8, 3)).astype(np.float32)
CANDIDATES = ["W4A8", "W8A8"]
QUIET = {"progress": False, "batch_size": 24}


@cache
def sim_of(profile="litert_int8"):
    x = Input((8, 8, 3))
    y = L.Conv2D(6, 3, activation="relu", name="first")(x)
    z = L.Conv2D(6, 3, padding="same", activation="relu", name="second")(y)
    y = L.Add(name="sum")([y, L.Conv2D(6, 1, name="third")(z)])
    y = L.DepthwiseConv2D(3, name="deep")(y)
    y = L.Conv2D(12, 1, activation="relu", name="wide")(y)
    y = L.GlobalAveragePooling2D(name="pool")(y)
    model = train_like(tf_keras.Model(x, L.Dense(5, name="head")(y)))
    return eq.quantize(model, X, profile, progress=False)


def study_of(**options):
    settings = {"rounding": "nearest", "resume": None, **options}
    return PrecisionStudy(
        SearchSpace(sim_of(), CANDIDATES),
        X,
        settings["rounding"],
        24,
        None,
        10**9,
        settings["resume"],
        False,
    )


@cache
def result_of(size):
    return eq.search_mixed_precision(sim_of(), X, CANDIDATES, size=size, effort=2.0, **QUIET)


def test_it_finds_what_brute_force_finds_and_beats_greedy_and_uniform():
    size = 0.6
    result = result_of(size)
    with study_of() as study:
        groups, base = study.grids.groups, study.grids.uniform("W8A8")
        costs = CostModel(sim_of(), groups, candidates=study.candidates)

        def measured(numbers):
            (loss,) = study.evaluator.measure([costs.choice(numbers)], base)
            return loss_of(loss, "sqnr")

        rows = costs.rows("size", size)
        best = brute_force(measured, costs.allowed, rows)
        greedy = solve_greedy(
            result.sensitivity.losses, *rows[0], costs.numbers(study.grids.uniform("W8A8"))
        )
        uniform = costs.numbers(study.grids.uniform("W4A8"))
        assert result.best.choice == costs.choice(best)
        assert result.best.loss == pytest.approx(measured(best), rel=1e-9)
        assert result.best.loss <= min(measured(greedy), measured(uniform))
    assert result.best.size <= size
    assert result.best.weight_bytes == costs.weight_bytes(result.best.choice)


def test_the_model_is_the_choice_and_the_sim_is_not_changed():
    before = snapshot(sim_of())
    result = result_of(0.6)
    assert_same_state(before, snapshot(sim_of()))
    bits = {
        name: layer.quantizers[layer.kernel_name].spec.bits
        for name, layer in result.model.quantized_layers().items()
    }
    wanted = {name: 4 if p == "W4A8" else 8 for name, p in result.best.choice.items()}
    assert bits == wanted
    assert result.plan is result.model.record.plan
    again = eq.requantize(sim_of(), plan=result.plan)
    assert_same_arrays(outputs(result.model, X), outputs(again, X))


def test_the_curve_falls_and_its_points_are_models():
    result = result_of(0.6)
    costs = [point.size for point in result.points]
    losses = [point.best_known for point in result.points]
    assert costs == sorted(costs)
    assert losses == sorted(losses, reverse=True)
    assert result.best.choice in [point.choice for point in result.points]
    point = result.points[0]
    model = result.model_at(point)
    precisions = {name: model.record.precision[name] for name in point.choice}
    assert precisions == dict(point.choice)


def test_the_work_stays_below_its_bound():
    result = eq.search_mixed_precision(sim_of(), X, CANDIDATES, size=0.7, **QUIET)
    assert result.passes <= 0.6 * len(result.sensitivity.groups) * len(CANDIDATES)


@pytest.mark.slow
def test_max_drop_asks_for_the_smallest_model():
    loose = eq.search_mixed_precision(sim_of(), X, CANDIDATES, max_drop=100.0, **QUIET)
    assert set(loose.best.choice.values()) == {"W4A8"}

    def score(model):
        exact = eq.strip(sim_of()).predict(X, verbose=0)
        return -float(np.mean((model.predict(X, verbose=0) - exact) ** 2) / np.mean(exact**2))

    most = 0.5 * loose.best.loss
    tight = eq.search_mixed_precision(sim_of(), X, CANDIDATES, max_drop=most, score=score, **QUIET)
    assert tight.best.score >= -most
    assert tight.best.size > loose.best.size
    assert tight.best.size < 1.0
    with pytest.raises(SearchError, match="most precise choice within the limits loses"):
        eq.search_mixed_precision(sim_of(), X, CANDIDATES, max_drop=-1.0, **QUIET)


class Stop(Exception):
    """Raised in the middle of a search."""


@pytest.mark.slow
def test_an_interrupted_search_ends_as_one_that_was_not(tmp_path, monkeypatch):
    options = {"size": 0.7, "rounding": "gptq", **QUIET}
    whole = eq.search_mixed_precision(sim_of(), X, CANDIDATES, **options, resume=tmp_path / "a")
    measured = []
    original = Evaluation.measure

    def counted(self, batch, choices, around):
        for found in original(self, batch, choices, around):
            if len(measured) == 9:
                raise Stop
            measured.append(found)
            yield found

    monkeypatch.setattr(Evaluation, "measure", counted)
    folder = tmp_path / "b"
    with pytest.raises(Stop):
        eq.search_mixed_precision(sim_of(), X, CANDIDATES, **options, resume=folder)
    monkeypatch.setattr(Evaluation, "measure", original)
    resumed = eq.search_mixed_precision(sim_of(), X, CANDIDATES, **options, resume=folder)
    assert resumed.best == whole.best
    assert resumed.passes < whole.passes
    assert_same_arrays(outputs(whole.model, X), outputs(resumed.model, X))
    lines = {name: (tmp_path / name / "measured.jsonl").read_text() for name in "ab"}
    keys = [(v["choice"], v["part"]) for v in map(json.loads, lines["b"].splitlines()[1:])]
    assert len(keys) == len(set(keys))  # nothing was measured twice
    repeated = eq.search_mixed_precision(sim_of(), X, CANDIDATES, **options, resume=folder)
    assert repeated.best == whole.best
    assert (folder / "measured.jsonl").read_text() == lines["b"]


@pytest.mark.slow
def test_gptq_rounds_before_it_judges():
    near, rounded = (
        eq.search_mixed_precision(sim_of(), X, CANDIDATES, size=0.6, rounding=how, **QUIET)
        for how in ("nearest", "gptq")
    )
    assert rounded.best.loss < near.best.loss
    assert set(rounded.model.record.rounded.values()) == {"gptq"}
    exact = eq.strip(sim_of()).predict(X, verbose=0)
    noise = [np.sum((r.model.predict(X, verbose=0) - exact) ** 2) for r in (near, rounded)]
    assert noise[1] < noise[0]
    with pytest.raises(SearchError, match="data="):
        rounded.model_at(rounded.points[0])
    model = rounded.model_at(rounded.points[0], X, progress=False)
    assert set(model.record.rounded.values()) == {"gptq"}


@pytest.mark.slow
def test_wider_activations_and_floats_are_candidates():
    names = ["W8A8", "W8A16", "FP16"]
    result = eq.search_mixed_precision(sim_of(), X, names, activation_memory=1200, **QUIET)
    assert result.best.activation_memory <= 1200
    assert result.cost == "activation_memory"
    assert "W8A8" in result.best.choice.values()
    assert len(set(result.best.choice.values())) > 1


def test_operations_are_a_limit():
    result = eq.search_mixed_precision(sim_of(), X, CANDIDATES, bitops=0.7, **QUIET)
    assert result.cost == "bitops"
    assert result.best.bitops <= 0.7 * max(point.bitops for point in result.points)
    assert result.points[-1].bitops > result.best.bitops


def test_a_mixed_model_of_all_kinds_is_exported_and_verified(tmp_path):
    names = ["W4A8", "W8A8", "W8A16", "FP32"]
    plan = sim_of().record.plan
    for layer, name in zip(("first", "deep", "wide", "head"), names, strict=True):
        plan = plan.with_bits(layer, precision=name)
    sim = eq.requantize(sim_of(), plan=plan)
    report = eq.export(sim, tmp_path, ["tflite", "onnx", "encodings"], verify=X, progress=False)
    assert all(run.agrees for run in report.runs)


BAD = (
    ({}, SearchError, "Say what the model may cost"),
    ({"size": 0.2}, SearchError, r"impossible.*takes 0\.5"),
    ({"size_bytes": 10}, SearchError, "impossible"),
    ({"size": 0.7, "measure": "psnr"}, SearchError, "measure must be one of"),
    ({"size": 0.7, "rounding": "up"}, EdgeqError, "rounding must be one of"),
    ({"size": 0.7, "candidates": ["W8A8"]}, ProfileError, "two candidates"),
    ({"size": 0.7, "candidates": ["W8A8", "W3A3"]}, ProfileError, "W3A3"),
    ({"size": 0.7, "score": lambda model: float("nan")}, EdgeqError, "finite number"),
    ({"max_drop": 1.0, "score": lambda model: None}, EdgeqError, "finite number"),
)


@pytest.mark.parametrize(("options", "error", "text"), BAD, ids=[text[:12] for *_, text in BAD])
def test_bad_requests(options, error, text):
    with pytest.raises(error, match=text):
        eq.search_mixed_precision(sim_of(), X, **{"candidates": CANDIDATES, **options}, **QUIET)


def test_what_was_rounded_already_is_not_searched():
    rounded = eq.gptq(sim_of(), X, progress=False)
    with pytest.raises(EdgeqError, match="lie on their grids already"):
        eq.search_mixed_precision(rounded, X, CANDIDATES, size=0.7, **QUIET)


def test_resume_of_another_run(tmp_path):
    eq.analysis.sensitivity(sim_of(), X, CANDIDATES, resume=tmp_path, **QUIET)
    with pytest.raises(EdgeqError, match="another run"):
        eq.analysis.sensitivity(sim_of(), X + 1.0, CANDIDATES, resume=tmp_path, **QUIET)


@pytest.mark.slow
def test_keep_worst_widens_the_layers_that_lose_most():
    sim = sim_of()
    report = eq.analysis.sensitivity(sim, X, ["W8A8", "FP32"], baseline="FP32", **QUIET)
    ranked = [name for name, _ in report.ranking("W8A8")]
    better = eq.keep_worst(sim, X, 34.0, "W8A16", **QUIET)
    wide = {n for n, name in better.record.precision.items() if name == "W8A16"} & set(ranked)
    assert wide == set(ranked[:3])
    with pytest.raises(SearchError, match="percent"):
        eq.keep_worst(sim, X, 0.0, **QUIET)
    with pytest.raises(SearchError, match="has no layer left"):
        eq.keep_worst(eq.requantize(sim, precision={"*": "W8A16"}), X, **QUIET)
