"""The float parameters of a rounded sim on disk: whole, its own, or one error."""

import numpy as np
import pytest

import keras_edgeq as eq
from keras_edgeq.errors import EdgeqError
from keras_edgeq.sim.freeze import copy_sim
from keras_edgeq.sim.reference import float_form, float_parameters
from tests.harness import assert_same_arrays
from tests.models import inputs_for, make


@pytest.fixture(scope="module")
def sim():
    model = make("forward_dense")
    sim = eq.quantize(model, inputs_for(model), progress=False)
    for layer in sim.quantized_layers().values():
        layer.layer.kernel.assign(layer.rounded_params()["kernel"])
    sim.reference = {name: v + 1.0 for name, v in float_parameters(sim).items()}
    return sim


@pytest.fixture
def path(sim, tmp_path):
    eq.save_sim(sim, tmp_path / "sim.keras")
    return tmp_path / "sim.float.npz"


def rewritten(path, **changes):
    with np.load(path) as data:
        arrays = {**data, **changes}
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})


def test_after_training_the_weights_of_now_are_the_float_ones(sim):
    trained = copy_sim(sim)
    kernel = trained.quantized_layers()["dense"].layer.kernel
    kernel.assign_add(0.3 * trained.quantized_layers()["dense"].quantizers["kernel"].scale + kernel)
    assert float_form(trained) is trained
    np.testing.assert_array_equal(float_parameters(trained)["dense/kernel"], kernel)


def test_the_float_form_holds_the_reference_and_shares_nothing(sim):
    before = sim.get_weights()
    exact = float_form(sim)
    layer, own = exact.quantized_layers()["dense"].layer, sim.quantized_layers()["dense"].layer
    np.testing.assert_array_equal(layer.kernel, sim.reference["dense/kernel"])
    np.testing.assert_array_equal(layer.bias, sim.reference["dense/bias"])
    np.testing.assert_array_equal(own.kernel + 1.0, layer.kernel)
    assert_same_arrays(before, sim.get_weights())
    plain = copy_sim(sim)
    plain.reference = None
    np.testing.assert_array_equal(float_parameters(plain)["dense/kernel"], own.kernel)
    assert float_form(plain) is plain


def as_text(path):
    path.write_text("not an archive")


def as_single_array(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "text": as_text,
    "one array": as_single_array,
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "no kernel": lambda path: rewritten(path, **{"dense/kernel": None}),
    "of another shape": lambda path: rewritten(path, **{"dense/bias": np.zeros(5, np.float32)}),
    "float64": lambda path: rewritten(path, **{"dense/bias": np.zeros(4)}),
    "NaN": lambda path: rewritten(path, **{"dense/bias": np.full(4, np.nan, np.float32)}),
    "pickled": lambda path: rewritten(path, **{"dense/bias": np.array([{}] * 4, object)}),
    "text inside": lambda path: rewritten(path, **{"dense/bias": np.array(["a"] * 4)}),
    "a bomb": lambda path: rewritten(path, more=np.zeros(10_000_000, np.float32)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_or_foreign_file_is_named_and_nothing_else_is_raised(path, damage):
    DAMAGE[damage](path)
    with pytest.raises(EdgeqError, match=r"sim\.float\.npz"):
        eq.load_sim(path.with_name("sim.keras"))


def test_an_h5_file_keeps_it_too(sim, tmp_path):
    eq.save_sim(sim, tmp_path / "sim.h5")
    reference = eq.load_sim(tmp_path / "sim.h5").reference
    assert_same_arrays(list(sim.reference.values()), list(reference.values()))
