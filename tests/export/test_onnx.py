"""Exported ONNX files run in ONNX Runtime, unoptimized and fused, and are compared with the sim."""

from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import ExportError
from keras_edgeq.export.onnx.float_graph import to_onnx_float
from keras_edgeq.export.onnx.qdq import to_onnx_qdq
from keras_edgeq.profiles import load_profile
from keras_edgeq.sim.strip import strip
from tests.models import inputs_for, make, train_like
from tests.short import without_long

L = tf_keras.layers
LEVELS = ort.GraphOptimizationLevel
PROFILES = ("onnxruntime_int8", "litert_int8", "qnn_w8a8")

# Outputs that may differ by a step, and why.
ONE_STEP = {
    "einsum_dense": "a product of rank 3 is fused without its bias, which is then added in float",
}
HAZARDS = (
    "residual", "shared_layer", "shared_in_series", "unsorted_inputs", "dicts",
    "several_outputs", "dense_rank3", "conv1d", "transposed", "transposed3d", "lambda_island",
    "fixed_meets_free", "depth_multiplier", "grouped", "fused_activations",
    "op_layers", "op_constants", "prelu", "embedding", "pools", "moves", "more_moves", "caps",
    "written_out", "pools3d", "zero_channel",
    "dead_channel", "constant_activation", "dynamic_size", "upsampling", *ONE_STEP,
)  # fmt: skip


def quantized(model, x, profile="onnxruntime_int8"):
    return eq.quantize(model, x, profile=profile, progress=False)


@cache
def hazard_sim(hazard, profile="onnxruntime_int8"):
    model = make(hazard)
    x = inputs_for(model)
    return quantized(model, x, profile), x


def fed(sim, x):
    return x if isinstance(x, dict) else {sim.input_names[0]: x}


def run(model, inputs, level=LEVELS.ORT_ENABLE_ALL, dump=None, **settings):
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if dump is not None:
        options.optimized_model_filepath = str(dump)
    for key, value in settings.items():
        options.add_session_config_entry(key.replace("__", "."), value)
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def predicted(sim, x):
    arrays = [t.numpy() for t in tf.nest.flatten(sim(x, training=False))]
    return dict(zip(sim.output_names, arrays, strict=True))


def output_steps(sim):
    """Return the scale of every output; what is float counts in 255 steps of its range."""
    plan, quantizers = sim.record.plan, sim.quantizers()
    owners = {str(ref): str(plan.owner(ref)) for ref in {*plan.specs, *plan.shared, *plan.carriers}}
    by_layer = {}
    for name, symbol in zip(sim.output_names, sim.outputs, strict=True):
        layer = symbol._keras_history.layer
        own = getattr(layer, "tensor", None) or owners.get(layer.name)
        by_layer[name] = float(quantizers[own].scale) if own in quantizers else None
    return by_layer


def worst_step(sim, got, wanted):
    scales = output_steps(sim)
    assert list(got) == list(wanted) or sorted(got) == sorted(wanted)
    worst = 0.0
    for name, value in wanted.items():
        assert got[name].shape == value.shape
        scale = scales[name] or max(float(np.abs(value).max()), 1e-6) / 255
        worst = max(worst, float(np.abs(got[name] - value).max()) / scale)
    return worst


FUSED = {
    "residual": {"QLinearConv": 4, "QLinearAdd": 1, "QGemm": 1, "QLinearSoftmax": 1},
    "conv1d": {"QLinearConv": 2, "QLinearAveragePool": 1},
    "dense_rank3": {"QGemm": 2},
    "unsorted_inputs": {"QGemm": 3, "QLinearConcat": 1},
    "grouped": {"QLinearConv": 1},
    "depth_multiplier": {"QLinearConv": 1},
    "shared_in_series": {"QGemm": 2},
    "moves": {"QLinearConv": 2},
    "fixed_meets_free": {"QLinearConv": 3, "QLinearSigmoid": 1, "QLinearConcat": 1},
}


@pytest.mark.parametrize("hazard", without_long(HAZARDS, "op_constants", "op_layers"))
def test_an_onnx_file_gives_the_integers_of_the_sim_plain_and_fused(hazard, tmp_path):
    sim, x = hazard_sim(hazard)
    exported, wanted = to_onnx_qdq(sim), predicted(sim, x)
    allowed = 1.01 if hazard in ONE_STEP else 0.01
    plain = run(exported, fed(sim, x), LEVELS.ORT_DISABLE_ALL)
    fused = run(exported, fed(sim, x), dump=tmp_path / "fused.onnx")
    assert worst_step(sim, plain, wanted) < allowed
    assert worst_step(sim, fused, wanted) < allowed
    ops = Counter(node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node)
    expected = FUSED.get(hazard, {})
    assert {op: ops[op] for op in expected} == expected
    assert not expected or not {"Conv", "Gemm", "MatMul", "FusedConv"} & set(ops)


@pytest.mark.parametrize("profile", PROFILES[1:])
@pytest.mark.parametrize("hazard", ["moves", "shared_layer"])
def test_sims_of_other_profiles_export_exactly(hazard, profile):
    sim, x = hazard_sim(hazard, profile)
    assert worst_step(sim, run(to_onnx_qdq(sim), fed(sim, x)), predicted(sim, x)) < 0.01


def test_inputs_and_outputs_keep_their_names_and_the_batch_stays_free():
    sim, x = hazard_sim("unsorted_inputs")
    exported = to_onnx_qdq(sim)
    assert [value.name for value in exported.graph.input] == ["zebra", "ant"]
    assert [value.name for value in exported.graph.output] == sim.output_names == ["head"]
    shape = exported.graph.input[0].type.tensor_type.shape
    assert [d.dim_param or d.dim_value for d in shape.dim] == ["batch", 4]
    for batch in (1, 3):
        part = {name: value[:batch] for name, value in x.items()}
        assert worst_step(sim, run(exported, part), predicted(sim, part)) < 0.01


def test_tensors_are_named_after_the_sim_and_hold_its_scales():
    sim, _ = hazard_sim("residual")
    exported = to_onnx_qdq(sim)
    constants = {c.name: onnx.numpy_helper.to_array(c) for c in exported.graph.initializer}
    made = {name for node in exported.graph.node for name in node.output}
    for name, quantizer in sim.quantizers().items():
        assert f"{name}/quantized" in made
        assert constants[f"{name}/scale"] == quantizer.encoding.scale
        assert constants[f"{name}/zero_point"] == quantizer.encoding.zero_point
    for name, layer in sim.quantized_layers().items():
        kernel = f"{name}/{layer.kernel_name}"
        scale = layer.quantizers[layer.kernel_name].encoding.scale
        assert constants[f"{kernel}/quantized"].dtype == np.uint8
        np.testing.assert_array_equal(constants[f"{kernel}/scale"], scale.ravel())
        assert constants[f"{name}/bias/quantized"].dtype == np.int32
    assert not [c for c in constants.values() if c.dtype == np.float32 and c.ndim > 1]


def test_kernels_with_equal_numbers_keep_their_own_scales():
    x = tf_keras.Input((6, 6, 2))
    y = L.Conv2D(3, 3, name="one")(x)
    model = tf_keras.Model(x, L.Add()([y, L.Conv2D(3, 3, name="two")(x)]))
    model.set_weights([np.zeros_like(w) for w in model.get_weights()])
    model.get_layer("two").bias.assign([1.0, -1.0, 0.5])
    data = inputs_for(model)
    sim = quantized(model, data)
    got = run(to_onnx_qdq(sim), fed(sim, data))
    assert worst_step(sim, got, predicted(sim, data)) < 0.01


def test_a_shared_layer_called_on_two_grids_gets_a_bias_on_each():
    model = make("shared_layer")
    x = inputs_for(model)
    x["b"] = x["b"] * 7.0
    sim = quantized(model, x)
    exported = to_onnx_qdq(sim)
    biases = [c for c in exported.graph.initializer if "bias/quantized" in c.name]
    assert len(biases) == 2
    assert worst_step(sim, run(exported, fed(sim, x)), predicted(sim, x)) < 0.01


def with_profile(**changes):
    base = load_profile("onnxruntime_int8")
    grids = {
        name: replace(getattr(base, name), **value)
        for name, value in changes.items()
        if isinstance(value, dict)
    }
    return replace(base, **{**changes, **grids})


# int8 with zero point 0 everywhere, and a float bias: what TensorRT reads.
SYMMETRIC = {
    "activation": {"signed": True, "symmetric": True},
    "onnx_activation": "int8",
    "onnx_weight": "int8",
    "bias": "float",
}
# Grids, the opset they need, and the types of kernel and activations.
VARIANTS = {
    "int8 activations": (with_profile(onnx_activation="int8"), 18, "uint8", "int8"),
    "symmetric int8": (with_profile(**SYMMETRIC), 18, "int8", "int8"),
    "opset 20": (with_profile(**SYMMETRIC, onnx_opset=20), 20, "int8", "int8"),
    "opset 21": (with_profile(**SYMMETRIC, onnx_opset=21), 21, "int8", "int8"),
    "16-bit activations": (with_profile(activation={"bits": 16}), 21, "uint8", "uint16"),
    "signed 16-bit activations": (
        with_profile(activation={"bits": 16, "signed": True}, onnx_activation="int8"),
        21, "uint8", "int16",
    ),
    "10-bit activations": (with_profile(activation={"bits": 10}), 21, "uint8", "uint16"),
    "4-bit activations": (with_profile(activation={"bits": 4}), 18, "uint8", "uint8"),
    "4-bit weights": (with_profile(weight={"bits": 4}), 21, "uint4", "uint8"),
    "signed 4-bit weights": (
        with_profile(weight={"bits": 4}, onnx_weight="int8"), 21, "int4", "uint8",
    ),
    "symmetric int8 with 4-bit weights": (
        with_profile(**SYMMETRIC, weight={"bits": 4}), 21, "int4", "int8",
    ),
    "3-bit weights": (with_profile(weight={"bits": 3}), 21, "uint4", "uint8"),
    "2-bit weights": (with_profile(weight={"bits": 2}), 21, "uint4", "uint8"),
    "6-bit weights": (with_profile(weight={"bits": 6}), 18, "uint8", "uint8"),
    "12-bit weights": (with_profile(weight={"bits": 12}), 21, "uint16", "uint8"),
    "16-bit weights": (
        with_profile(weight={"bits": 16}, onnx_weight="int8"), 21, "int16", "uint8",
    ),
    "asymmetric weights": (
        with_profile(weight={"symmetric": False, "narrow_range": False}), 18, "uint8", "uint8",
    ),
    "asymmetric 4-bit weights": (
        with_profile(weight={"bits": 4, "symmetric": False, "narrow_range": False}),
        21, "uint4", "uint8",
    ),
    "weights per tensor": (with_profile(per_channel=frozenset()), 18, "uint8", "uint8"),
    "float bias": (with_profile(bias="float"), 18, "uint8", "uint8"),
}  # fmt: skip
# Float kernels of a step of 1/65535 round differently; ONNX Runtime rounds a float bias itself.
VARIANT_STEPS = dict.fromkeys((name for name in VARIANTS if "16-bit act" in name), 1.5) | {
    name: 1.5 for name, (profile, *_) in VARIANTS.items() if profile.bias == "float"
}
NAMES = ("uint4", "int4", "uint8", "int8", "uint16", "int16")
TYPES = {name: onnx.TensorProto.DataType.Value(name.upper()) for name in NAMES}


@pytest.mark.filterwarnings("ignore::keras_edgeq.errors.QuantizationWarning")
@pytest.mark.parametrize("variant", VARIANTS)
def test_other_grids_export_exactly_plain_and_fused(variant):
    profile, opset, weights, activations = VARIANTS[variant]
    model = make("moves")
    x = inputs_for(model)
    sim = quantized(model, x, profile)
    exported, wanted = to_onnx_qdq(sim), predicted(sim, x)
    assert exported.opset_import[0].version == opset
    types = {c.name: c.data_type for c in exported.graph.initializer}
    assert types["conv/kernel/quantized"] == TYPES[weights]
    assert types["conv/zero_point"] == TYPES[activations]
    assert ("conv/bias/quantized" in types) == (profile.bias == "int32")
    for level in (LEVELS.ORT_DISABLE_ALL, LEVELS.ORT_ENABLE_ALL):
        got = run(exported, fed(sim, x), level, session__x64quantprecision="1")
        assert worst_step(sim, got, wanted) < VARIANT_STEPS.get(variant, 0.01)


def test_int8_weights_are_exact_where_the_session_asks_for_precision():
    model = make("residual")
    x = inputs_for(model)
    sim = quantized(model, x, with_profile(onnx_weight="int8"))
    exported = to_onnx_qdq(sim)
    got = run(exported, fed(sim, x), session__x64quantprecision="1")
    assert worst_step(sim, got, predicted(sim, x)) < 0.01
    kernels = [c for c in exported.graph.initializer if c.name.endswith("kernel/quantized")]
    assert {c.data_type for c in kernels} == {onnx.TensorProto.INT8}


@pytest.mark.parametrize("hazard", ["residual", "shared_in_series", "prelu", "conv1d"])
def test_the_float_model_computes_what_the_stripped_sim_does(hazard):
    sim, x = hazard_sim(hazard)
    exported, names = to_onnx_float(sim)
    got, wanted = run(exported, fed(sim, x), LEVELS.ORT_DISABLE_ALL), predicted(strip(sim), x)
    for value, other in zip(got.values(), wanted.values(), strict=True):
        np.testing.assert_allclose(value, other, rtol=0, atol=1e-5 * np.abs(other).max())
    there = {c.name for c in exported.graph.initializer} | {v.name for v in exported.graph.input}
    there |= {name for node in exported.graph.node for name in node.output}
    plan = sim.record.plan
    wanted_refs = {ref for ref, spec in plan.specs.items() if spec.rule != "derived"}
    assert wanted_refs | set(plan.shared) <= set(names)
    assert set(names.values()) <= there
    assert len(set(names.values())) == len(names)


@tf.function
def log_gamma(t):
    return tf.math.lgamma(tf.abs(t) + 1.0)


def test_an_operation_that_onnx_does_not_have_is_an_error_that_names_it():
    x = tf_keras.Input((6,))
    y = L.Lambda(lambda t: log_gamma(t), name="island")(L.Dense(4)(x))
    model = train_like(tf_keras.Model(x, L.Dense(2)(y)))
    sim = quantized(model, inputs_for(model))
    with pytest.raises(ExportError, match="Lgamma"):
        to_onnx_qdq(sim)


def test_the_sim_and_the_users_logging_stay_as_they_are():
    import logging

    sim, _ = hazard_sim("residual")
    before, levels = sim.get_weights(), logging.getLogger("tf2onnx").level
    to_onnx_qdq(sim)
    for a, b in zip(before, sim.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert logging.getLogger("tf2onnx").level == levels
    assert not tf.config.functions_run_eagerly()
