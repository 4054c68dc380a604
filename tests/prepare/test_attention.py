"""Attention, by layers of Keras and by hand, is projections and products in integers."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.ops import op_type
from keras_edgeq.prepare import prepare
from tests.prepare.attention_cases import LAYERS, WRITTEN, X, built
from tests.short import short

L = tf_keras.layers
CASES = {**LAYERS, **WRITTEN}
OFTEN = (
    *("float mask", "integer mask", "causal and a mask", "padding", "two attention axes"),
    *("Attention by sums", "Attention, masked", "AdditiveAttention", "Softmax with a mask"),
    *("1 - mask", "subtracted", "ranges"),
)


def outputs(model, data):
    return tf.nest.flatten(model.predict(data, verbose=0))


def ops(model):
    return [op_type(node.layer) for node in LayerGraph.of(model).nodes]


def sqnr(wanted, got):
    return 10 * np.log10((wanted**2).sum() / ((wanted - got) ** 2).sum())


@pytest.mark.parametrize("name", short(CASES, *OFTEN))
@pytest.mark.filterwarnings("ignore:Variables of")
def test_attention_is_opened_and_computes_the_same(name):
    model, data = built(CASES[name])
    prepared = prepare(model)
    for wanted, got in zip(outputs(model, data), outputs(prepared, data), strict=True):
        np.testing.assert_allclose(wanted, got, atol=2e-6 * np.abs(wanted).max())
    made = set(ops(prepared))
    assert not {"MultiHeadAttention", "Attention", "AdditiveAttention", "SoftmaxOverAxis"} & made
    assert "Div" not in made


@pytest.mark.parametrize("name", short(CASES, "integer mask", "1 - cast"))
@pytest.mark.filterwarnings("ignore:Variables of")
def test_attention_computes_in_integers(name):
    model, data = built(CASES[name])
    sim = eq.quantize(model, data, progress=False)
    assert not sim.record.plan.floats
    for wanted, got in zip(outputs(model, data), outputs(sim, data), strict=True):
        assert sqnr(wanted, got) > 25


@pytest.mark.parametrize("name", short(CASES, "padding"))
@pytest.mark.filterwarnings("ignore:Variables of")
def test_files_of_attention_compute_what_the_sim_does(name, tmp_path):
    model, data = built(CASES[name])
    sim = eq.quantize(model, data, progress=False)
    report = eq.export(sim, tmp_path, ["tflite", "onnx"], verify=data, progress=False)
    assert {run.verdict for run in report.runs} <= {"same", "kernel"}


def test_projections_are_named_and_hold_the_scale():
    model, _ = built(LAYERS["self"])
    prepared = prepare(model)
    made = {layer.name: op_type(layer) for layer in prepared.layers}
    for part in ("query", "key", "value", "attention_output"):
        assert made[f"mha/{part}"] == "EinsumDense"
    assert "Mul" not in made.values()
    kernel, bias = model.get_layer("mha").get_weights()[:2]
    held = prepared.get_layer("mha/query").get_weights()
    for got, wanted in zip(held, (kernel, bias), strict=True):
        np.testing.assert_array_equal(got, wanted / 2)


def test_numbers_that_scale_products_become_part_of_a_projection():
    model, _ = built(WRITTEN["no mask"])
    assert not {"Div", "Mul"} & set(ops(prepare(model)))
    x = L.Input((6, 8))
    y = L.Dense(8)(x)
    shared = tf.matmul(y, y, transpose_b=True) * 0.5  # both factors are one tensor
    model = tf_keras.Model(x, tf.matmul(tf.nn.softmax(shared), y))
    prepared = prepare(model)
    np.testing.assert_allclose(model(X), prepared(X), rtol=1e-5)
    assert ops(prepared).count("Mul") == 1


def test_a_mask_made_of_booleans_selects_where_it_is_multiplied():
    x, kept = L.Input((6, 8)), L.Input((6,), dtype="bool")
    model = tf_keras.Model([x, kept], L.Dense(8)(x) * tf.cast(kept, tf.float32)[:, :, None])
    assert ops(prepare(model))[-1] == "Select"


def test_masks_of_real_numbers_that_are_no_masks_stay_sums():
    x, bias = L.Input((6, 8)), L.Input((6, 6))
    scores = tf.matmul(L.Dense(8)(x), L.Dense(8)(x), transpose_b=True)
    model = tf_keras.Model([x, bias], tf.nn.softmax(scores + bias * -2.0))
    assert "Select" not in ops(prepare(model))
