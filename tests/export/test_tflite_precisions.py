"""TFLite files of every precision, and of several at once, do in LiteRT what the sim does."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import tf_keras
from ai_edge_litert.schema_py_generated import TensorType

import keras_edgeq as eq
from keras_edgeq.errors import ExportError
from keras_edgeq.export.tflite.convert import to_tflite
from keras_edgeq.profiles import load_profile
from keras_edgeq.runtime.artifact import quantized_tensors
from keras_edgeq.runtime.litert import LiteRtModel
from keras_edgeq.runtime.tflite_file import TfliteGraph, pack_int4, unpack_int4, with_tensors
from keras_edgeq.runtime.walk import WIDE_STEPS, walk
from keras_edgeq.spec.quant_spec import HALF
from tests.harness import assert_close, outputs
from tests.models import inputs_for, make, train_like

pytestmark = pytest.mark.slow

L = tf_keras.layers
INT16 = (
    "residual", "separate_activations", "conv1d", "transposed", "embedding", "upsampling",
    "fixed_meets_free",
)  # fmt: skip
# Every tensor of a file of int4 weights is the sim's on XNNPACK, which leaves it the convolutions.
INT4 = ("residual", "depth_multiplier", "moves")
KERNELS = ("xnnpack", "builtin")
MIXTURE = {"conv2d*": "W8A16", "depthwise*": "W4A8", "skip": "W8A8", "scores": "FP16"}


def quantized(model, x, **options):
    return eq.quantize(model, x, progress=False, **options)


@cache
def hazard(name, precision):
    model = make(name)
    x = inputs_for(model)
    # Without the rules of its operations, so that the writer sees those without a kernel.
    profile = replace(load_profile("litert_int8"), ops={})
    sim = quantized(model, x, profile=profile, precision={"*": precision})
    return sim, x, to_tflite(sim)


def arrays(x):
    return list(x.values()) if isinstance(x, dict) else [x]


def steps_of(sim, x, artifact, kernels):
    probe = LiteRtModel(with_tensors(artifact.content, quantized_tensors(sim)), kernels)
    return walk(sim, arrays(x), probe.tensors(arrays(x), sim.input_names))


def ran(sim, x, artifact, kernels):
    made = LiteRtModel(artifact.content, kernels).run(arrays(x), sim.input_names)
    return [made[name] for name in sim.output_names]


def constants(graph, op_name, position):
    """Return name, type and value of one constant of each op of a name."""
    numbers = [op.inputs[position] for op in graph.ops if op.name == op_name]
    return [(graph.name(n), graph.tensors[n].type, graph.constant(n)) for n in numbers]


def kernel(sim, name, lay_out):
    """Return the integers of a kernel in the layout of its op, by the formula of the grid."""
    layer = sim.quantized_layers()[name.rpartition("/")[0]]
    encoding = layer.quantizers[layer.kernel_name].encoding
    values = getattr(layer.layer, layer.kernel_name).numpy()
    low, high = encoding.bounds
    return lay_out(np.clip(np.rint(values * (np.float32(1.0) / encoding.scale)), low, high))


LAYOUTS = {
    "CONV_2D": lambda k: k.transpose(3, 0, 1, 2),
    "DEPTHWISE_CONV_2D": lambda k: k.reshape(1, *k.shape[:2], -1),
    "FULLY_CONNECTED": lambda k: k.T,
}


@pytest.mark.parametrize("name", INT16)
def test_a_file_of_16_bit_activations_has_no_float_op_and_every_op_is_the_sims(name):
    floats = ["bilinear/resize/ResizeBilinear"] if name == "upsampling" else []
    sim, x, artifact = hazard(name, "W8A16")
    for kernels in (*KERNELS, "reference"):
        seen = steps_of(sim, x, artifact, kernels)
        assert {s.tensor for s in seen} == set(quantized_tensors(sim))
        assert {s.bits for s in seen} == {16}
        assert max(s.max_steps for s in seen) <= 2
    assert list(artifact.floats) == floats


def test_16_bit_kernels_get_an_int64_bias_and_no_power_of_two_scales():
    _, _, artifact = hazard("residual", "W8A16")
    graph = TfliteGraph(artifact.content)
    for name in LAYOUTS:
        assert {kind for _, kind, _ in constants(graph, name, 1)} == {TensorType.INT8}
        assert {kind for _, kind, _ in constants(graph, name, 2)} == {TensorType.INT64}
    (add,) = [op for op in graph.ops if op.name == "ADD"]
    assert add.raw.builtinOptions.potScaleInt16 is False
    inner = {graph.tensors[t].type for op in graph.ops[1:-1] for t in op.outputs}
    assert inner == {TensorType.INT16}


def test_a_16_bit_softmax_has_the_fixed_scale_of_its_kernel():
    sim, _, artifact = hazard("residual", "W8A16")
    assert float(sim.quantizers()["scores/softmax"].scale) == 1 / 32768
    graph = TfliteGraph(artifact.content)
    (softmax,) = [op for op in graph.ops if op.name == "SOFTMAX"]
    quantization = graph.tensors[softmax.outputs[0]].quantization
    assert (quantization.scale[0], quantization.zeroPoint[0]) == (np.float32(1 / 32768), 0)


def test_an_op_without_int16_kernel_stays_float_and_is_named():
    sim, x, artifact = hazard("prelu", "W8A16")
    assert list(artifact.floats.values()) == ["PRELU: LiteRT has no int16 kernel that computes it"]
    for kernels in KERNELS:
        seen = {s.tensor: s for s in steps_of(sim, x, artifact, kernels)}
        assert set(seen) == set(quantized_tensors(sim))
        assert max(s.max_steps for s in seen.values()) <= 1
        assert seen["prelu"].identical > 0.999


@pytest.mark.parametrize("name", INT4)
def test_every_tensor_of_a_file_of_int4_weights_is_the_sims(name):
    sim, x, artifact = hazard(name, "W4A8")
    seen = steps_of(sim, x, artifact, "xnnpack")
    assert {s.tensor for s in seen} == set(quantized_tensors(sim))
    assert [s for s in seen if s.identical < 0.999 or s.max_steps > 1] == []
    assert max(s.max_steps for s in steps_of(sim, x, artifact, "builtin")) <= 1
    assert artifact.floats == {}
    LiteRtModel(artifact.content, "reference").run(arrays(x), sim.input_names)


def test_int4_weights_are_packed_two_in_a_byte_the_first_in_the_low_half():
    sim, _, artifact = hazard("residual", "W4A8")
    graph, count = TfliteGraph(artifact.content), 0
    for op_name, lay_out in LAYOUTS.items():
        for name, kind, values in constants(graph, op_name, 1):
            wanted = kernel(sim, name, lay_out).astype(int)
            assert kind == TensorType.INT4
            assert np.abs(wanted).max() == 7
            np.testing.assert_array_equal(values, wanted)
            (tensor,) = [t for t in graph.tensors if t.name.decode() == name]
            data = [int(byte) for byte in graph.model.buffers[tensor.buffer].data]
            flat = [int(v) % 16 for v in wanted.ravel()] + [0]
            size = (wanted.size + 1) // 2
            assert data == [flat[2 * i] + 16 * flat[2 * i + 1] for i in range(size)]
            count += size
    assert artifact.constant_bytes["int4"] == count
    assert "int8" not in artifact.constant_bytes


@pytest.mark.parametrize(("name", "op", "position"), [
    ("transposed", "TRANSPOSE_CONV", 1), ("embedding", "GATHER", 0), ("prelu", "PRELU", 1),
])  # fmt: skip
def test_where_no_kernel_takes_int4_the_values_lie_in_int8(name, op, position):
    sim, x, artifact = hazard(name, "W4A8")
    found = constants(TfliteGraph(artifact.content), op, position)
    assert found
    for _, kind, values in found:
        assert kind == TensorType.INT8
        assert np.abs(values.astype(int)).max() <= 8
    for kernels in KERNELS:
        assert max(s.max_steps for s in steps_of(sim, x, artifact, kernels)) <= 1


@pytest.mark.parametrize("name", ["grouped"])
def test_4_bit_weights_of_16_bit_kernels_lie_in_int8(name):
    sim, x, artifact = hazard(name, "W4A16")
    graph = TfliteGraph(artifact.content)
    assert "int4" not in artifact.constant_bytes
    for op_name, lay_out in LAYOUTS.items():
        for weight, kind, values in constants(graph, op_name, 1):
            assert kind == TensorType.INT8
            np.testing.assert_array_equal(values, kernel(sim, weight, lay_out))
            assert np.abs(values).max() == 7
    for kernels in KERNELS:
        assert max(s.max_steps for s in steps_of(sim, x, artifact, kernels)) <= 2


@pytest.mark.parametrize(("bits", "kind"), [
    (3, TensorType.INT4), (5, TensorType.INT8),
])  # fmt: skip
def test_odd_widths_of_weights_lie_in_the_next_container(bits, kind):
    model, profile = make("residual"), load_profile("litert_int8")
    profile = replace(profile, weight=replace(profile.weight, bits=bits))
    x = inputs_for(model)
    sim = quantized(model, x, profile=profile)
    artifact = to_tflite(sim)
    found = constants(TfliteGraph(artifact.content), "CONV_2D", 1)
    assert {stored for _, stored, _ in found} == {kind}
    for name, _, values in found:
        np.testing.assert_array_equal(values, kernel(sim, name, LAYOUTS["CONV_2D"]))
    seen = steps_of(sim, x, artifact, "xnnpack")
    assert [s for s in seen if s.identical < 0.999 or s.max_steps > 1] == []


@pytest.mark.parametrize("name", ["residual", "transposed", "embedding"])
def test_a_file_of_half_precision_holds_float16_and_computes_what_the_sim_does(name):
    sim, x, artifact = hazard(name, "FP16")
    graph = TfliteGraph(artifact.content)
    halves = {
        graph.name(n): graph.constant(n)
        for n in range(len(graph.tensors))
        if graph.tensors[n].type == TensorType.FLOAT16
    }
    wanted = {
        f"{layer.name}/{param}": getattr(layer.layer, param).numpy().astype(np.float16)
        for layer in sim.quantized_layers().values()
        for param in layer.quantizers
    }
    assert set(halves) == set(wanted)
    for key, values in wanted.items():
        np.testing.assert_array_equal(np.sort(halves[key].ravel()), np.sort(values.ravel()))
    readers = [op for op in graph.ops for t in op.inputs if graph.name(t) in halves]
    assert {(op.name, op.version) for op in readers} == {("DEQUANTIZE", 3)}
    for kernels in (*KERNELS, "reference"):
        assert_close(outputs(sim, x), ran(sim, x, artifact, kernels))


def test_layers_of_several_precisions_meet_in_one_file():
    model = make("residual")
    x = inputs_for(model)
    sim = quantized(model, x, precision=MIXTURE)
    artifact = to_tflite(sim)
    graph = TfliteGraph(artifact.content)
    kinds = {graph.tensors[n].type for n in range(len(graph.tensors))}
    used = {TensorType.INT4, TensorType.INT8, TensorType.INT16, TensorType.FLOAT16}
    assert used <= kinds
    between = [
        tuple(graph.tensors[t].type for t in (op.inputs[0], op.outputs[0]))
        for op in graph.ops
        if op.name == "QUANTIZE"
    ]
    assert (TensorType.INT16, TensorType.INT8) in between
    assert (TensorType.INT8, TensorType.INT16) in between
    assert list(artifact.floats) != []
    assert all("float16" in why or "not quantized" in why for why in artifact.floats.values())
    for kernels in (*KERNELS, "reference"):
        seen = steps_of(sim, x, artifact, kernels)
        assert {s.tensor for s in seen} == set(quantized_tensors(sim))
        assert {s.bits for s in seen} == {8, 16}
        assert max(s.max_steps for s in seen) <= 1
        edges = [s for s in seen if s.op == "Requantize"]
        assert edges
        assert all(s.identical > 0.999 for s in edges)
    tolerance = 4 * float(max(q.scale for q in sim.quantizers().values()))
    for ours, theirs in zip(outputs(sim, x), ran(sim, x, artifact, "xnnpack"), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=tolerance)


def test_integer_inputs_and_outputs_are_int16_where_their_grids_are():
    sim, x, _ = hazard("residual", "W8A16")
    model = LiteRtModel(to_tflite(sim, float_io=False).content)
    details = [*model.inputs.values(), *model.outputs.values()]
    assert [d["dtype"] for d in details] == [np.int16, np.int16]
    (made,) = model.run([x], sim.input_names).values()
    (wanted,) = outputs(sim, x)
    assert np.abs(made - np.rint(wanted * 32768)).max() <= 2 * WIDE_STEPS


def test_half_precision_activations_are_refused_by_name():
    model, profile = make("residual"), load_profile("litert_int8")
    half = replace(profile.precisions["FP16"], activation=HALF)
    profile = replace(profile, precisions={**profile.precisions, "FP16": half})
    sim = quantized(model, inputs_for(model), profile=profile, precision={"conv2d*": "FP16"})
    with pytest.raises(ExportError, match="float16; LiteRT computes float layers in float32"):
        to_tflite(sim)


@pytest.mark.parametrize(("activation", "message"), [
    ({"bits": 4}, "Tensor image has a grid of 4 bits"),
    ({"bits": 16}, "Tensor image has a 16-bit grid with zero point"),
])  # fmt: skip
def test_activations_that_no_kernel_takes_are_refused_by_name(activation, message):
    model, profile = make("residual"), load_profile("litert_int8")
    profile = replace(profile, activation=replace(profile.activation, **activation))
    sim = quantized(model, inputs_for(model), profile=profile)
    with pytest.raises(ExportError, match=message):
        to_tflite(sim)


def test_weights_of_more_than_8_bits_are_refused():
    model, profile = make("residual"), load_profile("litert_int8")
    profile = replace(profile, weight=replace(profile.weight, bits=16))
    sim = quantized(model, inputs_for(model), profile=profile)
    with pytest.raises(ExportError, match="up to 8 bits; one has 16"):
        to_tflite(sim)


def test_packed_integers_come_back():
    values = np.arange(-8, 7, dtype=np.int8).reshape(3, 5)
    packed = pack_int4(values)
    assert packed.dtype == np.uint8
    assert len(packed) == 8
    np.testing.assert_array_equal(unpack_int4(packed, [3, 5]), values)


def test_the_report_counts_bytes_by_container(tmp_path):
    sim, _, artifact = hazard("residual", "W4A8")
    report = eq.export(sim, tmp_path, ["tflite"], progress=False)
    assert dict(report.constant_bytes) == artifact.constant_bytes
    assert report.sizes["tflite"] == len(artifact.content)
    assert f"int4 {artifact.constant_bytes['int4']:,}" in str(report)
    assert report.to_json()["constant_bytes"] == artifact.constant_bytes
    assert all(run.agrees for run in report.runs)


FLOAT_BETWEEN = {
    "AVERAGE_POOL_2D": L.AveragePooling2D(name="asked"),
    "RESIZE_BILINEAR": L.UpSampling2D(2, interpolation="bilinear", name="asked"),
    "LOGISTIC": L.Activation("sigmoid", name="asked"),
    "SOFTMAX": L.Softmax(name="asked"),
}


@pytest.mark.parametrize("kind", FLOAT_BETWEEN)
def test_a_layer_asked_to_compute_in_float_is_rounded_once(kind):
    x = tf_keras.Input((4, 4, 2))
    layer = FLOAT_BETWEEN[kind]
    layer = layer.from_config(layer.get_config())
    model = tf_keras.Model(x, L.Conv2D(3, 1, name="last")(layer(L.Conv2D(3, 1)(x))))
    data = inputs_for(train_like(model), 64)
    sim = quantized(model, data, precision={"asked": "FP32"})
    artifact = to_tflite(sim)
    assert list(artifact.floats.values()) == [f"{kind}: computes in FP32"]
    got = LiteRtModel(artifact.content).run([data], sim.input_names)["last"]
    # Float kernels differ by float noise, which decides a tie now and then.
    assert np.mean(outputs(sim, data)[0] == got) > 0.98
