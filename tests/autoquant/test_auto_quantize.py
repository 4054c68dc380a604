"""AutoQuant: targets met and missed, stages, interruption, the split, and what goes wrong."""

import csv
import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import tf_keras

import keras_edgeq as eq
from keras_edgeq.autoquant import mixture, stages
from keras_edgeq.autoquant.judge import AGREEMENT, Judge
from keras_edgeq.autoquant.mixture import candidate_sets, latency_ms, quicker
from keras_edgeq.autoquant.split import split
from keras_edgeq.autoquant.stages import STAGES
from keras_edgeq.errors import CalibrationDataError, EdgeqError, QuantizationWarning
from keras_edgeq.streams.store import TensorStore
from tests.models import Input, train_like

L = tf_keras.layers
X = np.random.default_rng(0).normal(size=(96, 8, 8, 3)).astype(np.float32)
QUIET = {"progress": False, "batch_size": 12}
DONE = ("calibrate", *(stage.name for stage in STAGES))


@cache
def network():
    """A residual network whose 4-bit sim loses visibly, and more so with one scale per tensor."""
    x = Input((8, 8, 3))
    y = L.Conv2D(6, 3, activation="relu", name="first")(x)
    y = L.Add(name="sum")([y, L.Conv2D(6, 3, padding="same", name="second")(y)])
    y = L.DepthwiseConv2D(3, activation="relu", name="deep")(y)
    y = L.GlobalAveragePooling2D(name="pool")(L.Conv2D(12, 1, name="wide")(y))
    return train_like(tf_keras.Model(x, L.Dense(5, name="head")(y)))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(stages, "ITERATIONS", 20)


def auto(profile="litert_w4a8", data=X, **options):
    return eq.auto_quantize(network(), data, profile, **{**QUIET, **options})


def same(one, other):
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_is_good_enough_at_once_is_only_calibrated():
    result = auto("litert_int8", max_drop=50.0)
    assert result.met
    assert [one.stage for one in result.history] == ["calibrate"]
    assert result.history[0].met
    assert result.measure == AGREEMENT
    fitted = [X[i] for i in range(96) if i % 4 < 2]
    same(result.sim, eq.quantize(network(), np.stack(fitted), "litert_int8", progress=False))


@pytest.mark.filterwarnings("ignore::keras_edgeq.QuantizationWarning")
def test_the_score_at_the_end_is_of_samples_that_no_stage_saw():
    result = auto("litert_int8", max_drop=50.0)
    unseen = X[np.arange(96) % 4 == 3]
    wanted = network().predict(unseen, verbose=0).argmax(-1)
    made = result.sim.predict(unseen, verbose=0).argmax(-1)
    assert result.score == pytest.approx(100.0 * np.mean(wanted == made))
    assert not result.seen
    assert "48 samples to fit to, 24 to choose by, 24 to judge by" in str(result)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::keras_edgeq.QuantizationWarning")
def test_what_cannot_be_met_gives_the_best_and_says_what_would_help():
    trained = []

    def train(sim):
        trained.append(sim)

    result = auto(min_score=101.0, train=train, strict=False)
    assert not result.met
    assert tuple(one.stage for one in result.history) == DONE
    assert len(trained) == 1
    done = [one for one in result.history if one.score == one.score]
    best = max(done, key=lambda one: (one.score, one.sqnr_db))
    assert done[0].kept
    assert max(one.score for one in done if one.kept) == best.score
    assert result.advice
    assert "Target not met" in str(result)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::keras_edgeq.QuantizationWarning")
def test_more_bits_for_some_layers_meet_what_four_bits_do_not():
    result = auto(max_drop=4.0)
    assert result.met
    uniform = eq.quantize(network(), X, "litert_int8", progress=False)
    bits = [grid.bits for grid in eq.grids(result.sim) if grid.kind == "weight"]
    assert 4 in bits
    last = result.history[-1]
    assert last.met
    assert last.bytes <= max(
        one.bytes for one in auto("litert_int8", data=X, max_drop=99.0).history
    )
    assert set(bits) <= {4, 8}
    assert uniform.record.profile.name == "litert_int8"


class Killed(BaseException):
    """Not an error that anything may catch."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::keras_edgeq.QuantizationWarning")
def test_a_run_that_is_killed_in_any_stage_goes_on_to_the_same_result(tmp_path, monkeypatch):
    options = {"min_score": 101.0, "train": lambda sim: None, "strict": False}
    whole = auto(**options, folder=tmp_path / "whole")
    ran = [one.stage for one in whole.history[1:] if one.score == one.score]
    made = []

    def watched(stage, victim):
        def make(state):
            made.append(stage.name)
            if stage.name == victim:
                raise Killed
            yield from stage.make(state)

        return replace(stage, make=make)

    for victim in ran:
        with monkeypatch.context() as patch:
            watch = tuple(watched(stage, victim) for stage in STAGES)
            patch.setattr("keras_edgeq.autoquant.run.STAGES", watch)
            with pytest.raises(Killed):
                auto(**options, folder=tmp_path / "killed")
    # Each stage was begun once and killed once; none that was done is done again.
    assert made == [name for i, name in enumerate(ran) for name in ran[max(i - 1, 0) : i + 1]]
    resumed = auto(**options, folder=tmp_path / "killed")
    same(resumed.sim, whole.sim)
    assert (resumed.score, resumed.met) == (whole.score, whole.met)
    reused = [one for one in resumed.history if one.note == "read from the folder"]
    assert [one.stage for one in reused] == ran[:-1]


@pytest.mark.filterwarnings("ignore::keras_edgeq.QuantizationWarning")
def test_a_stage_that_fails_ends_the_run_or_is_a_row(monkeypatch):
    def fails(state):
        yield from ()
        raise EdgeqError("no disk")

    broken = tuple(
        replace(one, asks=(), make=fails) if one.name != "training" else one
        for one in STAGES
        if one.name in ("gptq", "adaround", "training")
    )
    monkeypatch.setattr("keras_edgeq.autoquant.run.STAGES", broken)
    with pytest.raises(EdgeqError, match="no disk"):
        auto(min_score=101.0)
    result = auto(min_score=101.0, strict=False)
    assert [one.note for one in result.history[1:3]] == ["failed: no disk"] * 2
    assert result.history[3].note == "no train= was given"
    same(result.sim, eq.quantize(network(), fitted(), "litert_w4a8", progress=False))


def fitted():
    return X[np.arange(96) % 4 < 2]


@pytest.mark.filterwarnings("ignore::keras_edgeq.QuantizationWarning")
def test_no_stage_is_begun_past_the_budget():
    result = auto(min_score=101.0, budget=0.0)
    assert {one.note for one in result.history[1:]} == {"the budget was spent"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::keras_edgeq.QuantizationWarning")
def test_training_gets_a_sim_of_its_own_and_may_return_another(monkeypatch):
    last = tuple(one for one in STAGES if one.name == "training")
    monkeypatch.setattr("keras_edgeq.autoquant.run.STAGES", last)
    wide = eq.quantize(network(), fitted(), "litert_int8", progress=False)
    given = []
    result = auto(min_score=101.0, train=lambda sim: given.append(sim) or wide)
    assert result.sim is wide
    assert isinstance(given[0], eq.QuantSim)
    assert result.history[1].kept


def test_a_metric_is_read_off_the_labels_of_each_part():
    y = network().predict(X, verbose=0).argmax(-1)
    y[::5] = (y[::5] + 1) % 5
    result = auto("litert_int8", data=(X, y), score="accuracy", max_drop=0.5)
    choose = np.arange(96) % 4 == 2
    floats = network().predict(X, verbose=0).argmax(-1)
    assert result.measure == "accuracy"
    assert result.float_score == pytest.approx(np.mean(floats[choose] == y[choose]))
    assert result.least == pytest.approx(result.float_score - 0.5)
    made = result.sim.predict(X, verbose=0).argmax(-1)
    unseen = np.arange(96) % 4 == 3
    assert result.score == pytest.approx(np.mean(made[unseen] == y[unseen]))
    by_batch = [np.mean((made == y)[start : start + 24][2::4]) for start in range(0, 96, 24)]
    error = np.std(by_batch, ddof=1) / 2.0
    assert result.history[0].error == pytest.approx(error)
    with pytest.raises(CalibrationDataError, match="no labels"):
        auto("litert_int8", score="accuracy", max_drop=0.1)


@pytest.mark.slow
def test_the_samples_of_a_function_judge_the_end_too_which_is_said():
    result = auto("litert_int8", score=lambda m: float(np.mean(m(X))), max_drop=1.0)
    assert result.seen
    assert result.error != result.error
    assert "on the samples that stages were chosen by" in str(result)


def test_parts_have_no_samples_in_common_and_all_of_them():
    data = (np.arange(96 * 192).reshape(96, 8, 8, 3).astype(np.float32), np.arange(96))
    with TensorStore(10**9) as store:
        made = split(data, network(), store, "accuracy", 12, None)
        parts = (made.fit, made.choose, made.test)
        labels = [np.concatenate(part.labels) for part in parts]
        firsts = [
            np.concatenate([np.asarray(b[0])[:, 0, 0, 0] for b in part.batches]) for part in parts
        ]
    assert [part.samples for part in parts] == [48, 24, 24]
    assert sorted(np.concatenate(labels)) == list(range(96))
    for first, label in zip(firsts, labels, strict=True):
        np.testing.assert_array_equal(first, 192.0 * label)


def test_agreement_has_an_error_even_where_all_agree():
    with TensorStore(10**9) as store:
        part = split(X, network(), store, None, 12, None).choose
        judged = Judge(network(), part, None, store)(network())
    share = 26 / 28
    assert judged.score == 100.0
    assert judged.error == pytest.approx(100.0 * np.sqrt(share * (1 - share) / 28))


WRONG = {
    "max_drop=, or what must be reached": {},
    "max_drop is -1.0": {"max_drop": -1.0},
    "score of .* is nan": {"score": lambda m: float("nan"), "max_drop": 1.0},
    "has 3 samples": {"data": X[:3], "max_drop": 1.0},
    "Unknown profile": {"profile": "litert_int9", "max_drop": 1.0},
}


@pytest.mark.parametrize("message", WRONG)
def test_what_cannot_be_done_is_one_error(message):
    with pytest.raises(EdgeqError, match=f"(?i){message}"):
        auto(**{"profile": "litert_int8", **WRONG[message]})


def test_a_model_without_classes_needs_a_score():
    x = Input((2,))
    model = tf_keras.Model(x, L.Dense(1)(x))
    with pytest.raises(EdgeqError, match="Give score="):
        eq.auto_quantize(model, X[:16, 0, 0, :2], max_drop=1.0, **QUIET)


def test_few_samples_are_said_to_be_few():
    with pytest.warns(QuantizationWarning, match="2 samples to choose by cannot tell a drop of 1"):
        result = auto("litert_int8", data=X[:8], max_drop=1.0, budget=0.0)
    assert result.split.startswith("4 samples to fit to, 2 to choose by, 2 to judge by")


def test_sets_of_precisions_go_from_the_cheapest_to_float():
    assert candidate_sets(eq.load_profile("litert_int8")) == [
        ("W8A8",),
        ("W8A8", "W8A16"),
        ("W8A8", "FP32"),
    ]
    assert candidate_sets(eq.load_profile("litert_w4a8"))[0] == ("W4A8", "W8A8")


def test_a_mixture_that_does_not_pay_on_the_runtime_is_not_kept(monkeypatch):
    sim = eq.quantize(network(), X, "litert_int8", progress=False)
    wide, floats = (eq.requantize(sim, precision={"*": name}) for name in ("W8A16", "FP32"))
    assert latency_ms(wide) > 0.0
    times = {id(wide): 3.0, id(floats): 1.0}
    monkeypatch.setattr(mixture, "latency_ms", lambda one: times[id(one)])
    assert quicker(wide, floats) is floats
    times[id(wide)] = 1.4
    assert quicker(wide, floats) is wide
    times[id(wide)] = None
    assert quicker(wide, floats) is wide


def test_a_result_is_shown_and_saved(tmp_path):
    result = auto("litert_int8", max_drop=50.0)
    assert repr(result).startswith("<AutoQuantResult: met, agreement, %")
    assert "<table" in result._repr_html_()
    for name in ("r.json", "r.csv", "r.png", "r.html"):
        result.save(tmp_path / name)
    values = json.loads((tmp_path / "r.json").read_text())
    assert values["history"][0]["stage"] == "calibrate"
    assert values["diagnosis"]["samples"] > 0
    with (tmp_path / "r.csv").open() as file:
        assert [row["stage"] for row in csv.DictReader(file)] == ["calibrate"]
    assert "Target met" in (tmp_path / "r.html").read_text()
