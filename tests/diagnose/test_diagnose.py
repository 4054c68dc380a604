"""`diagnose`: numbers by hand, every kind of sim, files, and errors."""

import csv
import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.files.json_text import finite
from keras_edgeq.numerics.metrics import sqnr_db
from tests.models import inputs_for, make
from tests.short import short

L = tf_keras.layers


def quantized(model, x, profile="litert_int8", **options):
    return eq.quantize(model, x, profile, progress=False, **options)


def diagnosed(sim, x, **options):
    return eq.diagnose(sim, x, **{"remedies": 0, "verify": False, "progress": False, **options})


@pytest.fixture(scope="module")
def dense():
    """One Dense layer, its sim with clipped grids, data, and the diagnosis of the judged half."""
    rng = np.random.default_rng(0)
    inputs = L.Input((6,), name="x")
    model = tf_keras.Model(inputs, L.Dense(3, name="dense")(inputs))
    model.get_layer("dense").set_weights([rng.normal(size=(6, 3)), rng.normal(size=3)])
    x = rng.normal(size=(64, 6)).astype("float32")
    sim = quantized(model, x / 2)
    return model, sim, x, diagnosed(sim, x)


def on_grid(values, encoding, clip=True, rounds=True):
    """Return numbers on a grid in float64; without its ends, or without its steps."""
    scale, zero = np.float64(encoding.scale), np.float64(encoding.zero_point)
    low, high = encoding.bounds
    steps = values / scale + zero
    if rounds and clip:
        steps = np.clip(np.rint(steps), low, high)
    elif rounds:
        steps = np.rint(steps)
    else:
        steps = np.clip(steps, low, high)
    return (steps - zero) * scale


def power_db(wanted, got):
    return 10 * np.log10(np.square(wanted).sum() / np.square(got - wanted).sum())


def test_errors_and_their_causes_are_those_by_hand(dense):
    model, sim, x, found = dense
    judged = x[32:]
    kernel, bias = (np.float64(w) for w in model.get_layer("dense").get_weights())
    grids = {name: q.encoding for name, q in sim.quantizers().items()}
    reads, makes = grids["x"], grids["dense"]
    layer = sim.get_layer("dense")
    rounded = on_grid(kernel, layer.quantizers["kernel"].encoding)
    step = np.float64(reads.scale) * np.float64(layer.quantizers["kernel"].encoding.scale)
    whole = np.rint(bias / step.ravel()) * step.ravel()
    exact = judged @ kernel + bias
    given = on_grid(judged, reads)
    signal = np.square(exact).sum()
    row = next(one for one in found.tensors if one.tensor == "dense")

    own = on_grid(judged @ rounded + whole, makes)
    total = on_grid(given @ rounded + whole, makes)
    assert row.own_db == pytest.approx(power_db(exact, own), abs=0.05)
    assert row.total_db == pytest.approx(power_db(exact, total), abs=0.05)
    inherited = 10 * np.log10(signal / np.square(total - own).sum())
    assert row.inherited_db == pytest.approx(inherited, abs=0.05)
    cosine = (exact * total).sum() / np.sqrt(signal * np.square(total).sum())
    assert row.cosine == pytest.approx(cosine, rel=1e-5)
    causes = {
        "weight rounding": judged @ rounded + whole,
        "bias": judged @ kernel + whole,
        "activation rounding": on_grid(exact, makes, clip=False),
        "activation clipping": on_grid(exact, makes, rounds=False),
    }
    for cause, got in causes.items():
        noise = np.square(got - exact).sum() / signal
        assert row.noise[cause] == pytest.approx(noise, rel=0.02, abs=1e-10), cause
    assert row.noise["weight clipping"] == pytest.approx(0.0, abs=1e-10)
    half = float(makes.scale) / 2
    beyond = (exact < float(makes.min) - half) | (exact > float(makes.max) + half)
    assert row.clipped == pytest.approx(beyond.mean())
    assert (row.low, row.high) == pytest.approx((exact.min(), exact.max()), rel=1e-5)


def test_switches_are_single_quantizers_by_hand(dense):
    model, sim, x, found = dense
    judged = x[32:48]  # half of the samples
    kernel, bias = (np.float64(w) for w in model.get_layer("dense").get_weights())
    reads, makes = (sim.quantizers()[name].encoding for name in ("x", "dense"))
    layer = sim.get_layer("dense")
    rounded = on_grid(kernel, layer.quantizers["kernel"].encoding)
    exact = judged @ kernel + bias
    alone = {
        "x": on_grid(judged, reads) @ kernel + bias,
        "dense": on_grid(exact, makes),
    }
    without = {
        "x": on_grid(judged @ rounded + bias, makes),
        "dense": on_grid(judged, reads) @ rounded + bias,
    }
    for row in found.tensors:
        assert row.switch.alone_db == pytest.approx(power_db(exact, alone[row.tensor]), abs=0.1)
        assert row.switch.without_db == pytest.approx(power_db(exact, without[row.tensor]), abs=0.1)
    (weights,) = found.weights
    assert weights.sqnr_db == pytest.approx(power_db(kernel, rounded), abs=0.01)
    assert weights.switch.alone_db == pytest.approx(
        power_db(exact, judged @ rounded + bias), abs=0.1
    )
    np.testing.assert_allclose(weights.low, kernel.min(0), rtol=1e-6)
    np.testing.assert_allclose(weights.high, kernel.max(0), rtol=1e-6)
    integers = np.rint(on_grid(judged, reads) / float(reads.scale)) @ np.rint(
        rounded / np.float64(layer.quantizers["kernel"].encoding.scale)
    )
    assert weights.accumulator > np.abs(integers).max() / 2
    assert weights.accumulator <= weights.accumulator_bound < weights.accumulator_limit


KINDS = {
    "residual": "litert_int8",
    "several_outputs": "onnxruntime_int8",
    "dicts": "litert_int8",
    "unsorted_inputs": "qnn_w8a8",
    "shared_layer": "litert_int8_per_tensor",
    "nested_twice": "litert_w4a8",
    "attention": "litert_int8",
    "recurrent": "litert_int8",
    "embedding": "litert_int8",
    "op_constants": "litert_int16x8",
    "transposed": "qnn_fp16",
    "mixed_precision": "litert_int8",
    "one_channel": "tensorrt_int8",
}


@pytest.mark.filterwarnings("ignore::keras_edgeq.QuantizationWarning")
@pytest.mark.parametrize("kind", short(KINDS, "dicts"))
def test_every_sim_is_diagnosed_whole(kind, tmp_path):
    model = make(kind)
    x = inputs_for(model, 16)
    sim = quantized(model, x, KINDS[kind])
    before = [layer.get_weights() for layer in sim.layers]
    found = diagnosed(sim, x, remedies=1)
    assert {one.tensor for one in found.tensors} >= set(sim.quantizers())
    assert {one.layer for one in found.weights} == set(sim.quantized_layers())
    assert {one.layer for one in found.graph} >= {one.layer for one in found.findings if one.layer}
    for old, layer in zip(before, sim.layers, strict=True):
        for one, other in zip(old, layer.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
    found.save(tmp_path / "found.json")
    found.save(tmp_path / "found.csv")
    made = json.loads((tmp_path / "found.json").read_text())
    assert [one["tensor"] for one in made["tensors"]] == [one.tensor for one in found.tensors]
    rows = list(csv.DictReader((tmp_path / "found.csv").read_text().splitlines()))
    assert [row["tensor"] for row in rows] == [one.tensor for one in found.tensors]
    assert str(found)
    assert found._repr_html_()
    assert repr(found)


def test_the_same_call_gives_the_same_findings(dense):
    _, sim, x, found = dense
    again = diagnosed(sim, x).to_json()
    wanted = found.to_json()
    for one in (again, wanted):
        del one["seconds"], one["remedy_seconds"]
    assert again == wanted


def test_scores_and_gains_are_of_samples_that_remedies_do_not_see():
    model = make("residual")
    x = inputs_for(model, 32)
    seen = []

    def score(judged):
        seen.append(judged.name)
        return float(np.mean(np.asarray(judged(x)) > 0))

    found = diagnosed(quantized(model, x / 4), x, score=score, remedies=1)
    assert found.score is not None
    assert found.float_score == pytest.approx(np.mean(model(x) > 0))
    trial = found.findings[0].best
    assert trial.gain_score == pytest.approx(trial.score - found.score)
    assert "score" in str(found)
    assert found.samples == 16


def test_a_budget_of_nothing_tries_nothing(dense):
    _, sim, x, _ = dense
    found = diagnosed(sim, x, remedies=3, budget=-1.0)
    assert not any(one.trials for one in found.findings)


def test_the_file_is_run_and_its_errors_stand_beside_the_others(dense):
    _, sim, x, _ = dense
    found = diagnosed(sim, x, verify=True)
    assert found.runs
    assert all(run.verdict in ("same", "kernel") for run in found.runs)
    assert any("kernel arithmetic" in one.noise for one in found.tensors)


WITH_FILES = {kind: KINDS[kind] for kind in ("several_outputs", "dicts", "unsorted_inputs")}


@pytest.mark.filterwarnings("ignore::keras_edgeq.QuantizationWarning")
@pytest.mark.parametrize("kind", short(WITH_FILES, "dicts"))
def test_the_file_is_scored_and_timed_beside_the_float_file(kind):
    model = make(kind)
    x = inputs_for(model, 16)
    sim = quantized(model, x, WITH_FILES[kind])
    calls = []

    def score(judged):
        made = tf.nest.flatten([judged.predict(x, verbose=0), judged(x)])
        calls.append([np.asarray(part) for part in made])
        return float(np.mean([np.sum(part, dtype=np.float64) for part in calls[-1]]))

    found = diagnosed(sim, x, verify=True, score=score, remedies=0)
    floats, file = found.files
    assert (floats.name, file.name) == ("float file", "file")
    assert floats.latency_ratio == 1.0
    assert file.latency_ratio > 0.0
    assert floats.size_bytes > 0
    assert file.metric == pytest.approx(found.score, rel=0.2)
    for made, wanted in zip(calls[1], calls[0], strict=True):
        assert made.shape == wanted.shape
        assert sqnr_db(wanted, made) > 20.0
    text = str(found)
    assert f"file on {file.runtime}: {file.size_bytes:,} bytes" in text
    assert json.loads(json.dumps(finite(found.to_json())))["files"][1]["metric"] == file.metric


def test_a_score_that_asks_for_more_than_predictions_is_said_to_fail_on_the_file(dense):
    _, sim, x, _ = dense

    def score(model):
        return float(np.mean(model(x))) + 0.0 * len(model.get_layer("dense").weights[0].shape)

    file = diagnosed(sim, x, verify=True, score=score, remedies=0).files[1]
    assert file.metric is None
    assert "the score failed on it: IndexError" in file.failed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": lambda m: float("nan")}, "score of .* is nan"),
        ({"score": lambda m: "good"}, "must be a finite number"),
        ({"remedies": -1}, "remedies"),
        ({"samples": 0}, "samples"),
    ],
)
def test_bad_options_are_refused(dense, options, message):
    _, sim, x, _ = dense
    with pytest.raises(eq.EdgeqError, match=message):
        diagnosed(sim, x, **options)


def test_what_is_no_sim_or_no_data_is_refused(dense):
    model, sim, x, _ = dense
    with pytest.raises(eq.EdgeqError, match="quantize"):
        diagnosed(model, x)
    with pytest.raises(eq.EdgeqError, match="shape"):
        diagnosed(sim, x[:, :3])
    with pytest.raises(eq.EdgeqError, match="NaN"):
        diagnosed(sim, np.full_like(x, np.nan))
