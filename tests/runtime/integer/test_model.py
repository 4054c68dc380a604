"""`IntegerModel` executes whole files, shows inner tensors, and refuses what it does not know."""

from functools import cache

import numpy as np
import pytest

import keras_edgeq as eq
from keras_edgeq.errors import EdgeqError
from keras_edgeq.export.tflite.convert import to_tflite
from keras_edgeq.runtime.artifact import quantized_tensors
from keras_edgeq.runtime.integer import IntegerModel
from keras_edgeq.runtime.integer import model as executor
from keras_edgeq.runtime.litert import LiteRtModel
from keras_edgeq.runtime.tflite_file import with_tensors
from tests.models import inputs_for, make
from tests.runtime.integer.cases import CASES
from tests.runtime.integer.files import T, constant, one_op, options

WHOLE = (
    "residual", "unsorted_inputs", "several_outputs", "separate_activations", "op_layers",
    "conv1d", "transposed", "prelu", "einsum_dense", "embedding", "dynamic_size", "pools",
    "upsampling", "moves", "preprocessing", "more_moves", "caps", "recurrent",
)  # fmt: skip
PAIRS = [("builtin", "fixed_point"), ("xnnpack", "xnnpack_float")]


@cache
def exported(hazard, **how):
    model = make(hazard)
    x = inputs_for(model)
    sim = eq.quantize(model, x, progress=False)
    arrays = list(x.values()) if isinstance(x, dict) else [x]
    return sim, to_tflite(sim, **how).content, arrays


@pytest.mark.slow
@pytest.mark.parametrize("hazard", WHOLE)
def test_a_whole_model_is_bit_identical_inside_and_out(hazard):
    sim, content, inputs = exported(hazard)
    names = sim.input_names
    probe = with_tensors(content, quantized_tensors(sim))
    for kernels, arithmetic in PAIRS:
        model = IntegerModel(content, arithmetic)
        theirs, ours = LiteRtModel(content, kernels).run(inputs, names), model.run(inputs, names)
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            np.testing.assert_array_equal(ours[name], value)
        inner = LiteRtModel(probe, kernels).tensors(inputs, names)
        for name, value in model.tensors(inputs, names, inner).items():
            np.testing.assert_array_equal(value, inner[name], name)


@pytest.mark.parametrize("precision", ["W8A16", "W4A8", "W4A16"])
def test_other_precisions_are_bit_identical(precision):
    model = make("op_layers")
    x = inputs_for(model)
    sim = eq.quantize(model, x, precision={"*": precision}, progress=False)
    content = to_tflite(sim).content
    inputs = list(x.values()) if isinstance(x, dict) else [x]
    for kernels, arithmetic in PAIRS:
        theirs = LiteRtModel(content, kernels).run(inputs, sim.input_names)
        ours = IntegerModel(content, arithmetic).run(inputs, sim.input_names)
        for name, value in theirs.items():
            np.testing.assert_array_equal(ours[name], value)


def test_pieces_make_no_difference(monkeypatch):
    sim, content, (x,) = exported("residual")
    many = np.concatenate([x, x + 0.1, x - 0.1])
    whole = IntegerModel(content).run([many], sim.input_names)
    monkeypatch.setattr(executor, "PIECE", 1)
    model = IntegerModel(content)
    assert model._samples() == 16
    for name, value in model.run([many], sim.input_names).items():
        np.testing.assert_array_equal(value, whole[name])


@pytest.mark.slow
def test_integer_inputs_are_quantized_as_litert_is_fed():
    sim, content, inputs = exported("residual", float_io=False)
    theirs = LiteRtModel(content, "builtin").run(inputs, sim.input_names)
    ours = IntegerModel(content).run(inputs, sim.input_names)
    for name, value in theirs.items():
        assert value.dtype == np.int8
        np.testing.assert_array_equal(ours[name], value)


def test_a_partial_model_computes_what_it_knows_on_what_it_is_fed():
    sim, content, (x,) = exported("lambda_island")
    names = quantized_tensors(sim)
    with pytest.raises(EdgeqError, match="does not know"):
        IntegerModel(content)
    model = IntegerModel(content, "xnnpack_float", partial=True)
    probe = LiteRtModel(with_tensors(content, names), "xnnpack").tensors([x], sim.input_names)
    theirs = {name: probe[name] for name in names if probe[name].dtype == np.int8}
    alone = model.tensors([x], sim.input_names, names)
    fed = model.tensors([x], sim.input_names, names, theirs)
    assert set(alone) < set(fed)
    for name, value in fed.items():
        np.testing.assert_array_equal(value, theirs[name])


def test_fed_values_take_the_place_of_computed_ones():
    sim, content, (x,) = exported("residual")
    model, names = IntegerModel(content), quantized_tensors(sim)
    computed = model.tensors([x], sim.input_names, names)
    first, *others = [name for name in names if name in computed]
    changed = {first: np.zeros_like(computed[first])}
    shown = model.tensors([x], sim.input_names, names, changed)
    np.testing.assert_array_equal(shown[first], computed[first])
    assert any(not np.array_equal(shown[name], computed[name]) for name in others)
    again = model.tensors([x], sim.input_names, names, computed)
    for name in names:
        np.testing.assert_array_equal(again[name], computed[name])


def test_the_model_describes_its_inputs_and_outputs_as_litert_does():
    _, content, _ = exported("unsorted_inputs", float_io=False)
    ours, theirs = IntegerModel(content), LiteRtModel(content)
    for mine, other in ((ours.inputs, theirs.inputs), (ours.outputs, theirs.outputs)):
        assert mine.keys() == other.keys()
        for name, detail in other.items():
            assert mine[name]["dtype"] == detail["dtype"]
            assert mine[name]["quantization"] == detail["quantization"]
            np.testing.assert_array_equal(mine[name]["shape_signature"], detail["shape_signature"])


def test_int4_weights_are_unpacked():
    values = np.array([[-7, 7, 3], [0, -1, 5]], np.int8)
    x, w = T((1, 3), "int8", np.float32(1), 0), constant(values, "int4", np.float32(1))
    out = T((1, 2), "int8", np.float32(1), 0)
    content = one_op("FULLY_CONNECTED", [x, w], [out], options("FullyConnected"), 10)
    made = IntegerModel(content).run([np.array([[1, 2, 3]], np.int8)], ["in0"])["out0"]
    assert made.tolist() == [[16, 13]]


@pytest.mark.slow
@pytest.mark.parametrize(("hazard", "op"), [("conv3d", "CONV_3D"), ("lambda_island", "EXP")])
def test_an_operation_it_does_not_know_is_an_error_with_the_way_out(hazard, op):
    _, content, _ = exported(hazard)
    with pytest.raises(EdgeqError, match=f"does not know .*{op}.*run the file on LiteRT instead"):
        IntegerModel(content)


def test_a_known_operation_on_floats_is_an_error_that_says_so():
    a = T((2, 3), "float32")
    content = one_op("ADD", [a, a], [a], options("Add"), 1)
    with pytest.raises(EdgeqError, match="ADD on floats"):
        IntegerModel(content)


def test_zero_points_per_channel_are_an_error_that_names_the_tensor():
    x = T((1, 3), "int8", np.float32(1), 0)
    w = constant(np.ones((2, 3), np.int8), None, np.ones(2, np.float32), [0, 1])
    out = T((1, 2), "int8", np.float32(1), 0)
    content = one_op("FULLY_CONNECTED", [x, w], [out], options("FullyConnected"), 12)
    with pytest.raises(EdgeqError, match="'in1' has different zero points"):
        IntegerModel(content)


def test_unknown_arithmetic_is_an_error():
    with pytest.raises(EdgeqError, match="arithmetic is 'exact'"):
        IntegerModel(b"", "exact")


@pytest.mark.parametrize("content", [b"", b"no model at all", bytes(2000), b"\x1c\0\0\0TFL3" * 9])
def test_a_damaged_file_is_an_error(content):
    with pytest.raises(EdgeqError, match="cannot load the file"):
        IntegerModel(content)


@pytest.mark.parametrize("case", ["conv", "depthwise", "add", "softmax", "max pool"])
def test_a_file_with_changed_bytes_runs_or_is_an_error(case):
    content, inputs = CASES[case](np.random.default_rng(0))
    names = list(IntegerModel(content).inputs)
    rng = np.random.default_rng(1)
    errors = 0
    for _ in range(100):
        damaged = bytearray(content)
        for at in rng.integers(8, len(content), 3):
            damaged[at] = rng.integers(256)
        try:
            model = IntegerModel(bytes(damaged))
            if list(model.inputs) == names:
                model.run(inputs, names)
        except EdgeqError:
            errors += 1
    assert 0 < errors < 100


def test_inputs_of_another_shape_are_an_error_that_names_the_operation():
    content, _ = CASES["dense"](np.random.default_rng(0))
    with pytest.raises(EdgeqError, match="cannot compute FULLY_CONNECTED"):
        IntegerModel(content).run([np.zeros((2, 7), np.int8)], ["in0"])
