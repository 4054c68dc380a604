import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import CalibrationDataError
from tests.harness import assert_same_arrays, outputs, saved_and_loaded
from tests.models import Input, batch_norm, inputs_for, make, train_like

L = tf_keras.layers
N = 6.0
RANGE = (-3.0, 3.0)


def quantize(model, input_range=RANGE, **options):
    return eq.quantize(train_like(model), input_range=input_range, **options)


def made_by(model, name):
    """Return mean and deviation of a batch norm's output."""
    layer = model.get_layer(name)
    gamma, beta, _, variance = (np.float64(w) for w in layer.get_weights())
    return beta, np.abs(gamma) * np.sqrt(variance / (variance + layer.epsilon))


def ends(sim, tensor):
    histogram = sim.stats.histograms[tensor]
    return histogram.low, histogram.high


def moments(sim, tensor):
    """Return mean and deviation over all values of a histogram."""
    histogram = sim.stats.histograms[tensor]
    shares = histogram.counts / histogram.total
    mean = shares @ histogram.bin_centers
    return mean, np.sqrt(shares @ (histogram.bin_centers - mean) ** 2)


def draw(rng, mean, deviation, samples=200_000):
    return rng.normal(mean, deviation, (samples, np.size(mean)))


def conv(x, name, filters=4):
    return batch_norm(L.Conv2D(filters, 3, padding="same", use_bias=False)(x), name)


def owner_of(sim, layer):
    """Return the tensor that a batch norm's or activation's output became."""
    return next(t for t in sim.stats.histograms if t.startswith(layer))


def test_a_batch_normed_tensor_ends_exactly_six_deviations_from_beta():
    x = Input((6, 6, 2))
    model = tf_keras.Model(x, batch_norm(L.Conv2D(4, 3, name="conv")(x), "norm"))
    sim = quantize(model)
    mean, deviation = made_by(model, "norm")
    low, high = (mean - N * deviation).min(), (mean + N * deviation).max()
    assert ends(sim, "conv") == (np.float32(low), np.float32(high))
    grid = sim.quantizers()["conv"].encoding
    step = float(grid.scale)
    assert float(grid.min) == pytest.approx(low, abs=step)
    assert float(grid.max) == pytest.approx(high, abs=step)


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        (lambda: L.ReLU(name="act"), lambda v: np.maximum(v, 0)),
        (lambda: L.ReLU(6.0, name="act"), lambda v: np.clip(v, 0, 6)),
        (lambda: L.ReLU(2.0, name="act"), lambda v: np.clip(v, 0, 2)),
        (lambda: L.LeakyReLU(0.2, name="act"), lambda v: np.where(v > 0, v, np.float32(0.2) * v)),
        (lambda: L.Activation("hard_sigmoid", name="act"), lambda v: np.clip(v / 5 + 0.5, 0, 1)),
        (lambda: L.Activation("swish", name="act"), lambda v: v / (1 + np.exp(-v))),
        (lambda: L.PReLU(shared_axes=[1, 2], name="act"), None),
    ],
)
def test_an_activation_does_to_the_statistics_what_it_does_to_values(activation, function):
    x = Input((6, 6, 2))
    y = L.Conv2D(3, 1, name="last")(activation()(conv(x, "norm")))
    model = tf_keras.Model(x, y)
    sim = quantize(model)
    mean, deviation = made_by(model, "norm")
    layer = model.get_layer("act")
    function = function or (lambda v: np.where(v > 0, v, np.ravel(layer.alpha) * v))
    grid = np.linspace(-N, N, 4097)[:, None]
    wanted = function(mean + grid * deviation)
    tail = 0.01 if "swish" in str(layer.get_config()) else 1e-5
    np.testing.assert_allclose(ends(sim, "act"), (wanted.min(), wanted.max()), atol=tail)
    values = function(draw(np.random.default_rng(0), mean, deviation))
    np.testing.assert_allclose(moments(sim, "act"), (values.mean(), values.std()), atol=0.01)


def test_means_and_variances_add_up():
    x = Input((6, 6, 2))
    y = L.Add(name="sum")([L.ReLU()(conv(x, "a")), conv(x, "b")])
    y = L.Subtract(name="difference")([y, conv(x, "c")])
    model = tf_keras.Model(x, y)
    sim = quantize(model)
    rng = np.random.default_rng(0)
    a, b, c = (draw(rng, *made_by(model, name)) for name in "abc")
    total = np.maximum(a, 0) + b
    np.testing.assert_allclose(moments(sim, "sum"), (total.mean(), total.std()), atol=0.01)
    total -= c
    np.testing.assert_allclose(moments(sim, "difference"), (total.mean(), total.std()), atol=0.01)
    mean, deviation = total.mean(axis=0), total.std(axis=0)
    wanted = (mean - N * deviation).min(), (mean + N * deviation).max()
    np.testing.assert_allclose(ends(sim, "difference"), wanted, rtol=0.01)


def test_a_sum_stays_within_the_ends_of_its_parts():
    x = Input((6, 6, 2))
    y = L.Add(name="sum")([L.ReLU(6.0)(conv(x, "a")), L.ReLU(6.0)(conv(x, "b"))])
    low, high = ends(quantize(tf_keras.Model(x, y)), "sum")
    assert low == 0.0
    assert high <= 12.0


@pytest.mark.filterwarnings("ignore::keras_edgeq.errors.QuantizationWarning")
def test_a_product_of_independent_tensors_has_their_moments():
    x = Input((6, 6, 2))
    model = tf_keras.Model(x, L.Multiply(name="product")([conv(x, "a"), conv(x, "b")]))
    sim = quantize(model)
    rng = np.random.default_rng(0)
    a, b = (draw(rng, *made_by(model, name)) for name in "ab")
    np.testing.assert_allclose(moments(sim, "product"), ((a * b).mean(), (a * b).std()), atol=0.02)


def test_a_concat_covers_its_parts_and_keeps_their_channels_apart():
    x = Input((6, 6, 2))
    a, b = L.ReLU(name="left")(conv(x, "a")), conv(x, "b", 2)
    joined = L.Concatenate(name="joined")([a, b])
    model = tf_keras.Model(x, L.Conv2D(2, 1)(L.Cropping2D(1, name="cut")(joined)))
    sim = quantize(model)
    (m, s), (k, t) = made_by(model, "a"), made_by(model, "b")
    low = min(0.0, (k - N * t).min())
    high = max((m + N * s).max(), (k + N * t).max())
    for tensor in ("joined", "cut"):
        np.testing.assert_allclose(ends(sim, tensor), (low, high), rtol=1e-6)
    grid = sim.quantizers()["left"].encoding  # shared by both parts
    assert float(grid.min) == pytest.approx(low, abs=float(grid.scale))
    assert float(grid.max) == pytest.approx(high, abs=float(grid.scale))


def test_a_split_finds_its_channels_again():
    x = Input((6, 6, 2))
    y = tf.split(conv(x, "norm"), 2, axis=-1)
    model = tf_keras.Model(x, [L.Conv2D(1, 1)(part) for part in y])
    sim = quantize(model)
    mean, deviation = made_by(model, "norm")
    first = owner_of(sim, "tf.split")
    for tensor, part in ((first, slice(0, 2)), (f"{first}:1", slice(2, 4))):
        wanted = (mean - N * deviation)[part].min(), (mean + N * deviation)[part].max()
        np.testing.assert_allclose(ends(sim, tensor), wanted, rtol=1e-6)


def test_every_call_of_a_shared_layer_has_the_statistics_of_its_batch_norm():
    model = make("shared_layer")
    sim = eq.quantize(model, input_range=RANGE)
    mean, deviation = made_by(model, "norm")
    wanted = (mean - N * deviation).min(), (mean + N * deviation).max()
    for tensor in ("conv", "conv@1", "joined"):
        np.testing.assert_allclose(ends(sim, tensor), wanted, rtol=1e-6)


WEIGHTED = {
    "Conv2D": lambda: L.Conv2D(3, 3, name="out"),
    "grouped": lambda: L.Conv2D(4, 3, groups=2, name="out"),
    "DepthwiseConv2D": lambda: L.DepthwiseConv2D(3, depth_multiplier=2, name="out"),
    "Dense": lambda: L.Dense(3, name="out"),
    "EinsumDense": lambda: L.EinsumDense("abcd,de->abce", (6, 6, 3), bias_axes="e", name="out"),
    "Conv2DTranspose": lambda: L.Conv2DTranspose(3, 2, strides=2, name="out"),
}


@pytest.mark.parametrize("kind", WEIGHTED)
def test_moments_go_through_weights_as_independent_values_do(kind):
    x = Input((6, 6, 4), name="x")
    model = train_like(tf_keras.Model(x, WEIGHTED[kind]()(x)))
    sim = eq.quantize(model, input_range=(-1.0, 2.0))
    values = np.random.default_rng(0).uniform(-1.0, 2.0, (3000, 6, 6, 4)).astype(np.float32)
    out = model.predict(values, verbose=0)
    np.testing.assert_allclose(moments(sim, "out"), (out.mean(), out.std()), atol=0.03)
    low, high = ends(sim, "out")
    assert low <= out.min()
    assert high >= out.max()


def test_pools_keep_bounds_and_moving_layers_keep_everything():
    x = Input((8, 8, 2))
    y = L.ReLU(name="relu")(conv(x, "norm"))
    y = L.ZeroPadding2D(name="pad")(L.MaxPooling2D(name="pool")(y))
    y = L.Reshape((36, 4), name="reshape")(y)
    y = L.GlobalAveragePooling1D(name="mean")(L.Permute((1, 2), name="turn")(y))
    sim = quantize(tf_keras.Model(x, L.Dense(2)(y)))
    wanted, spread = ends(sim, "relu"), moments(sim, "relu")
    for tensor in ("pool", "pad", "reshape", "turn", "mean"):
        assert ends(sim, tensor) == wanted
        np.testing.assert_allclose(moments(sim, tensor), spread, rtol=1e-4)


def test_means_per_channel_are_kept_whatever_the_ranges_come_from():
    x = Input((6, 6, 3), name="image")
    y = L.Conv2D(4, 3, use_bias=False, name="stem")(x)
    y = L.ReLU(name="relu")(batch_norm(y, "norm"))
    y = L.MaxPooling2D(name="pool")(L.Conv2D(5, 1, name="next")(y))
    model = train_like(tf_keras.Model(x, L.Activation("relu6", name="last")(y)))
    norm, layer = model.get_layer("norm"), model.get_layer("next")
    beta, gamma = norm.beta.numpy(), norm.gamma.numpy()
    relu = np.maximum(draw(np.random.default_rng(0), beta, gamma), 0.0).mean(0)
    known = eq.quantize(model, inputs_for(model), progress=False).stats.means
    assert "image" not in known
    np.testing.assert_allclose(known["stem"], beta, atol=1e-5)
    np.testing.assert_allclose(known["relu"], relu, atol=0.02)
    wanted = known["relu"] @ layer.kernel.numpy()[0, 0] + layer.bias
    np.testing.assert_allclose(known["next"], wanted, atol=0.1)
    np.testing.assert_array_equal(known["pool"], known["next"])
    blind = eq.quantize(model, input_range=(0.0, 4.0)).stats.means
    np.testing.assert_allclose(blind["image"], [2.0, 2.0, 2.0], atol=1e-5)
    for name, mean in known.items():
        np.testing.assert_array_equal(blind[name], mean)


def test_the_bounds_of_an_activation_tell_no_mean():
    x = Input((4,))
    y = L.Activation("sigmoid", name="gate")(L.ReLU(6.0, name="relu")(L.Dense(3, name="dense")(x)))
    model = train_like(tf_keras.Model(x, y))
    assert eq.quantize(model, inputs_for(model), progress=False).stats.means == {}


def test_what_a_batch_norm_saw_beats_what_was_reckoned():
    model = make("batch_norm_after_add")
    sim = eq.quantize(model, input_range=RANGE)
    norm = model.get_layer("after_add")
    mean, deviation = np.float64(norm.moving_mean), np.sqrt(np.float64(norm.moving_variance))
    wanted = (mean - N * deviation).min(), (mean + N * deviation).max()
    np.testing.assert_allclose(ends(sim, "sum"), wanted, rtol=1e-6)


def test_an_input_needs_no_range_in_front_of_a_batch_norm():
    model = make("batch_norm_first")
    sim = eq.quantize(model)
    norm = model.get_layer("standalone")
    mean, deviation = np.float64(norm.moving_mean), np.sqrt(np.float64(norm.moving_variance))
    wanted = (mean - N * deviation).min(), (mean + N * deviation).max()
    np.testing.assert_allclose(ends(sim, model.input_names[0]), wanted, rtol=1e-6)


def test_one_error_names_every_tensor_without_statistics_and_the_input():
    x = Input((6, 6, 2), name="image")
    y = L.Conv2D(3, 3, activation="relu", name="bare")(x)
    y = L.Add(name="sum")([conv(y, "norm", 3), y])
    model = train_like(tf_keras.Model(x, L.Softmax()(L.Dense(2, name="head")(L.Flatten()(y)))))
    with pytest.raises(CalibrationDataError) as error:
        eq.quantize(model)
    message = str(error.value)
    for part in ("image", "bare/relu", "sum", "head", "input_range={'image'", "calibration data"):
        assert part in message
    assert "softmax" not in message  # its range is fixed
    assert eq.quantize(model, input_range={"image": (0.0, 1.0)}).stats.samples == 0


def test_a_layer_nothing_is_known_about_is_named_and_no_input_range_offered():
    model = make("lambda_island")
    with pytest.raises(CalibrationDataError, match="about island, after") as error:
        eq.quantize(model, input_range=RANGE)
    assert "input_range" not in str(error.value)


@pytest.mark.parametrize("bad", [3.0, (1.0,), (2.0, 1.0), (0.0, np.inf), ("a", "b"), (1, 2, 3)])
def test_an_input_range_is_a_pair(bad):
    with pytest.raises(CalibrationDataError, match=r"input_range of 'a'.*two finite numbers"):
        eq.quantize(make("shared_layer"), input_range={"a": bad})


def test_an_input_range_names_inputs_and_stands_alone():
    model = make("shared_layer")
    with pytest.raises(CalibrationDataError, match=r"'c'.*inputs are"):
        eq.quantize(model, input_range={"c": (0, 1)})
    with pytest.raises(CalibrationDataError, match="only without calibration data"):
        eq.quantize(model, inputs_for(model), input_range=RANGE, progress=False)


@pytest.mark.parametrize(
    "hazard",
    ["residual", "shared_layer", "nested_twice", "several_outputs", "dicts", "op_constants",
     "separable", "transposed3d", "dense_batch_norm", "embedding", "zero_channel",
     "constant_activation", "batch_norm_first", "batch_norm_after_add", "pools", "moves"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::keras_edgeq.errors.QuantizationWarning")
def test_hazards_are_quantized_without_data(hazard):
    sim = eq.quantize(make(hazard), input_range=RANGE)
    assert sim.stats is not None
    assert all(q.encoding is not None for q in sim.quantizers().values())
    for out in outputs(sim, inputs_for(sim)):
        assert np.isfinite(out).all()


def test_other_rules_and_precisions_need_no_data_either():
    model = train_like(make("residual"))
    sim = eq.quantize(model, input_range=RANGE)
    assert {q.spec.rule for q in sim.quantizers().values() if not q.spec.fixed_range} == {"minmax"}
    tight = eq.requantize(sim, rules={"activations": "mse"})
    name = owner_of(sim, "re_lu")
    assert 0 < float(tight.quantizers()[name].scale) <= float(sim.quantizers()[name].scale)
    chosen = eq.quantize(model, input_range=RANGE, rules={"activations": "mse"})
    assert float(chosen.quantizers()[name].scale) == float(tight.quantizers()[name].scale)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_data_free_sim_is_saved_exported_and_verified(tmp_path):
    model = make("residual")
    sim = eq.quantize(model, input_range=RANGE)
    x = inputs_for(model)
    assert_same_arrays(outputs(sim, x), outputs(saved_and_loaded(sim), x))
    eq.save_sim(sim, tmp_path / "sim.keras")
    assert eq.load_sim(tmp_path / "sim.keras").stats.samples == 0
    report = eq.export(sim, tmp_path / "blind", ["tflite", "onnx"], progress=False)
    assert sim.record.samples == ()
    assert all("random input, not verified on data" in str(run) for run in report.runs)
    report = eq.export(sim, tmp_path / "seen", ["tflite", "onnx"], verify=x, progress=False)
    assert report.runs
    for run in report.runs:
        assert run.on_data
        assert run.agrees
