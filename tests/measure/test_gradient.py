"""Gradients estimate what measuring finds: exactly on linear models, nearly on others."""

from functools import cache

import numpy as np
import pytest
import tf_keras

import keras_edgeq as eq
from keras_edgeq.analysis.sensitivity import sensitivity
from keras_edgeq.measure import gradient
from tests import reference
from tests.models import inputs_for, make, train_like

L = tf_keras.layers
CANDIDATES = ("W4A8", "W8A8")
SAMPLES = 128


@cache
def linear():
    x = tf_keras.Input((8,), name="x")
    y = L.Dense(5, name="head")(L.Dense(10, name="hidden")(x))
    model = train_like(tf_keras.Model(x, y))
    data = inputs_for(model, 512)
    return model, data, eq.quantize(model, data, "onnxruntime_int8", progress=False)


@cache
def sim_of(hazard, profile="onnxruntime_int8"):
    model = make(hazard)
    data = inputs_for(model, SAMPLES)
    return eq.quantize(model, data, profile, progress=False), data


def estimate(sim, data, candidates=CANDIDATES, **options):
    options = {"measure": "gradient", "progress": False, **options}
    return sensitivity(sim, data, candidates, **options)


def rounding(quantizer, values):
    """Return what a grid adds to values."""
    grid = quantizer.encoding
    return reference.fake_quant(values, grid.scale, grid.zero_point, *grid.bounds) - values


def power(values):
    return float(np.sum(np.float64(values) ** 2))


def closed_form(model, sim, data, name):
    """Return the noise of weights and of tensors that each layer of the linear model adds."""
    first, c, second, d = model.get_weights()
    hidden = data @ first + c
    y = hidden @ second + d
    made = eq.requantize(sim, precision={"*": name})
    layers, tensors = made.quantized_layers(), made.quantizers()
    weights = {
        "hidden": power(data @ rounding(layers["hidden"].quantizers["kernel"], first) @ second),
        "head": power(hidden @ rounding(layers["head"].quantizers["kernel"], second)),
    }
    between = power(rounding(tensors["hidden"], hidden) @ second)
    others = {
        "hidden": power(rounding(tensors["x"], data) @ first @ second) + between,
        "head": power(rounding(tensors["head"], y)) + between,
    }
    return {k: (weights[k] / power(y), others[k] / power(y)) for k in weights}


def test_of_a_linear_model_in_float_all_noise_is_found():
    model, data, sim = linear()
    report = estimate(sim, data, baseline="FP32")
    assert report.base_loss == 0.0
    for name in CANDIDATES:
        exact = closed_form(model, sim, data, name)
        for group, loss in report.ranking(name):
            assert loss == pytest.approx(sum(exact[group]), rel=0.2)


def test_beside_a_rounded_baseline_only_the_change_counts():
    model, data, sim = linear()
    report = estimate(sim, data)
    np.testing.assert_array_equal(report.losses[:, 1], 0.0)
    four, eight = (closed_form(model, sim, data, name) for name in CANDIDATES)
    for group, loss in report.ranking("W4A8"):
        assert loss == pytest.approx(four[group][0] - eight[group][0], rel=0.2)


@pytest.mark.parametrize("hazard", ["shared_in_series"])
def test_of_other_models_it_comes_near_what_is_measured(hazard):
    sim, data = sim_of(hazard)
    names = ("W4A8", "W8A8", "FP16")
    wanted = estimate(sim, data, names, baseline="FP32", measure="sqnr")
    report = estimate(sim, data, names, baseline="FP32")
    assert report.measure == "gradient"
    assert report.groups == wanted.groups
    ratio = report.losses[:, :2] / wanted.losses[:, :2]
    assert np.all((ratio > 0.5) & (ratio < 2.0)), ratio
    assert np.all(report.losses[:, 2] < 1e-5)
    order = [name for name, _ in report.ranking("W4A8")]
    measured = wanted.ranking("W4A8")
    for i, (name, loss) in enumerate(measured):
        for other, less in measured[i + 1 :]:
            assert loss < 2.0 * less or order.index(name) < order.index(other)


def test_what_a_group_lacks_is_no_number():
    sim, data = sim_of("prelu", "litert_int8")
    names = ("W8A8", "W8A16")
    report = estimate(sim, data, names)
    lacks = [[name not in group.candidates for name in names] for group in report.groups]
    assert np.any(lacks)
    np.testing.assert_array_equal(np.isnan(report.losses), lacks)


@pytest.mark.slow
def test_the_same_call_gives_the_same_numbers_and_traces_once(monkeypatch, tmp_path):
    walks = []

    def counted(*args):
        walks.append(args)
        return original(*args)

    original = gradient.compute
    monkeypatch.setattr(gradient, "compute", counted)
    sim, data = sim_of("several_outputs")
    one = estimate(sim, data[:50], batch_size=16)
    assert len(walks) == 1
    two = estimate(sim, data[:50], batch_size=16, resume=tmp_path)
    kept = estimate(sim, data[:50], batch_size=16, resume=tmp_path)
    np.testing.assert_array_equal(two.losses, kept.losses)
    assert kept.passes == 0.0
    np.testing.assert_array_equal(one.losses, two.losses)
    # The float walk, a walk per candidate, and a backward pass as two, per probe and output.
    assert one.passes == pytest.approx(1 + 2 + 2 * 2 * gradient.PROBES)


@pytest.mark.slow
def test_weights_of_gptq_are_taken_as_they_are():
    sim, data = sim_of("residual")
    wanted = estimate(sim, data, baseline="FP32", rounding="gptq", measure="sqnr")
    report = estimate(sim, data, baseline="FP32", rounding="gptq")
    ratio = report.losses / wanted.losses
    assert np.all((ratio > 0.5) & (ratio < 2.0)), ratio


@pytest.mark.slow
def test_a_search_starts_from_it_and_measures_what_it_chooses():
    pytest.importorskip("scipy")
    sim, data = sim_of("residual")
    result = eq.search_mixed_precision(
        sim, data, CANDIDATES, size=0.8, measure="gradient", effort=8.0, progress=False
    )
    assert result.sensitivity.measure == "gradient"
    measured = eq.search_mixed_precision(
        sim, data, CANDIDATES, size=0.8, effort=8.0, progress=False
    )
    assert result.best.loss is not None
    assert measured.best.loss is not None
    assert result.best.loss <= 1.2 * measured.best.loss
