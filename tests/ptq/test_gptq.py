"""`gptq` on a small net of every kind of product: closer to the float model, all on the grid."""

from functools import cache

import numpy as np
import pytest
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import CalibrationDataError, EdgeqError, ProfileError
from keras_edgeq.numerics.metrics import sqnr_db
from keras_edgeq.prepare import prepare
from keras_edgeq.profiles import load_profile
from keras_edgeq.sim.derive import derive_weights
from keras_edgeq.sim.freeze import copy_sim
from keras_edgeq.sim.insert import insert
from keras_edgeq.sim.quant_sim import SimRecord
from keras_edgeq.sim.reference import float_parameters
from keras_edgeq.sim.resolve import resolve
from tests.harness import assert_same_arrays, assert_same_sim, outputs
from tests.models import inputs_for, make, train_like

L = tf_keras.layers
QUIET = {"progress": False}
ROUNDED = {"stem", "deep", "wide", "up", "scores"}
# W4A8, and W8 with a scale per channel and one per tensor.
SETTINGS = {
    "W4": {"profile": "litert_w4a8"},
    "W8 channel": {"profile": "litert_int8"},
    "W8 tensor": {"profile": "aimet_default"},
}


def net():
    """A convolution without bias, a depthwise, a grouped, a transposed one, and a Dense layer."""
    x = tf_keras.Input((8, 8, 3), name="image")
    y = L.ReLU()(L.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(x))
    y = L.ReLU(6.0)(L.DepthwiseConv2D(3, strides=2, padding="same", name="deep")(y))
    y = L.ReLU()(L.Conv2D(8, 1, name="wide")(y))
    y = L.ReLU()(L.Conv2DTranspose(6, 3, strides=2, name="up")(y))
    return train_like(tf_keras.Model(x, L.Dense(5, name="scores")(L.GlobalMaxPooling2D()(y))))


def images(samples, seed=0):
    """Images whose pixels are alike, as those of photographs are."""
    rng = np.random.default_rng(seed)
    small = rng.normal(size=(samples, 4, 4, 3)) + rng.normal(size=(samples, 1, 1, 1))
    return np.float32(small.repeat(2, 1).repeat(2, 2) + 0.1 * rng.normal(size=(samples, 8, 8, 3)))


@cache
def made(setting):
    """Return a float model, its sim rounded to the nearest, and that after `gptq`."""
    model = net()
    sim = eq.quantize(model, images(96), **SETTINGS[setting], **QUIET)
    before = state(sim)
    better = eq.gptq(sim, images(96), **QUIET)
    assert_same_state(before, state(sim))
    return model, sim, better


@pytest.fixture(params=SETTINGS)
def case(request):
    return made(request.param)


def state(sim):
    """Return all that a technique could change in a sim."""
    return sim.get_weights(), sim.record.to_json(), sim.stats, sim.reference


def assert_same_state(before, after):
    assert_same_arrays(before[0], after[0])
    assert before[1:] == after[1:]


def noise(model, sim):
    x = images(256, seed=9)
    return sqnr_db(outputs(model, x)[0], outputs(sim, x)[0])


def test_new_images_come_closer_to_the_float_model(case):
    model, sim, better = case
    assert noise(model, better) > noise(model, sim) + 1.0


def test_weights_lie_on_their_grid_and_grids_are_frozen(case):
    _, sim, better = case
    assert dict(better.record.rounded) == dict.fromkeys(ROUNDED, "gptq")
    assert better.record.frozen == {
        f"{name}/{layer.kernel_name}" for name, layer in sim.quantized_layers().items()
    }
    for layer in better.quantized_layers().values():
        encoding = layer.quantizers[layer.kernel_name].encoding
        kernel = getattr(layer.layer, layer.kernel_name).numpy()
        integers = kernel / encoding.scale + encoding.zero_point
        np.testing.assert_allclose(integers, np.rint(integers), atol=1e-3)
        low, high = encoding.bounds
        assert integers.min() > low - 1e-3
        assert integers.max() < high + 1e-3
        np.testing.assert_allclose(layer.rounded_params()[layer.kernel_name], kernel, rtol=1e-5)


def test_the_float_parameters_are_kept_and_no_calibration_moves_a_weight(case):
    _, sim, better = case
    held = float_parameters(sim)
    assert sorted(better.reference) == sorted(held)
    assert_same_arrays(list(held.values()), [better.reference[name] for name in held])
    copy = copy_sim(better)
    derive_weights(copy)
    assert_same_arrays(better.get_weights(), copy.get_weights())


def test_a_second_time_starts_from_the_float_parameters():
    model, sim, once = made("W4")
    again = eq.gptq(once, images(96), **QUIET)
    assert_same_arrays(list(once.reference.values()), list(again.reference.values()))
    assert again.record.rounded == once.record.rounded
    assert noise(model, again) > noise(model, sim) + 1.0


def test_the_first_layer_has_no_bias_and_the_sums_of_the_others_are_right_on_average():
    model, sim, better = made("W4")
    assert better.quantized_layers()["stem"].layer.bias is None
    off = [
        np.abs((outputs(s, images(96))[0] - outputs(model, images(96))[0]).mean(0))
        for s in (sim, better)
    ]
    assert off[1].max() < 0.5 * off[0].max()


@pytest.mark.filterwarnings("ignore::keras_edgeq.errors.QuantizationWarning")
def test_a_shared_layer_is_fitted_on_all_its_calls():
    model = make("shared_layer")
    x = inputs_for(model, 128)
    x["a"] = x["a"] + 2.0 * np.float32(np.random.default_rng(0).normal(size=(128, 1, 1, 1)))
    x["b"] *= 0.01  # the last call alone knows next to nothing
    sim = eq.quantize(model, x, "litert_w4a8", **QUIET)
    better = eq.gptq(sim, x, **QUIET)
    assert dict(better.record.rounded) == {"conv": "gptq"}
    wanted, before, after = (outputs(m, x)[0][..., :4] for m in (model, sim, better))
    assert sqnr_db(wanted, after) > sqnr_db(wanted, before) + 1.0


@pytest.mark.filterwarnings("ignore:gptq changed nothing in:keras_edgeq.QuantizationWarning")
def test_layers_that_are_no_products_stay_rounded_to_the_nearest():
    ids = tf_keras.Input((6,), dtype="int32")
    embedded = L.PReLU(alpha_initializer="ones")(L.Embedding(20, 5)(ids))
    model = tf_keras.Model(ids, L.GlobalAveragePooling1D()(embedded))
    x = np.random.default_rng(0).integers(0, 20, (32, 6)).astype(np.int32)
    sim = eq.quantize(model, x, "litert_w4a8", **QUIET)
    better = eq.gptq(sim, x, **QUIET)
    assert dict(better.record.rounded) == {}
    assert_same_arrays(outputs(sim, x), outputs(better, x))


def test_a_target_of_the_same_weights_keeps_them_and_another_is_refused():
    _, _, better = made("W8 channel")
    moved = eq.requantize(better, rules={"activations": "mse"})
    assert moved.record.rounded == better.record.rounded
    assert moved.reference is better.reference
    for name, layer in better.quantized_layers().items():
        kept = moved.quantized_layers()[name]
        kernel = layer.kernel_name
        np.testing.assert_array_equal(layer.rounded_params()[kernel], kept.rounded_params()[kernel])
    with pytest.raises(ProfileError, match="frozen"):
        eq.requantize(better, precision={"*": "W4A8"})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_file_computes_what_the_sim_does(tmp_path):
    _, _, better = made("W4")
    report = eq.export(better, tmp_path, ["tflite"], verify=images(16, seed=3), **QUIET)
    assert report.runs
    for run in report.runs:
        assert run.agrees


def test_a_saved_sim_keeps_what_it_was_rounded_from(tmp_path):
    _, sim, better = made("W4")
    path = tmp_path / "sim.keras"
    eq.save_sim(better, path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "sim.float.npz", "sim.keras", "sim.stats.npz",
    ]  # fmt: skip
    loaded = eq.load_sim(path)
    assert_same_sim(better, loaded)
    assert list(loaded.reference) == list(better.reference)
    assert_same_arrays(list(better.reference.values()), list(loaded.reference.values()))
    eq.save_sim(sim, path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sim.keras", "sim.stats.npz"]
    assert eq.load_sim(path).reference is None


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (np.zeros((0, 8, 8, 3), np.float32), CalibrationDataError, "no samples"),
        (np.full((4, 8, 8, 3), np.nan, np.float32), CalibrationDataError, "NaN"),
        (np.zeros((4, 7, 8, 3), np.float32), CalibrationDataError, "shape"),
    ],
)
@pytest.mark.parametrize("technique", [eq.gptq, eq.correct_bias])
def test_data_that_does_not_fit_is_refused(technique, data, error, message):
    with pytest.raises(error, match=message):
        technique(made("W4")[1], data, **QUIET)


@pytest.mark.parametrize("technique", [eq.gptq, eq.correct_bias])
def test_what_is_no_calibrated_sim_is_refused(technique):
    with pytest.raises(EdgeqError, match="not a sim"):
        technique(make("forward_dense"), images(4), **QUIET)
    model, profile = prepare(make("forward_dense")), load_profile("litert_int8")
    sim = insert(model, SimRecord(profile, resolve(model, profile), tuple(model.output_names)))
    with pytest.raises(EdgeqError, match="no grid; calibrate"):
        technique(sim, np.zeros((4, 6), np.float32), **QUIET)
