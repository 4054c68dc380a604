import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import keras_edgeq as eq
from keras_edgeq.errors import EncodingsError
from keras_edgeq.export.encodings import format_0_6, format_1_0, format_2_0, keras_encodings
from keras_edgeq.export.encodings.entry import TensorGrid
from keras_edgeq.sim.freeze import all_quantizers
from keras_edgeq.spec.encoding import Encoding
from keras_edgeq.spec.quant_spec import HALF, QuantSpec
from tests.models import inputs_for, make

pytestmark = pytest.mark.slow

VERSIONS = ("0.6.1", "1.0.0", "2.0.0")
WEIGHT = QuantSpec(symmetric=True, narrow_range=True)
GRIDS = {
    "W8A8": ({}, WEIGHT),
    "W4A8": ({}, replace(WEIGHT, bits=4)),
    "W8A16": ({"bits": 16}, WEIGHT),
    "symmetric": (
        {"bits": 16, "symmetric": True, "signed": True},
        replace(WEIGHT, narrow_range=False),
    ),
    "unsigned": ({"signed": False}, replace(WEIGHT, bits=5)),
    "unsigned where no value is negative": ({"symmetric": True, "signed": None}, WEIGHT),
    "signed by the data": ({"signed": None}, WEIGHT),
    "per tensor": ({}, replace(WEIGHT, bits=7)),
}


def profile(grids):
    activation, weight = GRIDS[grids]
    base = eq.load_profile("qnn_w8a8")
    activation = replace(base.activation, **activation)
    per_channel = frozenset() if grids == "per tensor" else base.per_channel
    return replace(base, activation=activation, weight=weight, per_channel=per_channel)


@cache
def sims(grids):
    """Return a sim, and one of the same model calibrated on other data."""
    model = make("residual")
    x = inputs_for(model)
    target = profile(grids)
    first = eq.quantize(model, x, target, progress=False)
    for weight in model.weights:
        weight.assign(weight * 1.1)
    return first, eq.quantize(model, 1.7 * x, target, progress=False)


def written(document, path):
    path.write_text(json.dumps(document))
    return path


def grids_of(sim):
    return {name: quantizer.encoding for name, quantizer in all_quantizers(sim).items()}


def assert_same_grids(wanted, got):
    assert wanted.keys() == got.keys()
    for name, grid in wanted.items():
        assert got[name].spec.bits == grid.spec.bits, name
        assert got[name].bounds == grid.bounds, name
        np.testing.assert_array_equal(got[name].scale, grid.scale, name)
        np.testing.assert_array_equal(got[name].zero_point, grid.zero_point, name)


@pytest.mark.parametrize("grids", GRIDS)
@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_gives_a_fresh_sim_the_same_grids(version, grids, tmp_path):
    sim, fresh = sims(grids)
    before, wanted = grids_of(fresh), grids_of(sim)
    assert any(not np.array_equal(grid.scale, wanted[name].scale) for name, grid in before.items())
    path = written(keras_encodings(sim, version), tmp_path / "grids.json")
    got = grids_of(eq.load_encodings(fresh, path))
    if version != "2.0.0" and grids == "signed by the data":
        # Without signedness in the file an asymmetric grid is unsigned: the same real numbers.
        for name, grid in wanted.items():
            np.testing.assert_array_equal(got[name].min, grid.min)
            np.testing.assert_array_equal(got[name].max, grid.max)
    else:
        assert_same_grids(wanted, got)
    assert_same_grids(before, grids_of(fresh))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("drop", ["version", "producer", "quantizer_args", "keras_edgeq"])
def test_the_head_of_a_file_may_be_missing(version, drop, tmp_path):
    sim, fresh = sims("W8A8")
    document = keras_encodings(sim, version)
    del document[drop]
    document.update(excluded_layers=[], later={"x": [1]})
    path = written(document, tmp_path / "grids.json")
    assert_same_grids(grids_of(sim), grids_of(eq.load_encodings(fresh, path)))


def test_version_0_6_1_has_an_entry_per_channel_with_its_range():
    sim, _ = sims("W4A8")
    document = keras_encodings(sim, "0.6.1")
    for layer in sim.quantized_layers().values():
        for name, quantizer in layer.quantizers.items():
            channels = document["param_encodings"][f"{layer.name}/{name}"]
            assert len(channels) == quantizer.encoding.scale.size
            for channel, scale in zip(channels, quantizer.encoding.scale.ravel(), strict=True):
                assert channel["is_symmetric"] == "True"
                assert (channel["bitwidth"], channel["dtype"]) == (4, "int")
                assert (channel["min"], channel["max"]) == (-8 * float(scale), 7 * float(scale))
                assert channel["offset"] == -8


def test_version_2_0_0_is_a_quantize_linear_per_tensor():
    sim, _ = sims("W4A8")
    listed = {entry["name"]: entry for entry in keras_encodings(sim, "2.0.0")["encodings"]}
    for name, quantizer in all_quantizers(sim).items():
        grid, entry = quantizer.encoding, listed.pop(name)
        sign = "" if grid.spec.signed else "u"
        assert entry["output_dtype"] == f"{sign}int{grid.spec.bits}"
        np.testing.assert_array_equal(np.ravel(np.float32(entry["y_scale"])), grid.scale.ravel())
        points = np.broadcast_to(entry.get("y_zero_point", 0), grid.scale.size)
        np.testing.assert_array_equal(points, grid.zero_point.ravel())
        assert ("axis" in entry) == bool(grid.scale.ndim)
        if grid.scale.ndim:
            assert grid.scale.shape[entry["axis"]] == grid.scale.size
    assert not listed


def test_two_channel_axes_do_not_fit_version_2_0_0():
    model = make("depth_multiplier")
    sim = eq.quantize(model, inputs_for(model), "qnn_w8a8", progress=False)
    with pytest.raises(EncodingsError, match="one axis"):
        keras_encodings(sim, "2.0.0")
    assert keras_encodings(sim, "0.6.1")["param_encodings"]


FORMATS = {"0.6.1": format_0_6, "1.0.0": format_1_0, "2.0.0": format_2_0}
FLOATS = {
    "0.6.1": [{"bitwidth": 16, "dtype": "float"}],
    "1.0.0": [{"name": "t", "dtype": "FLOAT", "enc_type": "PER_TENSOR", "bw": 16}],
    "2.0.0": [],
}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_half_precision_tensor_in_each_version(version):
    half = Encoding(HALF, np.ones((), np.float32), np.zeros((), np.int32))
    document = FORMATS[version].sections([TensorGrid("activation_encodings", "t", half)])
    held = document.get("activation_encodings", document.get("encodings"))
    assert (held["t"] if version == "0.6.1" else held) == FLOATS[version]
    read = [(e.name, e.bits, e.scale) for e in FORMATS[version].entries(document, "here")]
    assert read == ([("t", 16, None)] if version != "2.0.0" else [])


@pytest.mark.parametrize("version", VERSIONS)
def test_a_sim_with_half_precision_layers_comes_back(version, tmp_path):
    model = make("residual")
    x, options = inputs_for(model), {"precision": {"scores*": "FP16"}, "progress": False}
    sim = eq.quantize(model, x, "qnn_w8a8", **options)
    fresh = eq.quantize(model, 1.7 * x, "qnn_w8a8", **options)
    halves = {name for name, grid in grids_of(sim).items() if grid.spec.is_half}
    assert "scores/kernel" in halves
    path = written(keras_encodings(sim, version), tmp_path / "grids.json")
    assert_same_grids(grids_of(sim), grids_of(eq.load_encodings(fresh, path)))
    plain = eq.quantize(model, x, "qnn_w8a8", progress=False)
    message = "does not have" if version == "2.0.0" else r"float16 in the file and int8"
    with pytest.raises(EncodingsError, match=message):
        eq.load_encodings(plain, path, strict=version == "2.0.0")


@pytest.mark.parametrize("version", VERSIONS)
def test_export_writes_the_version_that_is_asked_for(version, tmp_path):
    sim, fresh = sims("W8A8")
    options = {"formats": ["encodings"], "verify": False, "progress": False}
    eq.export(sim, tmp_path, encodings_version=version, **options)
    by_onnx = json.loads((tmp_path / "model.aimet" / "model.encodings").read_text())
    assert by_onnx["version"] == version
    loaded = eq.load_encodings(fresh, tmp_path / "model.encodings.json")
    assert_same_grids(grids_of(sim), grids_of(loaded))
    if version == "2.0.0":
        axes = {e["name"]: e.get("axis") for e in by_onnx["encodings"]}
        convolutions = {name: axis for name, axis in axes.items() if "conv" in name and "/" in name}
        assert len(convolutions) == 4
        assert set(convolutions.values()) == {0}
        assert axes["image"] is None


def test_an_unknown_version_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(EncodingsError, match=r"'0\.9'.*0\.6\.1, 1\.0\.0, 2\.0\.0"):
        eq.export(sims("W8A8")[0], tmp_path / "out", encodings_version="0.9", progress=False)
    assert not (tmp_path / "out").exists()
