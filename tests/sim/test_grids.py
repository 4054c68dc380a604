"""`eq.grids`: every tensor of a sim, with the numbers that the exported file holds."""

import csv
import json

import numpy as np
import pytest
import tf_keras
from ai_edge_litert.interpreter import Interpreter

import keras_edgeq as eq

L = tf_keras.layers


def data(samples=32):
    return np.random.default_rng(0).normal(size=(samples, 6, 6, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    tf_keras.utils.set_random_seed(0)
    image = tf_keras.Input((6, 6, 2), name="image")
    x = L.Conv2D(4, 3, padding="same", activation="relu", name="conv")(image)
    y = L.DepthwiseConv2D(3, padding="same", name="deep")(x)
    x = L.Concatenate(name="join")([x, y])
    x = L.Flatten(name="flat")(L.MaxPooling2D(name="pool")(x))
    return tf_keras.Model(image, L.Dense(3, name="head")(x), name="net")


@pytest.fixture(scope="module")
def sim(model):
    return eq.quantize(model, data(), progress=False)


def test_each_tensor_has_a_row_in_graph_order_that_says_what_it_is(sim):
    kinds = {grid.tensor: grid.kind for grid in eq.grids(sim)}
    assert kinds == {
        "image": "input",
        "conv/kernel": "weight",
        "conv/bias": "bias",
        "conv/relu": "activation",
        "deep/depthwise_kernel": "weight",
        "deep/bias": "bias",
        "deep": "activation",
        "join": "activation",
        "pool": "activation",
        "flat": "activation",
        "head/kernel": "weight",
        "head/bias": "bias",
        "head": "activation",
    }
    assert list(kinds)[:3] == ["image", "conv/kernel", "conv/bias"]
    assert list(kinds)[-1] == "head"


def test_a_row_says_whose_grid_a_tensor_lies_on(sim):
    found = eq.grids(sim)
    assert found["conv/relu"].shared == ""
    for name in ("join", "pool", "flat", "deep"):
        owner = found[found[name].shared]
        assert owner.shared == ""
        assert found[name].scales == owner.scales


def test_ranges_are_those_of_the_grid(sim):
    for grid in eq.grids(sim):
        if grid.kind == "activation":
            low = grid.scales[0] * (-128 - grid.zero_points[0])
            high = grid.scales[0] * (127 - grid.zero_points[0])
            assert (grid.low, grid.high) == pytest.approx((low, high))
        if grid.kind == "weight":
            assert grid.high == pytest.approx(127 * max(grid.scales))
            assert grid.low == -grid.high


def test_the_numbers_are_those_of_the_exported_file(sim, tmp_path):
    report = eq.export(sim, tmp_path, ["tflite"], float_io=False, progress=False)
    interpreter = Interpreter(str(report.files["tflite"]))
    held = {}
    for tensor in interpreter.get_tensor_details():
        scales = tensor["quantization_parameters"]["scales"]
        if scales.size:
            held.setdefault(tensor["dtype"], []).append(np.sort(scales))
    for grid in eq.grids(sim):
        kind = {8: np.int8, 32: np.int32}[grid.bits]
        own = np.sort(np.float32(grid.scales))
        alike = [s for s in held[kind] if s.shape == own.shape and np.allclose(s, own, rtol=1e-6)]
        assert alike, grid.tensor


@pytest.mark.parametrize(
    ("precision", "names"),
    [
        ("W4A8", {"head/kernel": "int4", "head/bias": "int32", "image": "int8"}),
        ("W8A16", {"head/kernel": "int8", "head/bias": "int64", "image": "int16"}),
    ],
)
def test_types_are_those_of_the_precision(precision, names, sim):
    found = eq.grids(eq.requantize(sim, precision=precision))
    assert {name: found[name].type_name for name in names} == names


def test_what_is_float_has_no_row_and_half_precision_one_without_steps(sim):
    found = eq.grids(eq.requantize(sim, precision={"head": "FP16"}))
    assert found["head/kernel"].type_name == "float16"
    names = [grid.tensor for grid in eq.grids(eq.requantize(sim, precision={"head": "FP32"}))]
    assert "head/kernel" not in names
    assert "conv/kernel" in names


def test_learned_and_saved_sims_show_their_present_grids(model, tmp_path):
    sim = eq.learn_ranges(eq.quantize(model, data(), progress=False))
    before = eq.grids(sim)["conv/relu"].scales
    sim.compile(tf_keras.optimizers.Adam(0.05), "mse")
    sim.fit(data(), np.zeros((32, 3)), epochs=2, verbose=0)
    after = eq.grids(sim)
    assert after["conv/relu"].scales != before
    eq.save_sim(sim, tmp_path / "sim.keras")
    assert eq.grids(eq.load_sim(tmp_path / "sim.keras")).rows == after.rows


def test_channels_name_their_axis(sim):
    found = eq.grids(sim)
    assert found["conv/kernel"].channels == 4
    assert found["conv/kernel"].channel_axis == 3
    assert found["head/kernel"].channel_axis == 1
    assert found["image"].channel_axis is None


def test_a_csv_file_holds_every_field(sim, tmp_path):
    found = eq.grids(sim)
    found.to_csv(tmp_path / "grids.csv")
    with (tmp_path / "grids.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["tensor"] for row in rows] == [grid.tensor for grid in found]
    kernel = next(row for row in rows if row["tensor"] == "conv/kernel")
    assert tuple(map(float, kernel["scales"].split())) == found["conv/kernel"].scales
    assert kernel["signed"] == "True"


def test_records_and_json_hold_plain_values(sim):
    found = eq.grids(sim)
    assert found.records()[0]["tensor"] == "image"
    assert json.loads(json.dumps(found.to_json()))["grids"][1]["bits"] == 8


def test_a_place_that_cannot_be_written_is_one_error(sim, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(eq.EdgeqError, match="Cannot write"):
        eq.grids(sim).to_csv(tmp_path / "file" / "grids.csv")


def test_what_is_no_calibrated_sim_is_refused(model, sim):
    with pytest.raises(eq.EdgeqError, match="takes a sim"):
        eq.grids(model)
    with pytest.raises(KeyError):
        eq.grids(sim)["nowhere"]
    empty = tf_keras.models.clone_model(sim)
    with pytest.raises(eq.EdgeqError):
        eq.grids(empty)
