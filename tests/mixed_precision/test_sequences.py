"""Searches over the kernels of attention and of recurrent cells."""

import numpy as np
import onnx
import pytest
import tf_keras

import keras_edgeq as eq
from keras_edgeq.numerics.metrics import sqnr_db
from tests.models import inputs_for
from tests.sequence_models import attention, recurrent

L = tf_keras.layers


PARTS = ("query", "key", "value", "attention_output")
CELL = ("gates_kernel", "candidate_kernel", "gates_recurrent", "candidate_recurrent")
MODELS = {
    "attention": (attention, {*(f"mha/{part}" for part in PARTS), "wide", "head"}),
    "lstm": (lambda: recurrent(L.LSTM(6, name="cell")), {*(f"cell/{p}" for p in CELL), "head"}),
    "gru": (lambda: recurrent(L.GRU(6, name="cell")), {*(f"cell/{p}" for p in CELL), "head"}),
}


@pytest.mark.parametrize("profile", ["litert_int8", "onnxruntime_int8"])
def test_layers_without_a_kernel_of_any_candidate_keep_the_precision_of_the_profile(profile):
    model = attention()
    x = inputs_for(model)
    sim = eq.quantize(model, x, profile, progress=False)
    report = eq.analysis.sensitivity(sim, x, ["W4A8", "W8A16"], progress=False)
    assert {group.name for group in report.groups} == MODELS["attention"][1]
    assert np.all(np.isfinite(report.losses))


@pytest.mark.parametrize(
    ("name", "profile"),
    [
        ("lstm", "litert_int8"),
        *(
            pytest.param(name, profile, marks=pytest.mark.slow)
            for name in MODELS
            for profile in ("litert_int8", "onnxruntime_int8")
            if (name, profile) != ("lstm", "litert_int8")
        ),
    ],
)
def test_a_mix_of_kernels_of_cells_and_attention_is_in_the_sim_and_the_file(
    name, profile, tmp_path
):
    make, kernels = MODELS[name]
    model = make()
    x = inputs_for(model, samples=32)
    sim = eq.quantize(model, x, profile, progress=False)
    found = eq.search_mixed_precision(
        sim, x, candidates=["W8A8", "W4A8", "W8A16"], size=0.7, progress=False
    )
    assert set(found.best.choice) >= kernels
    plan = found.model.record.plan.kernels
    assert {layer: plan[layer].precision for layer in found.best.choice} == found.best.choice
    measured = -10.0 * np.log10(found.best.loss)
    assert measured == pytest.approx(sqnr_db(model(x).numpy(), found.model(x).numpy()), abs=0.5)
    form = "tflite" if profile == "litert_int8" else "onnx"
    report = eq.export(found.model, tmp_path, [form], verify=x, progress=False)
    assert all(run.verdict in ("same", "kernel", "amplified") for run in report.runs)
    if form == "tflite":
        assert report.constant_bytes["int4"]
    else:
        weights = onnx.load(report.files["onnx"]).graph.initializer
        assert any(one.data_type == onnx.TensorProto.UINT4 for one in weights)
