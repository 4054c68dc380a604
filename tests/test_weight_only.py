import numpy as np
import onnx
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.numerics.dynamic_rows import round_rows
from keras_edgeq.ops.einsum import summed_axes

L = tf_keras.layers


def network():
    """Dense, EinsumDense, convolutions: what has weights."""
    x = tf_keras.Input((6, 8, 4), name="image")
    y = L.Conv2D(8, 3, activation="relu", name="conv")(x)
    y = L.DepthwiseConv2D(3, name="depthwise", padding="same")(y)
    y = L.Reshape((24, 8))(y)
    y = L.EinsumDense("abc,cde->abde", (None, 2, 6), bias_axes="de", name="heads")(y)
    y = L.EinsumDense("abde,dec->abc", (None, 16), bias_axes="c", name="joined")(y)
    y = L.Dense(12, activation="relu", name="dense")(y)
    return tf_keras.Model(x, L.Dense(3, name="head")(L.GlobalAveragePooling1D()(y)))


@pytest.fixture(scope="module")
def model():
    tf_keras.utils.set_random_seed(0)
    return network()


@pytest.fixture(scope="module")
def data():
    return np.random.default_rng(0).normal(size=(8, 6, 8, 4)).astype("float32")


@pytest.fixture(scope="module")
def four(model, data):
    """The weights in 4 bits."""
    return eq.quantize(model, data, precision="W4", progress=False)


def rows_by_hand(x, axes):
    """Rows on int8 grids of their own, in NumPy, float64."""
    x = x.astype(np.float64)
    low = np.minimum(x.min(axes, keepdims=True), 0.0)
    high = np.maximum(x.max(axes, keepdims=True), 0.0)
    scale = np.where(high > low, (high - low) / 255.0, 1.0)
    candidates = np.stack([-128.0 - low / scale, 127.0 - high / scale])
    errors = -128.0 + low / scale + 127.0 + high / scale
    zero = np.rint(np.clip(np.where(errors > 0.0, *candidates), -128.0, 127.0))
    return (np.clip(np.rint(x / scale) + zero, -128.0, 127.0) - zero) * scale


@pytest.mark.parametrize("axes", [(-1,), (-2, -1)])
def test_rows_lie_on_grids_of_their_own(axes):
    x = np.random.default_rng(1).normal(size=(4, 5, 6)).astype("float32")
    x[0, 0] = 0.0
    x[1] += 9.0
    x[2] -= 9.0
    got = round_rows(tf.constant(x), axes).numpy()
    np.testing.assert_allclose(got, rows_by_hand(x, axes), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("equation", "axes"),
    [("abc,cd->abd", (2,)), ("a...c,cd->a...d", (3,)), ("ab...,bc->ac...", (1,))],
)
def test_rows_are_what_an_equation_sums_over(equation, axes):
    layer = L.EinsumDense(equation, (None,))
    assert summed_axes(layer, 3 if "..." not in equation else 4) == axes


def test_the_gradient_of_rows_passes_straight_through():
    x = tf.constant([[0.3, -2.0, 1.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(round_rows(x, [-1]) * [[1.0, 2.0, 3.0]])
    assert tape.gradient(y, x).numpy().tolist() == [[1.0, 2.0, 3.0]]


def test_nothing_but_weights_is_rounded():
    x = tf_keras.Input((6,))
    y = L.PReLU()(L.Dense(5, activation="gelu")(x))
    model = tf_keras.Model(x, L.Softmax()(tf.math.log(tf.nn.elu(L.Dense(5)(y)) + 2.0)))
    sim = eq.quantize(model, precision="W8", progress=False)
    assert sim.quantizers() == {}
    assert {kernel.precision for kernel in sim.record.plan.kernels.values()} == {"W8"}


@pytest.mark.parametrize("precision", ["W4", pytest.param("W8", marks=pytest.mark.slow)])
def test_files_compute_what_the_sim_does(model, data, four, precision, tmp_path):
    sim = four if precision == "W4" else eq.requantize(four, precision=precision)
    assert {k.precision for k in sim.record.plan.kernels.values() if k.has_weights} == {precision}
    report = eq.export(sim, tmp_path, ["tflite", "onnx"], verify=data, progress=False)
    for run in report.runs:
        most = 5e-3 if run.runtime == "LiteRT builtin" and precision == "W4" else 1e-5
        assert run.max_abs_difference < most, run
    held = report.constant_bytes
    weights = sum(layer.count_params() for layer in model.layers)
    assert held["float32"] < weights
    assert ("int4" in held) == (precision == "W4")
    convolutions = [model.get_layer(name).count_params() for name in ("conv", "depthwise")]
    kernels = sum(convolutions) - 8 - 8  # without the biases
    if precision == "W4":  # what hybrid kernels read is there once, in 4 bits
        assert held["int8"] == kernels


def test_of_a_target_without_such_kernels_inputs_stay_as_they_are(model, data, tmp_path):
    sim = eq.quantize(model, data, "onnxruntime_int8", precision="W8", progress=False)
    assert not any(layer.rounds_rows for layer in sim.quantized_layers().values())
    report = eq.export(sim, tmp_path, ["onnx"], verify=data, progress=False)
    assert report.runs[0].max_abs_difference < 1e-5


def test_no_data_is_needed_where_only_weights_are_rounded(model, data):
    plain = eq.quantize(model, precision="W8", progress=False)
    given = eq.quantize(model, data, precision="W8", progress=False)
    np.testing.assert_array_equal(plain(data), given(data))


def test_a_sim_comes_back_from_its_file_and_trains(four, data, tmp_path):
    eq.save_sim(four, tmp_path / "sim.keras")
    again = eq.load_sim(tmp_path / "sim.keras")
    np.testing.assert_array_equal(again(data), four(data))
    before = again.get_weights()
    again.compile("sgd", "mse")
    again.fit(data, np.ones((8, 3), "float32"), verbose=0)
    moved = [not np.array_equal(a, b) for a, b in zip(before, again.get_weights(), strict=True)]
    assert sum(moved) >= 12


def test_rounding_techniques_work_on_weights_alone(model, four, data):
    better = eq.gptq(four, data, progress=False)
    wanted = model(data).numpy()

    def error(one):
        return float(np.mean((one(data).numpy() - wanted) ** 2))

    assert error(better) < 0.75 * error(four)


def test_a_layer_beside_integers_can_have_its_weights_alone(model, data, tmp_path):
    sim = eq.quantize(model, data, precision={"heads": "W8", "joined": "W4"}, progress=False)
    report = eq.export(sim, tmp_path, ["tflite"], verify=data, progress=False)
    assert {run.verdict for run in report.runs} <= {"same", "kernel"}


def constant(*shape):
    return tf.constant(np.random.default_rng(sum(shape)).normal(size=shape).astype("float32"))


def beside_constants(step):
    """A layer with weights between constants, as a converter would compute ahead with them."""
    x = tf_keras.Input((6, 4))
    return tf_keras.Model(x, L.Dense(3)(step(x)))


# What the converter to ONNX would make one operation of.
CONSTANTS = {
    "sums": lambda x: (x + constant(1, 6, 4)) + constant(1, 5, 4)[:, :1],
    "products": lambda x: (x * constant(1, 6, 4)) * constant(4),
    "numbers beside constants": lambda x: ((x + 0.3) + constant(1, 6, 4)) + 0.1,
    "quotients": lambda x: ((x * 0.3) * constant(1, 6, 4)) / 0.7,
    "products of a convolution": lambda x: L.Conv1D(4, 3, use_bias=False)(x) * 0.3,
    "a token and positions": lambda x: tf.concat([x[:, :1] * 0.0 + 1.0, x], 1) + constant(1, 7, 4),
}


@pytest.mark.parametrize("step", CONSTANTS.values(), ids=list(CONSTANTS))
def test_constants_beside_weights_are_in_the_file_as_they_are(step, tmp_path):
    model, x = beside_constants(step), np.random.default_rng(0).normal(size=(8, 6, 4))
    sim = eq.quantize(model, profile="onnxruntime_int8", precision="W8", progress=False)
    report = eq.export(sim, tmp_path, ["onnx"], verify=x.astype("float32"), progress=False)
    assert report.runs[0].verdict == "same"
    assert report.runs[0].max_abs_difference < 1e-5
    operations = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
    assert "QuantizeLinear" not in operations
