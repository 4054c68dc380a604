"""Exported TFLite files run in LiteRT with XNNPACK and are compared with the sim, op by op."""

from functools import cache

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import ExportError
from keras_edgeq.export.marked import MarkedModel
from keras_edgeq.export.tflite.convert import to_tflite
from keras_edgeq.export.tflite.markers import take_markers
from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.prepare import prepare
from keras_edgeq.profiles import load_profile
from keras_edgeq.runtime.litert import LiteRtModel
from keras_edgeq.runtime.tflite_file import TfliteGraph, with_tensors
from keras_edgeq.runtime.walk import walk
from keras_edgeq.sim.insert import insert
from keras_edgeq.sim.quant_sim import SimRecord, quantized_tensors
from keras_edgeq.sim.resolve import resolve
from tests.models import inputs_for, make, train_like

L = tf_keras.layers

EXACT = (
    "residual", "shared_layer", "shared_in_series", "unsorted_inputs", "several_outputs", "dicts",
    "op_constants", "op_silu", "depth_multiplier", "grouped", "dense_rank3", "embedding",
    "dynamic_size", "preprocessing", "pools", "upsampling", "moves", "more_moves", "caps",
    "fixed_meets_free", "fused_activations",
    "zero_channel", "dead_channel", "constant_activation", "einsum_dense",
)  # fmt: skip
ISLANDS = {"lambda_island": "island", "conv3d": "conv3d"}
# What LiteRT computes in fixed point instead of in float as XNNPACK does most ops.
ONE_STEP = {
    "op_layers": {"Mul"},
    "conv1d": {"AveragePool"},
    "transposed": {"ConvTranspose1D", "ConvTranspose2D+relu"},
    "separate_activations": {"LeakyRelu"},
    "prelu": {"PRelu"},
    "written_out": {"MatMul"},
}


def quantized(model, x, profile="litert_int8"):
    return eq.quantize(model, x, profile=profile, progress=False)


@cache
def hazard_sim(hazard):
    model = make(hazard)
    x = inputs_for(model)
    return quantized(model, x), x


@cache
def exported(hazard):
    return to_tflite(hazard_sim(hazard)[0])


def arrays(x):
    return list(x.values()) if isinstance(x, dict) else [x]


def steps_of(sim, x, artifact):
    """Run the file with XNNPACK and compare every quantized tensor with the sim."""
    probe = LiteRtModel(with_tensors(artifact.content, quantized_tensors(sim)), "xnnpack")
    inputs = arrays(x)
    return walk(sim, inputs, probe.tensors(inputs, sim.input_names))


def float_ops(graph):
    """Return the names of ops that compute with real numbers in float."""
    outside = {"QUANTIZE", "DEQUANTIZE", "SHAPE", "RANK"}
    return [
        op.name
        for op in graph.ops
        if op.name not in outside and any(graph.is_float(t) for t in (*op.inputs, *op.outputs))
    ]


def grid(graph, tensor):
    """Return scales and zero points of a tensor as the file holds them."""
    quantization = graph.tensors[tensor].quantization
    return np.asarray(quantization.scale, np.float32), np.asarray(quantization.zeroPoint)


def by_name(graph):
    return {graph.name(number): number for number in range(len(graph.tensors))}


def predicted(sim, x):
    flat = tf.nest.flatten(sim(x, training=False))
    return {n: t.numpy() for n, t in zip(sim.output_names, flat, strict=True)}


def output_grids(sim):
    """Return the encoding of every output by the name of the user's output."""
    graph = LayerGraph.of(sim)
    grids = [graph.producer(ref).layer.encoding for ref in graph.outputs]
    return dict(zip(sim.output_names, grids, strict=True))


def as_int8(array, encoding):
    return np.rint(array / encoding.scale) + encoding.zero_point


@pytest.mark.parametrize("hazard", EXACT)
def test_every_tensor_of_a_file_without_float_ops_is_the_sims(hazard):
    sim, x = hazard_sim(hazard)
    artifact = exported(hazard)
    seen = steps_of(sim, x, artifact)
    assert {s.tensor for s in seen} == set(quantized_tensors(sim))
    assert [s for s in seen if s.identical < 0.999 or s.max_steps > 1] == []
    assert artifact.floats == {}
    assert float_ops(TfliteGraph(artifact.content)) == []


@pytest.mark.slow
@pytest.mark.parametrize("hazard", ISLANDS)
def test_a_float_island_is_named_and_the_tensors_around_it_are_the_sims(hazard):
    sim, x = hazard_sim(hazard)
    artifact = exported(hazard)
    seen = steps_of(sim, x, artifact)
    assert {s.tensor for s in seen} == set(quantized_tensors(sim))
    assert [s for s in seen if s.identical < 0.999 or s.max_steps > 1] == []
    assert artifact.floats
    assert all(ISLANDS[hazard] in name for name in artifact.floats)
    stayed = sorted(why.partition(":")[0] for why in artifact.floats.values())
    assert sorted(float_ops(TfliteGraph(artifact.content))) == stayed


@pytest.mark.slow
@pytest.mark.parametrize("hazard", ONE_STEP)
def test_fixed_point_kernels_are_one_step_off_at_most_and_all_others_exact(hazard):
    sim, x = hazard_sim(hazard)
    seen = steps_of(sim, x, exported(hazard))
    assert {s.tensor for s in seen} == set(quantized_tensors(sim))
    assert max(s.max_steps for s in seen) <= 1
    assert {s.op for s in seen if s.identical < 0.999} <= ONE_STEP[hazard]


@pytest.mark.slow
def test_an_lstm_stays_float_and_the_layers_around_it_are_the_sims():
    x = tf_keras.Input((5, 4), name="signal")
    lstm = L.LSTM(3, activity_regularizer="l2", name="lstm")  # which keeps it whole
    y = lstm(L.Dense(4, name="before")(x))
    model = train_like(tf_keras.Model(x, L.Dense(2, name="after")(y)))
    data = inputs_for(model)
    sim = quantized(model, data)
    artifact = to_tflite(sim)
    seen = steps_of(sim, data, artifact)
    assert [s.tensor for s in seen] == ["signal", "before", "lstm", "after"]
    assert [s for s in seen if s.identical < 0.999 or s.max_steps > 1] == []
    assert any("LSTM" in why for why in artifact.floats.values())


@pytest.mark.parametrize("batch", [1, 3])
def test_the_batch_is_free_and_inputs_and_outputs_are_bound_by_name(batch):
    for hazard in ("unsorted_inputs", "several_outputs", "dicts"):
        sim, x = hazard_sim(hazard)
        part = {n: v[:batch] for n, v in x.items()} if isinstance(x, dict) else x[:batch]
        model = LiteRtModel(exported(hazard).content)
        assert set(model.inputs) == set(sim.input_names)
        backwards = list(zip(sim.input_names, arrays(part), strict=True))[::-1]
        made = model.run([v for _, v in backwards], [n for n, _ in backwards])
        wanted = predicted(sim, part)
        assert set(made) == set(wanted) == set(sim.output_names)
        for name, value in wanted.items():
            np.testing.assert_array_equal(made[name], value)


@pytest.mark.parametrize("hazard", ["residual", "unsorted_inputs", "fixed_meets_free"])
def test_integer_inputs_and_outputs_lie_on_the_sims_grids(hazard):
    sim, x = hazard_sim(hazard)
    content = to_tflite(sim, float_io=False).content
    graph, model = TfliteGraph(content), LiteRtModel(content)
    assert not any(graph.is_float(t) for t in (*graph.inputs, *graph.outputs))
    assert not {"QUANTIZE", "DEQUANTIZE"} & {op.name for op in graph.ops}
    inputs = {name: sim.quantizers()[name].encoding for name in sim.input_names}
    outputs = output_grids(sim)
    for details, grids in ((model.inputs, inputs), (model.outputs, outputs)):
        assert set(details) == set(grids)
        for name, detail in details.items():
            scale, zero_point = detail["quantization"]
            assert detail["dtype"] == np.int8
            assert np.float32(scale) == grids[name].scale
            assert zero_point == grids[name].zero_point
    made = model.run(arrays(x), sim.input_names)
    for name, value in predicted(sim, x).items():
        np.testing.assert_array_equal(made[name], as_int8(value, outputs[name]))


@pytest.mark.parametrize("hazard", ["residual", "fixed_meets_free", "upsampling", "dense_rank3"])
def test_the_file_holds_the_sims_scales_bit_for_bit(hazard):
    sim, _ = hazard_sim(hazard)
    graph = TfliteGraph(exported(hazard).content)
    numbers, quantizers = by_name(graph), sim.quantizers()
    plan = sim.record.plan
    owners = {str(ref): str(plan.owner(ref)) for ref in {*plan.specs, *plan.shared}}
    for name in quantized_tensors(sim):
        scale, zero_point = grid(graph, numbers[name])
        wanted = quantizers[owners[name]].encoding
        assert scale.tobytes() == wanted.scale.tobytes()
        assert zero_point == wanted.zero_point


# The layout of a TFLite kernel, from that of Keras.
LAYOUTS = {
    "CONV_2D": lambda kernel: kernel.transpose(3, 0, 1, 2),
    "DEPTHWISE_CONV_2D": lambda kernel: kernel.reshape(1, *kernel.shape[:2], -1),
    "FULLY_CONNECTED": lambda kernel: kernel.T,
}


@pytest.mark.parametrize("hazard", ["residual", "depth_multiplier", "zero_channel"])
def test_the_file_holds_rounded_weights_and_int32_biases_on_the_product_of_the_scales(hazard):
    sim, _ = hazard_sim(hazard)
    graph, checked = TfliteGraph(exported(hazard).content), []
    for op in graph.ops:
        if op.name not in LAYOUTS:
            continue
        data, weight, bias = op.inputs
        layer = sim.quantized_layers()[graph.name(weight).rpartition("/")[0]]
        scale = layer.quantizers[layer.kernel_name].encoding.scale
        kernel = getattr(layer.layer, layer.kernel_name).numpy()
        integers = np.clip(np.rint(kernel * (np.float32(1.0) / scale)), -127, 127)
        np.testing.assert_array_equal(graph.constant(weight), LAYOUTS[op.name](integers))
        assert grid(graph, weight)[0].tobytes() == scale.tobytes()
        assert not grid(graph, weight)[1].any()
        product = grid(graph, data)[0] * scale.ravel()
        assert grid(graph, bias)[0].tobytes() == product.tobytes()
        assert graph.constant(bias).dtype == np.int32
        np.testing.assert_array_equal(
            graph.constant(bias), np.rint(layer.layer.bias.numpy() / product)
        )
        checked.append(layer.name)
    assert sorted(checked) == sorted(sim.quantized_layers())


def test_a_channel_of_zeros_keeps_a_positive_scale_and_gives_its_bias():
    sim, x = hazard_sim("zero_channel")
    graph = TfliteGraph(exported("zero_channel").content)
    kernel = by_name(graph)["conv/kernel"]
    assert not graph.constant(kernel)[1].any()
    assert (grid(graph, kernel)[0] > 0.0).all()
    (made,) = LiteRtModel(exported("zero_channel").content).run([x], sim.input_names).values()
    step = float(sim.quantizers()["conv"].scale)
    bias = float(sim.quantized_layers()["conv"].layer.bias[1])
    assert np.abs(made[..., 1] - bias).max() <= step / 2


def test_a_shared_layer_called_on_two_grids_gets_a_bias_on_each():
    model = make("shared_layer")
    x = inputs_for(model)
    x["b"] = x["b"] * 7.0
    sim = quantized(model, x)
    artifact = to_tflite(sim)
    graph = TfliteGraph(artifact.content)
    biases = {op.inputs[2] for op in graph.ops if op.name == "CONV_2D"}
    kernels = [op.inputs[1] for op in graph.ops if op.name == "CONV_2D"]
    assert len(biases) == len(kernels) == 2
    np.testing.assert_array_equal(*(graph.constant(k) for k in kernels))
    ratio = np.divide(*(grid(graph, bias)[0] for bias in sorted(biases)))
    assert max(ratio.max(), 1.0 / ratio.min()) > 3.0
    assert [s for s in steps_of(sim, x, artifact) if s.identical < 0.999 or s.max_steps > 1] == []


def test_a_sigmoid_that_meets_a_convolution_in_a_concat_is_requantized_exactly():
    sim, _ = hazard_sim("fixed_meets_free")
    graph = TfliteGraph(exported("fixed_meets_free").content)
    (concat,) = [op for op in graph.ops if op.name == "CONCATENATION"]
    makers = {out: op for op in graph.ops for out in op.outputs}
    gate = makers[concat.inputs[0]]
    assert gate.name == "MUL"
    assert graph.name(concat.inputs[0]) == "joined<0"
    assert makers[gate.inputs[0]].name == "LOGISTIC"
    assert grid(graph, gate.inputs[0])[0] == np.float32(1 / 256)
    assert graph.constant(gate.inputs[1]) == 127
    free = sim.quantizers()["free"].encoding.scale
    assert [grid(graph, t)[0] for t in (*concat.inputs, *concat.outputs)] == [free] * 3


def test_a_marker_that_the_converter_loses_is_an_error_that_names_the_tensor():
    marked = MarkedModel(hazard_sim("several_outputs")[0])
    with marked.saved_model() as folder:
        converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
        graph = TfliteGraph(converter.convert())
    lost = next(op for op in graph.ops if op.name == "QUANTIZE")
    number = int(grid(graph, lost.outputs[0])[0][0])
    graph.ops.remove(lost)
    for op in graph.ops:
        op.inputs = [lost.inputs[0] if i == lost.outputs[0] else i for i in op.inputs]
    with pytest.raises(ExportError, match=f"dropped.*'{marked.markers[number].ref}'"):
        take_markers(graph, marked)


def test_a_sim_without_grids_is_not_exported():
    prepared, profile = prepare(make("several_outputs")), load_profile("litert_int8")
    sim = insert(prepared, SimRecord(profile, resolve(prepared, profile), ("boxes", "score")))
    with pytest.raises(ExportError, match="calibrate the sim first"):
        to_tflite(sim)


def test_an_export_leaves_the_sim_as_it_was():
    sim, x = hazard_sim("several_outputs")
    before, wanted = sim.get_weights(), predicted(sim, x)
    to_tflite(sim)
    for a, b in zip(before, sim.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    for name, value in predicted(sim, x).items():
        np.testing.assert_array_equal(value, wanted[name])
