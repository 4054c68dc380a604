import json

import numpy as np
import onnx
import pytest
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import EncodingsError
from keras_edgeq.export.encodings.write import keras_encodings, onnx_encodings
from keras_edgeq.export.onnx.float_graph import to_onnx_float
from keras_edgeq.measure.groups import find_groups
from keras_edgeq.sim.fit import fit_weight

L = tf_keras.layers
WIDTH = 40


# The inputs of `joined` lie along two axes, so that its channels own a scale each.
pytestmark = pytest.mark.filterwarnings("ignore:The inputs of:keras_edgeq.QuantizationWarning")


@pytest.fixture(scope="module")
def model():
    """Layers of 40 inputs (a last block of 8), and EinsumDense that sums over one and two axes."""
    tf_keras.utils.set_random_seed(0)
    x = tf_keras.Input((5, WIDTH), name="rows")
    y = L.EinsumDense("abc,cde->abde", (None, 2, 20), bias_axes="de", name="heads")(x)
    y = L.EinsumDense("abde,dec->abc", (None, WIDTH), bias_axes="c", name="joined")(y)
    y = L.Dense(20, activation="relu", name="dense")(y)
    return tf_keras.Model(x, L.Dense(3, name="head")(L.GlobalAveragePooling1D()(y)))


@pytest.fixture(scope="module")
def data():
    return np.random.default_rng(0).normal(size=(8, 5, WIDTH)).astype("float32")


@pytest.fixture(scope="module")
def blocks(model, data):
    return eq.quantize(model, data, "onnxruntime_int8", precision="W4g32", progress=False)


def profile(tmp_path, weight, **more):
    """ONNX Runtime's profile with a precision W4x."""
    own = {"activation": None, "weight": weight, "bias": "float", "fixed_ranges": {}}
    whole = {"schema": 1, "name": "own", "description": "x", "extends": "onnxruntime_int8"}
    path = tmp_path / "own.json"
    path.write_text(json.dumps({**whole, "precisions": {"W4x": {**own, **more}}}))
    return path


GRID = {"bits": 4, "symmetric": True, "signed": True}
MULTIPLES = {**GRID, "block_size": 20, "block_bits": 4}
MINMAX = {"activation": {"bits": 8, "signed": False}, "bias": "int32"}


def by_hand(kernel, size, bits=0):
    """Round `[inputs, outputs]` block by block, by the extremes of each, in NumPy."""
    blocks = range(0, len(kernel), size)
    scales = np.array([np.abs(kernel[i : i + size]).max(0) / 7.0 for i in blocks])
    if bits:
        channel = scales.max(0) / 2**bits
        scales = np.clip(np.rint(scales / channel), 1, 2**bits) * channel
    each = np.repeat(scales, size, 0)[: len(kernel)]
    return np.clip(np.rint(kernel / each), -8, 7) * each


def rounded(sim, name):
    return sim.quantized_layers()[name].rounded_params()["kernel"].numpy()


@pytest.mark.parametrize("bits", [0, 4])
def test_blocks_are_rounded_as_by_hand(model, data, tmp_path, bits):
    weight = {**GRID, "block_size": 20, **({"block_bits": bits} if bits else {})}
    sim = eq.quantize(model, data, profile(tmp_path, weight), precision="W4x", progress=False)
    for name in ("dense", "heads"):
        kernel = np.float64(model.get_layer(name).kernel)
        flat = kernel.reshape(WIDTH, -1)
        wanted = by_hand(flat, 20, bits).reshape(kernel.shape)
        np.testing.assert_allclose(rounded(sim, name), wanted, atol=1e-6)


def test_the_last_block_may_be_shorter(model, blocks):
    quantizer = blocks.quantized_layers()["dense"].quantizers["kernel"]
    assert tuple(quantizer.scale.shape) == (2, 20)
    assert tuple(blocks.quantized_layers()["heads"].quantizers["kernel"].scale.shape) == (2, 2, 20)
    units = quantizer.encoding.unit((WIDTH, 20))
    steps = np.rint(rounded(blocks, "dense") / units)
    np.testing.assert_allclose(steps * units, rounded(blocks, "dense"), rtol=1e-6)
    assert steps.min() >= -8
    assert steps.max() <= 7


def test_the_file_of_onnx_runtime_multiplies_in_float(blocks, data, tmp_path):
    report = eq.export(blocks, tmp_path, ["onnx"], verify=data, progress=False)
    (run,) = report.runs
    assert run.max_abs_difference < 1e-5
    nodes = onnx.load(str(report.files["onnx"])).graph.node
    products = [node for node in nodes if node.op_type == "MatMulNBits"]
    assert len(products) == 3
    for node in products:
        options = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert (options["accuracy_level"], options["block_size"]) == (0, 32)


@pytest.mark.parametrize(
    "weight", [pytest.param({**GRID, "block_size": 20}, marks=pytest.mark.slow), MULTIPLES]
)
def test_blocks_of_other_sizes_are_dequantized(model, data, tmp_path, weight):
    more = {} if weight is not MULTIPLES else MINMAX
    own = profile(tmp_path, weight, **more)
    sim = eq.quantize(model, data, own, precision="W4x", progress=False)
    assert sim.quantized_layers()["joined"].quantizers["kernel"].spec.block_size == 0
    report = eq.export(sim, tmp_path / "out", ["onnx"], verify=data, progress=False)
    assert report.runs[0].verdict in ("same", "kernel")
    nodes = onnx.load(str(report.files["onnx"])).graph.node
    sizes = [a.i for node in nodes for a in node.attribute if a.name == "block_size"]
    assert 20 in sizes


def test_multiples_sum_integers_as_a_kernel_does(model, data, tmp_path):
    own = profile(tmp_path, MULTIPLES, **MINMAX)
    sim = eq.quantize(model, data, own, precision={"dense": "W4x"}, progress=False)
    layer = sim.quantized_layers()["dense"]
    params, scale = layer.integer_params(np.float32(0.5))
    steps = params["kernel"].numpy()
    np.testing.assert_array_equal(steps, np.rint(steps))
    assert np.abs(steps).max() <= 128
    np.testing.assert_allclose(steps * scale.numpy(), rounded(sim, "dense"), rtol=1e-6)


def test_blocks_of_zeros_leave_the_scale_of_their_channel_alone():
    spec = eq.QuantSpec(bits=4, symmetric=True, axes=(1,), block_size=4, block_bits=4)
    kernel = np.random.default_rng(0).normal(size=(12, 3)).astype("float32")
    kernel[4:8], kernel[:, 2] = 0.0, 0.0
    grid = fit_weight(spec, kernel)
    np.testing.assert_array_equal(grid.multiples[1], 1.0)
    rounded = np.rint(kernel / grid.unit(kernel.shape)) * grid.unit(kernel.shape)
    assert np.max(np.abs(rounded - kernel)) <= np.max(np.abs(kernel)) / 14 * (1 + 1 / 16)


def test_blocks_stand_beside_integers(model, data, tmp_path):
    """A layer with blocks reads and makes tensors on 8-bit grids, and computes in float."""
    mixed = {"dense": "W4g32", "heads": "W4g32"}
    sim = eq.quantize(model, data, "onnxruntime_int8", precision=mixed, progress=False)
    layers = sim.quantized_layers()
    sizes = {name: layer.quantizers["kernel"].spec.block_size for name, layer in layers.items()}
    assert sizes == {"heads": 32, "joined": 0, "dense": 32, "head": 0}
    run = eq.export(sim, tmp_path, ["onnx"], verify=data, progress=False).runs[0]
    assert run.verdict == "same"


def test_layers_that_are_called_twice_have_one_weight_with_blocks(data, tmp_path):
    x = tf_keras.Input((5, WIDTH))
    twice = L.Dense(WIDTH, name="twice")
    model = tf_keras.Model(x, L.Dense(3)(twice(L.ReLU()(twice(x)))))
    sim = eq.quantize(model, data, "onnxruntime_int8", precision="W4g32", progress=False)
    report = eq.export(sim, tmp_path, ["onnx"], verify=data, progress=False)
    assert report.runs[0].max_abs_difference < 1e-5
    nodes = onnx.load(str(report.files["onnx"])).graph.node
    weights = [node.input[1] for node in nodes if node.op_type == "MatMulNBits"]
    assert len(weights) == 3
    assert len(set(weights)) == 2


def test_projections_of_attention_have_blocks(tmp_path):
    x = tf_keras.Input((3, 32))
    model = tf_keras.Model(x, L.MultiHeadAttention(2, 8, name="mha")(x, x))
    data = np.random.default_rng(0).normal(size=(4, 3, 32)).astype("float32")
    sim = eq.quantize(model, data, "onnxruntime_int8", precision="W4g32", progress=False)
    layers = sim.quantized_layers()
    for name in ("query", "key", "value"):
        assert layers[f"mha/{name}"].quantizers["kernel"].spec.block_size == 32
    report = eq.export(sim, tmp_path, ["onnx"], verify=data, progress=False)
    assert report.runs[0].max_abs_difference < 1e-5
    nodes = onnx.load(str(report.files["onnx"])).graph.node
    assert sum(node.op_type == "MatMulNBits" for node in nodes) == 3


@pytest.mark.parametrize("precision", ["W4g32", "W4x"])
def test_batch_norms_fold_into_blocks_after_training(data, tmp_path, precision):
    x = tf_keras.Input((WIDTH,))
    y = L.BatchNormalization(name="norm")(L.Dense(16, use_bias=False, name="dense")(x))
    model, rows = tf_keras.Model(x, L.Dense(3)(L.ReLU()(y))), data[:, 0]
    model.get_layer("norm").gamma.assign(np.linspace(-1.0, 2.0, 16))
    target = profile(tmp_path, {**MULTIPLES, "block_size": 8}, **MINMAX)
    target = target if precision == "W4x" else "onnxruntime_int8"
    sim = eq.quantize(model, rows, target, precision=precision, batch_norm="train", progress=False)
    sim = eq.learn_ranges(sim)
    sim.compile("adam", "mse")
    sim.fit(rows, np.ones((8, 3), "float32"), verbose=0)
    folded = eq.fold_batch_norms(sim)
    assert folded.quantized_layers()["dense"].quantizers["kernel"].spec.block_size
    np.testing.assert_allclose(folded(rows), sim(rows), atol=2e-6)


def test_tables_and_diagnoses_count_blocks(blocks, data):
    row = eq.grids(blocks)["dense/kernel"]
    assert (row.channels, row.block_size, row.channel_axis) == (40, 32, None)
    assert "40 blocks of 32" in str(eq.grids(blocks))
    found = eq.diagnose(blocks, data, remedies=0, verify=False, progress=False)
    assert {one.layer for one in found.weights} == set(blocks.quantized_layers())


def test_channels_without_whole_blocks_are_named(model, data, tmp_path):
    own = profile(tmp_path, {**MULTIPLES, "block_size": 64})
    with pytest.warns(eq.QuantizationWarning, match=r"joined \(64\), dense \(64\)"):
        sim = eq.quantize(model, data, own, precision="W4x", progress=False)
    assert sim.quantized_layers()["dense"].quantizers["kernel"].spec.block_size == 0


def test_a_sim_with_blocks_comes_back_and_trains(blocks, data, tmp_path):
    eq.save_sim(blocks, tmp_path / "sim.keras")
    again = eq.load_sim(tmp_path / "sim.keras")
    np.testing.assert_array_equal(again(data), blocks(data))
    learning = eq.learn_ranges(again)
    scale = learning.quantized_layers()["dense"].quantizers["kernel"].scale.numpy()
    learning.compile("adam", "mse")
    learning.fit(data, np.ones((8, 3), "float32"), verbose=0)
    moved = learning.quantized_layers()["dense"].quantizers["kernel"].scale.numpy()
    assert moved.shape == scale.shape
    assert not np.array_equal(moved, scale)


@pytest.mark.parametrize("technique", [eq.gptq, eq.seq_mse])
def test_rounding_techniques_work_in_blocks(model, blocks, data, technique):
    better = technique(blocks, data, progress=False)
    wanted = model(data).numpy()

    def error(sim):
        return float(np.mean((sim(data).numpy() - wanted) ** 2))

    assert error(better) < error(blocks)
    quantizer = better.quantized_layers()["dense"].quantizers["kernel"]
    assert quantizer.spec.block_size == 32
    if technique is eq.gptq:  # the weights lie on their grids
        kernel = better.quantized_layers()["dense"].layer.kernel.numpy()
        np.testing.assert_allclose(rounded(better, "dense"), kernel, atol=1e-6)


@pytest.mark.slow
def test_adaround_works_in_blocks(blocks, data):
    better = eq.adaround(blocks, data, iterations=20, progress=False)
    kernel = better.quantized_layers()["dense"].layer.kernel.numpy()
    np.testing.assert_allclose(rounded(better, "dense"), kernel, atol=1e-6)


def test_blocks_come_and_go_without_data(blocks, data):
    whole = eq.requantize(blocks, precision="W4")
    assert whole.quantized_layers()["dense"].quantizers["kernel"].spec.block_size == 0
    again = eq.requantize(whole, precision="W4g32")
    np.testing.assert_array_equal(again(data), blocks(data))
    plan = blocks.record.plan
    assert type(plan).from_json(plan.to_json()) == plan


def test_what_has_no_blocks_says_so(blocks, data, tmp_path):
    with pytest.raises(eq.EdgeqError, match=r"heads/kernel.*block"):
        eq.export(blocks, tmp_path, ["encodings"], progress=False)
    with pytest.raises(eq.EdgeqError, match="leave it out of the candidates"):
        find_groups(blocks, ["W4g32", "W8A8"])


@pytest.mark.parametrize(
    ("weight", "more", "message"),
    [
        ({**GRID, "block_size": 20}, MINMAX, "no kernel multiplies integers"),
        ({**GRID, "block_bits": 4}, {}, "block_size is 0"),
        ({**MULTIPLES, "block_bits": 5}, {}, "at most 8"),
        ({**MULTIPLES, "symmetric": False}, {}, "symmetric=True"),
        ({**GRID, "block_size": 20}, {"activation": MULTIPLES}, "only weights have blocks"),
    ],
)
def test_precisions_that_no_kernel_has_are_refused(tmp_path, weight, more, message):
    with pytest.raises(eq.EdgeqError, match=message):
        eq.load_profile(profile(tmp_path, weight, **more))


def test_tflite_files_hold_no_blocks(tmp_path):
    path = profile(tmp_path, {**GRID, "block_size": 32})
    path.write_text(path.read_text().replace("onnxruntime_int8", "litert_int8"))
    with pytest.raises(eq.EdgeqError, match="TFLite files do not hold"):
        eq.load_profile(path)


def test_signed_blocks_of_8_bits_that_two_calls_read_load(tmp_path):
    own = json.loads(profile(tmp_path, {**GRID, "bits": 8, "block_size": 16}).read_text())
    (tmp_path / "signed.json").write_text(json.dumps({**own, "onnx_weight": "int8"}))
    x, layer = tf_keras.Input((WIDTH,)), L.Dense(WIDTH, activation="relu")
    model = tf_keras.Model(x, layer(layer(x)))
    data = np.random.default_rng(0).normal(size=(8, WIDTH)).astype("float32")
    sim = eq.quantize(model, data, tmp_path / "signed.json", precision="W4x", progress=False)
    report = eq.export(sim, tmp_path / "out", ["onnx"], verify=data, progress=False)
    assert report.runs[0].verdict == "same"
    assert report.runs[0].max_abs_difference < 1e-5


@pytest.fixture(scope="module")
def dense():
    """Two Dense layers of whole blocks, and data."""
    tf_keras.utils.set_random_seed(0)
    x = tf_keras.Input((WIDTH,))
    y = L.Dense(2 * WIDTH, activation="relu", name="wide")(x)
    model = tf_keras.Model(x, L.Dense(3, name="head")(y))
    return model, np.random.default_rng(0).normal(size=(8, WIDTH)).astype("float32")


def in_version_1(kernel, entry):
    """Round a matrix as AIMET reads version 1.0.0: channels first, then the blocks of each."""
    bits, size = entry.get("compressed_bw", entry["bw"]), entry["block_size"]
    channels, scale = kernel.shape[1], np.array(entry["scale"])
    assert entry["offset"] == [-(2 ** (entry["bw"] - 1))] * len(scale)
    if entry["enc_type"] == "LPBQ":
        scale = scale[:, None] * np.array(entry["per_block_int_scale"]).reshape(channels, -1)
    each = np.repeat(scale.reshape(channels, -1), size, 1).T
    return np.clip(np.rint(kernel / each), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1) * each


def in_version_2(kernel, entry):
    """The same of version 2.0.0: numbers in the layout of the matrix."""
    assert (entry["output_dtype"], entry["axis"]) == ("int4", 0)
    if "y_scale" in entry:
        scale = np.array(entry["y_scale"])
    else:
        scale = np.array(entry["per_channel_float_scale"]) * entry["per_block_int_scale"]
    each = np.repeat(scale, entry["block_size"], 0)
    return np.clip(np.rint(kernel / each), -8, 7) * each


@pytest.mark.parametrize("weight", [{**GRID, "block_size": 20}, MULTIPLES], ids=["own", "lpbq"])
@pytest.mark.parametrize("version", ["1.0.0", "2.0.0"])
def test_encodings_round_weights_as_the_sim_does(dense, tmp_path, weight, version):
    model, data = dense
    sim = eq.quantize(model, data, profile(tmp_path, weight), precision="W4x", progress=False)
    onnx_model, names = to_onnx_float(sim)
    for made in (
        keras_encodings(sim, version),
        onnx_encodings(sim, onnx_model, names, version),
    ):
        entries = made["param_encodings" if version == "1.0.0" else "encodings"]
        assert [entry["name"] for entry in entries] == ["wide/kernel", "head/kernel"]
        for layer, entry in zip(("wide", "head"), entries, strict=True):
            kernel = np.float64(model.get_layer(layer).kernel)
            reads = in_version_1 if version == "1.0.0" else in_version_2
            np.testing.assert_allclose(reads(kernel, entry), rounded(sim, layer), atol=1e-6)
        (tmp_path / "made.encodings").write_text(json.dumps(made))
        with pytest.raises(EncodingsError, match=r"wide/kernel.*written and not read"):
            eq.load_encodings(sim, tmp_path / "made.encodings")


def test_encodings_that_cannot_hold_blocks_say_what_can(model, data, dense, tmp_path):
    own = profile(tmp_path, {**GRID, "block_size": 20})
    sim = eq.quantize(model, data, own, precision="W4x", progress=False)
    with pytest.raises(EncodingsError, match=r"heads/kernel.*0.6.1 do not hold.*1.0.0"):
        keras_encodings(sim, "0.6.1")
    onnx_model, names = to_onnx_float(sim)
    with pytest.raises(EncodingsError, match=r"heads/kernel.*another layout"):
        onnx_encodings(sim, onnx_model, names)
    own = profile(tmp_path, {**MULTIPLES, "block_bits": 2})
    few = eq.quantize(dense[0], dense[1], own, precision="W4x", progress=False)
    with pytest.raises(EncodingsError, match=r"wide/kernel.*2 bits over integers of 4"):
        keras_encodings(few, "2.0.0")
    short = eq.quantize(*dense, "onnxruntime_int8", precision="W4g32", progress=False)
    with pytest.raises(EncodingsError, match=r"wide/kernel.*40 inputs in blocks of 32"):
        keras_encodings(short)
