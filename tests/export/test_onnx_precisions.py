"""Files of any precision, and of several at once, compute in ONNX Runtime what the sim does."""

from dataclasses import replace
from functools import cache

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.export.onnx.qdq import to_onnx_qdq
from keras_edgeq.profiles import load_profile
from keras_edgeq.runtime.artifact import OnnxRuntime
from keras_edgeq.runtime.walk import walk
from keras_edgeq.sim.quant_sim import quantized_tensors
from tests.models import inputs_for, train_like

L = tf_keras.layers
LEVELS = ort.GraphOptimizationLevel
T = onnx.TensorProto


def symmetric():
    """Return a profile of int8 and int16 with zero point 0 and float biases, as TensorRT's."""
    base = load_profile("onnxruntime_int8")

    def grid(spec):
        if spec is None or spec.is_half:
            return spec
        return replace(spec, signed=True, symmetric=True)

    return replace(
        base,
        activation=grid(base.activation),
        bias="float",
        fixed_ranges={},
        precisions={
            name: replace(
                p,
                activation=grid(p.activation),
                bias="half" if p.weight.is_half else "float",
                fixed_ranges={},
            )
            for name, p in base.precisions.items()
        },
        onnx_activation="int8",
        onnx_weight="int8",
    )


PROFILES = {
    "onnxruntime": load_profile("onnxruntime_int8"),
    "qnn": replace(load_profile("qnn_w8a8"), onnx_weight="int8"),
    "symmetric": symmetric(),
}
MIXTURE = {
    "first": "W4A8",
    "second": "W8A16",
    "third": "FP32",
    "fourth": "FP16",
    "fifth": "W8A8",
    "sixth": "W8A16",
    "joined": "W8A8",
    "scores": "FP16",
}


@cache
def chain():
    """Return a trained-like model, every precision of `MIXTURE` next to another, and its data."""
    inputs = tf_keras.Input((8, 8, 3), name="image")
    y = L.Conv2D(6, 3, padding="same", activation="relu", name="first")(inputs)
    y = skip = L.Conv2D(6, 3, padding="same", activation="relu", name="second")(y)
    y = L.Conv2D(6, 3, padding="same", name="third")(y)
    y = L.Conv2D(6, 1, activation="relu", name="fourth")(y)
    y = L.DepthwiseConv2D(3, padding="same", activation="relu", name="fifth")(y)
    y = L.Add(name="joined")([L.Conv2D(6, 1, name="sixth")(y), skip])
    y = L.Dense(4, name="scores")(L.GlobalAveragePooling2D(name="pool")(y))
    model = train_like(tf_keras.Model(inputs, y))
    return model, inputs_for(model)


ASKED = {
    "FP16": {"*": "FP16"},
    "W4A8": {"*": "W4A8"},
    "W8A16": {"*": "W8A16"},
    "W4A16": {"*": "W4A16"},
    "mixture": MIXTURE,
}


def run(content, sim, x, level):
    options = ort.SessionOptions()
    options.graph_optimization_level, options.log_severity_level = level, 3
    options.add_session_config_entry("session.x64quantprecision", "1")
    # It would round float biases to int32, and overflow there.
    kept = {"disabled_optimizers": ["WeightBiasQuantization"]} if has_float_bias(sim) else {}
    session = ort.InferenceSession(content, options, ["CPUExecutionProvider"], **kept)
    return session.run(sim.output_names, dict(zip(sim.input_names, x, strict=True)))


def has_float_bias(sim):
    specs = [layer.bias_spec for layer in sim.quantized_layers().values()]
    return sim.record.profile.bias == "float" or any(s and s.bits == 64 for s in specs)


# Far below a step of 8 bits; what an optimizer rounds otherwise is fifty times that, everywhere.
SAME = 1e-4
# Four steps of 8 bits with a sign. Behind half precision and 16 bits neither side's sums are exact,
# and processors sum in different orders. A sum half way between two steps ends on either side, and
# the operations behind it carry that on. Of sixteen samples with thousands of values each, some few
# have a value so near a tie (1e-4 of a step); most have none.
TIED = 4.0 / 127.0


def gaps(got, wanted):
    """Return the largest difference of each sample, as a share of the largest output."""
    pairs = zip(got, wanted, strict=True)
    return np.max(
        [np.abs(a - b).reshape(len(a), -1).max(1) / np.abs(b).max() for a, b in pairs], axis=0
    )


def check(sim, x):
    """Compare a sim's file with it, plain, optimized and tensor by tensor; return the file."""
    exported = to_onnx_qdq(sim)
    content = exported.SerializeToString()
    wanted = [t.numpy() for t in tf.nest.flatten(sim(x, training=False))]
    for level in (LEVELS.ORT_DISABLE_ALL, LEVELS.ORT_ENABLE_ALL):
        off = gaps(run(content, sim, x, level), wanted)
        assert np.median(off) < SAME
        assert off.max() < TIED
    steps = walk(sim, x, OnnxRuntime(content, sim).tensors(x))
    assert {step.tensor for step in steps} == set(quantized_tensors(sim))
    # A tie is one step.
    off = {s.tensor: round((1.0 - s.identical) * s.elements) / max(s.elements, 100) for s in steps}
    assert max(off.values()) <= 0.01
    assert max(step.max_steps for step in steps) <= 1
    return exported


def types_of(exported):
    return {c.name: c.data_type for c in exported.graph.initializer}


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("profile", PROFILES)
def test_every_precision_and_their_mixture_agree_with_the_sim(profile, asked):
    model, x = chain()
    sim = eq.quantize(model, x, PROFILES[profile], precision=ASKED[asked], progress=False)
    exported = check(sim, [x])
    assert exported.opset_import[0].version == (18 if asked == "FP16" else 21)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_mixture_holds_the_types_of_every_precision(profile):
    model, x = chain()
    sim = eq.quantize(model, x, PROFILES[profile], precision=MIXTURE, progress=False)
    types = types_of(to_onnx_qdq(sim))
    signed = profile == "symmetric"
    weight8, weight4 = (T.UINT8, T.UINT4) if profile == "onnxruntime" else (T.INT8, T.INT4)
    act8, act16 = (T.INT8, T.INT16) if signed else (T.UINT8, T.UINT16)
    assert types["first/kernel/quantized"] == weight4
    assert types["fifth/depthwise_kernel/quantized"] == types["sixth/kernel/quantized"] == weight8
    assert types["scores/kernel/half"] == types["scores/bias/half"] == T.FLOAT16
    made_by_first = [name for name in quantized_tensors(sim) if name.startswith("first")]
    assert {types[f"{name}/zero_point"] for name in ["image", *made_by_first]} == {act8}
    assert len(made_by_first) == 1
    assert types["second<0/zero_point"] == types["sixth<0/zero_point"] == act16
    biases = {name for name in types if name.endswith("bias/quantized")}
    assert (biases == set()) == signed
    assert all(types[name] == T.INT32 for name in biases)


def test_a_half_precision_layer_between_integer_ones_keeps_its_numbers():
    inputs = tf_keras.Input((8, 8, 3), name="image")
    y = L.Conv2D(6, 3, name="first")(inputs)
    y = L.Conv2D(6, 3, activation="relu", name="half")(y)
    model = tf_keras.Model(inputs, L.Conv2D(4, 3, name="last")(y))
    x = inputs_for(model)
    profile = load_profile("litert_int8")
    asked = {"half*": "FP16"}
    sim = eq.quantize(model, x, profile, precision=asked, progress=False)
    exported = check(sim, [x])
    constants = {c.name: onnx.numpy_helper.to_array(c) for c in exported.graph.initializer}
    kernel = sim.quantized_layers()["half"].layer.kernel.numpy()
    written = np.transpose(constants["half/kernel/half"], (2, 3, 1, 0))
    np.testing.assert_array_equal(written, kernel.astype(np.float16))


def test_int64_biases_beyond_int32_are_written_as_the_numbers_they_stand_for():
    inputs = tf_keras.Input((6,))
    model = tf_keras.Model(inputs, L.Dense(3, name="head")(inputs))
    model.get_layer("head").kernel.assign(np.full((6, 3), 1e-5, np.float32))
    model.get_layer("head").bias.assign([2.0, -2.0, 0.1])
    x = inputs_for(model)
    sim = eq.quantize(model, x, "litert_int8", precision={"*": "W8A16"}, progress=False)
    exported = check(sim, [x])
    assert "head/bias/quantized" not in types_of(exported)


def test_artifacts_get_smaller_with_their_weights():
    inputs = tf_keras.Input((64,))
    model = tf_keras.Model(inputs, L.Dense(256, name="head")(inputs))
    x = inputs_for(model)
    sim = eq.quantize(model, x, "onnxruntime_int8", progress=False)
    sizes = [
        to_onnx_qdq(eq.requantize(sim, precision={"*": name})).ByteSize()
        for name in ("W4A8", "W8A8", "FP16", "FP32")
    ]
    weights = 64 * 256
    assert np.all(np.diff(sizes) > [0.45 * weights, 0.9 * weights - 4000, 1.8 * weights])


def twice(layer, shape):
    """A layer that is called twice, and one behind it."""
    x = tf_keras.Input(shape)
    return train_like(tf_keras.Model(x, L.Dense(3)(layer(layer(x)))))


SHARED = {
    "dense": (lambda: L.Dense(24, activation="relu"), (24,)),
    "dense on rows": (lambda: L.Dense(24), (5, 24)),
    "convolution": (lambda: L.Conv2D(6, 3, padding="same"), (6, 6, 6)),
    "product": (lambda: L.EinsumDense("abc,cd->abd", (None, 24)), (5, 24)),
}


@pytest.mark.parametrize("precision", ["W8A8", "W8", "W8A16"])
@pytest.mark.parametrize(("layer", "shape"), SHARED.values(), ids=list(SHARED))
def test_signed_weights_that_two_calls_read_load_where_they_are_stored_without_a_sign(
    layer, shape, precision
):
    model = twice(layer(), shape)
    x = [inputs_for(model)]
    sim = eq.quantize(model, x, PROFILES["symmetric"], precision=precision, progress=False)
    content = to_onnx_qdq(sim).SerializeToString()
    wanted = [t.numpy() for t in tf.nest.flatten(sim(x, training=False))]
    for level in (LEVELS.ORT_DISABLE_ALL, LEVELS.ORT_ENABLE_ALL):
        assert gaps(run(content, sim, x, level), wanted).max() < TIED
