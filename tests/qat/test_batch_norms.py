import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import CalibrationDataError, UnsupportedModelError
from keras_edgeq.layers import FreezableBatchNorm
from keras_edgeq.sim.freeze import all_quantizers
from tests.models import train_like

L = tf_keras.layers
RNG = np.random.default_rng(0)
DATA = RNG.normal(size=(48, 8, 8, 3)).astype(np.float32)
LABELS = RNG.normal(size=(48, 5)).astype(np.float32)
KEPT = ["behind_conv", "behind_depthwise", "behind_pointwise"]
# Biases of this target are float, so that folding leaves nothing but float noise.
FLOAT_BIAS = "aimet_per_channel"


def make_model():
    """Batch norms ahead of, behind and without a layer; negative gammas, and none."""
    x = inputs = L.Input((8, 8, 3))
    x = L.BatchNormalization(name="ahead")(x)
    x = L.Conv2D(8, 3, name="conv")(x)
    x = L.BatchNormalization(name="behind_conv")(x)
    x = L.ReLU(name="relu")(x)
    x = L.DepthwiseConv2D(3, use_bias=False, name="depthwise")(x)
    x = L.BatchNormalization(name="behind_depthwise")(x)
    x = L.ReLU(6.0, name="relu6")(x)
    y = L.Conv2D(8, 1, use_bias=False, name="pointwise")(x)
    y = L.BatchNormalization(scale=False, name="behind_pointwise")(y)
    x = L.Add(name="add")([x, y])
    x = L.BatchNormalization(name="alone")(x)
    x = L.GlobalAveragePooling2D(name="mean")(x)
    model = train_like(tf_keras.Model(inputs, L.Dense(5, name="head")(x)))
    gamma = model.get_layer("behind_conv").gamma
    gamma.assign(gamma * np.where(np.arange(8) % 2, 1.0, -1.0))
    return model


def train(sim, epochs=2):
    sim.compile(tf_keras.optimizers.Adam(1e-2), "mse")
    sim.fit(DATA, LABELS, epochs=epochs, batch_size=16, verbose=0)
    return sim


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def trained(model):
    sim = eq.quantize(model, DATA, FLOAT_BIAS, batch_norm="train", progress=False)
    return train(eq.learn_ranges(sim))


def steps_of(sim, name):
    layer = sim.get_layer(name)
    return layer.quantizers[layer.kernel_name](getattr(layer.layer, layer.kernel_name))[1].numpy()


def test_batch_norms_behind_a_layer_stay_and_nothing_else_changes(model):
    before = model.get_weights()
    sim = eq.quantize(model, DATA, batch_norm="train", progress=False)
    folded = eq.quantize(model, DATA, progress=False)
    assert list(sim.batch_norms()) == KEPT
    assert set(all_quantizers(sim)) == set(all_quantizers(folded))
    np.testing.assert_allclose(eq.strip(sim)(DATA), model(DATA), rtol=0, atol=1e-5)
    assert not any(isinstance(layer, FreezableBatchNorm) for layer in eq.strip(sim).layers)
    for batch_norm in sim.batch_norms().values():
        assert batch_norm.gamma is None or np.all(batch_norm.gamma.numpy() >= 0.0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_kernels_are_quantized_as_they_are_and_ranges_lie_behind_the_batch_norm(model):
    sim = eq.quantize(model, DATA, batch_norm="train", progress=False)
    kernel = model.get_layer("depthwise").depthwise_kernel.numpy()
    scale = sim.get_layer("depthwise").quantizers["depthwise_kernel"].encoding.scale
    np.testing.assert_allclose(np.abs(kernel).max((0, 1)), scale[0, 0] * 127, rtol=1e-5)
    floats = tf_keras.Model(model.inputs, model.get_layer("relu6").output)
    seen = sim.stats.histograms["relu6"]
    np.testing.assert_allclose(seen.high, np.max(floats(DATA)), rtol=0.05)


def test_training_moves_statistics_unless_they_are_frozen(model):
    sim = eq.quantize(model, DATA, batch_norm="train", progress=False)
    frozen = sim.batch_norms()["behind_conv"]
    frozen.frozen.assign(1.0)
    before = {name: layer.get_weights() for name, layer in sim.batch_norms().items()}
    train(sim, 1)
    for name, layer in sim.batch_norms().items():
        mean, variance = layer.moving_mean.numpy(), layer.moving_variance.numpy()
        same = np.array_equal(mean, before[name][-3]) and np.array_equal(variance, before[name][-2])
        assert same == (name == "behind_conv")
    assert not np.array_equal(frozen.gamma.numpy(), before["behind_conv"][0])


@pytest.mark.parametrize("frozen", [False, True])
def test_a_freezable_batch_norm_computes_what_keras_own_does(frozen):
    ours, keras = FreezableBatchNorm(), L.BatchNormalization()
    x = tf.constant(RNG.normal(2.0, 3.0, (16, 4, 4, 3)).astype(np.float32))
    for layer in (ours, keras):
        layer.build(x.shape)
    ours.frozen.assign(float(frozen))
    traced = tf.function(lambda x, training: ours(x, training=training))
    for training in (True, False):
        wanted = keras(x, training=training and not frozen)
        np.testing.assert_allclose(traced(x, training), wanted, rtol=0, atol=1e-6)
        np.testing.assert_allclose(ours.moving_mean, keras.moving_mean, rtol=1e-6)


def test_freezing_needs_no_new_trace(model):
    sim = eq.quantize(model, DATA, batch_norm="train", progress=False)
    train(sim, 1)
    function = sim.make_train_function()
    traces = function.experimental_get_tracing_count()
    for batch_norm in sim.batch_norms().values():
        batch_norm.frozen.assign(1.0)
    sim.fit(DATA, LABELS, epochs=1, batch_size=16, verbose=0)
    assert sim.make_train_function() is function
    assert function.experimental_get_tracing_count() == traces


def test_folding_a_trained_sim_keeps_the_integers_and_the_outputs(trained):
    folded = eq.fold_batch_norms(trained)
    assert not folded.batch_norms()
    assert not folded.range_variables()
    for name in ("conv", "depthwise", "pointwise", "head"):
        np.testing.assert_array_equal(steps_of(folded, name), steps_of(trained, name))
    wanted, got = trained(DATA).numpy(), folded(DATA).numpy()
    step = trained.quantizers()["head"].encoding.scale
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1.01 * step)
    assert np.mean(got == wanted) > 0.98  # a value next to a tie takes the other step
    floats, ours = eq.strip(trained)(DATA).numpy(), eq.strip(folded)(DATA).numpy()
    np.testing.assert_allclose(ours, floats, rtol=0, atol=1e-5 * np.abs(floats).max())
    assert eq.fold_batch_norms(folded) is folded


def test_folding_leaves_the_sim_as_it_was(trained):
    before, weights = trained(DATA).numpy(), trained.get_weights()
    eq.fold_batch_norms(trained)
    np.testing.assert_array_equal(trained(DATA), before)
    for old, new in zip(weights, trained.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.slow
def test_a_folded_sim_is_exported_as_it_computes(model, tmp_path):
    sim = train(eq.learn_ranges(eq.quantize(model, DATA, batch_norm="train", progress=False)))
    folded = eq.fold_batch_norms(sim)
    report = eq.export(folded, tmp_path, formats=["tflite", "onnx"], verify=DATA[:8])
    assert all(run.agrees for run in report.runs)


def test_one_scale_for_a_kernel_is_an_error_that_names_the_layers(model):
    sim = eq.quantize(model, DATA, "litert_int8_per_tensor", batch_norm="train", progress=False)
    with pytest.raises(UnsupportedModelError, match=r"conv.*pointwise"):
        eq.fold_batch_norms(sim)


@pytest.mark.filterwarnings("ignore::keras_edgeq.errors.QuantizationWarning")
def test_a_dead_channel_folds(trained):
    sim = eq.requantize(trained, precision={})
    sim.batch_norms()["behind_conv"].gamma.assign([0.0, *[0.7] * 7])
    folded = eq.fold_batch_norms(sim)
    assert np.isfinite(folded(DATA)).all()
    assert np.mean(folded(DATA).numpy() == sim(DATA).numpy()) > 0.95


def test_a_saved_sim_goes_on_training_and_folds_to_the_same(trained, tmp_path):
    eq.save_sim(trained, tmp_path / "sim.keras")
    loaded = eq.load_sim(tmp_path / "sim.keras")
    assert list(loaded.batch_norms()) == KEPT
    np.testing.assert_array_equal(
        eq.fold_batch_norms(loaded)(DATA), eq.fold_batch_norms(trained)(DATA)
    )


def test_other_grids_keep_the_batch_norms(trained):
    narrow = eq.requantize(trained, "qnn_w4a8")
    assert list(narrow.batch_norms()) == KEPT
    assert narrow.get_layer("conv").quantizers["kernel"].encoding.spec.bits == 4
    np.testing.assert_allclose(eq.strip(narrow)(DATA), eq.strip(trained)(DATA), rtol=0, atol=1e-5)


def test_reestimated_statistics_are_those_of_all_samples(trained):
    sim = eq.reestimate_batch_norms(trained, DATA, batch_size=20, progress=False)
    inputs = {}
    graph = tf_keras.Model(
        sim.inputs, {name: layer.input for name, layer in sim.batch_norms().items()}
    )
    inputs = graph(DATA, training=False)
    for name, layer in sim.batch_norms().items():
        rows = np.reshape(np.float64(inputs[name]), (-1, inputs[name].shape[-1]))
        np.testing.assert_allclose(layer.moving_mean, rows.mean(0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(layer.moving_variance, rows.var(0), rtol=1e-4)
    old = trained.batch_norms()["behind_conv"]
    assert not np.allclose(old.moving_mean, sim.batch_norms()["behind_conv"].moving_mean, rtol=1e-3)


def test_reestimation_reads_a_short_dataset_to_its_end(trained):
    data = tf.data.Dataset.from_tensor_slices(DATA[:20]).batch(8)
    short = eq.reestimate_batch_norms(trained, data, 100, progress=False)
    whole = eq.reestimate_batch_norms(trained, DATA[:20], progress=False)
    for one, other in zip(short.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    few = eq.reestimate_batch_norms(trained, data, 1, progress=False)
    first = eq.reestimate_batch_norms(trained, DATA[:8], progress=False)
    for one, other in zip(few.get_weights(), first.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_reestimation_has_clear_errors(trained):
    with pytest.raises(UnsupportedModelError, match="batch_norm"):
        eq.reestimate_batch_norms(eq.fold_batch_norms(trained), DATA, progress=False)
    with pytest.raises(CalibrationDataError, match="no samples"):
        eq.reestimate_batch_norms(trained, DATA[:0], progress=False)


@pytest.mark.slow
def test_gptq_and_training_build_on_each_other(model):
    sim = eq.quantize(model, DATA, "qnn_w4a8", progress=False)
    rounded = eq.gptq(sim, DATA, progress=False)
    learning = train(eq.learn_ranges(rounded, "*"))
    again = eq.gptq(learning, DATA, progress=False)
    assert np.isfinite(again(DATA)).all()
    kernel = again.get_layer("conv").layer.kernel.numpy()
    scale = again.get_layer("conv").quantizers["kernel"].encoding.scale
    np.testing.assert_allclose(kernel / scale, np.rint(kernel / scale), atol=1e-3)


@pytest.mark.slow
def test_a_sim_with_data_from_no_calibration_trains_its_batch_norms(model):
    sim = eq.quantize(model, input_range=(-4.0, 4.0), batch_norm="train", progress=False)
    assert list(sim.batch_norms()) == KEPT
    assert np.isfinite(eq.fold_batch_norms(train(sim, 1))(DATA)).all()


def test_an_unknown_treatment_is_an_error(model):
    with pytest.raises(UnsupportedModelError, match="folded"):
        eq.quantize(model, DATA, batch_norm="folded", progress=False)
