import json
from functools import cache
from itertools import product

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import tensorflow as tf
import tf_keras
from onnx import helper, numpy_helper

import keras_edgeq as eq
from keras_edgeq.errors import EncodingsError
from keras_edgeq.export.encodings import (
    keras_encodings,
    load_encodings,
    onnx_encodings,
    write_aimet_folder,
)
from keras_edgeq.export.onnx.float_graph import to_onnx_float
from tests.models import inputs_for, make, train_like
from tests.short import short

L = tf_keras.layers

PROFILES = ("onnxruntime_int8", "litert_int8", "qnn_w8a8")


@cache
def quantized(hazard, profile="qnn_w8a8"):
    model = make(hazard)
    x = inputs_for(model)
    return eq.quantize(model, x, profile=profile, progress=False), x


@pytest.fixture(scope="module")
def residual():
    return quantized("residual")


def outputs(sim, x):
    return [t.numpy() for t in tf.nest.flatten(sim(x, training=False))]


def written(document, path):
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def entries(document):
    return [*document["activation_encodings"], *document["param_encodings"]]


@pytest.mark.parametrize(
    "case",
    short(
        product(["residual", "fixed_meets_free", "shared_layer"], PROFILES),
        ("residual", "onnxruntime_int8"),
        ("fixed_meets_free", "qnn_w8a8"),
        *product(["shared_layer"], PROFILES),
    ),
)
def test_a_sim_with_reloaded_encodings_predicts_the_same_bits(case, tmp_path):
    hazard, profile = case
    sim, x = quantized(hazard, profile)
    path = written(keras_encodings(sim), tmp_path / "grids.json")
    wanted = outputs(sim, x)
    other = load_encodings(sim, path)
    for quantizer in other.quantizers().values():
        quantizer.start.assign(quantizer.scale * 1.5)
    assert all(np.array_equal(a, b) for a, b in zip(wanted, outputs(sim, x), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(wanted, outputs(other, x), strict=True))
    back = load_encodings(other, path)
    assert all(np.array_equal(a, b) for a, b in zip(wanted, outputs(back, x), strict=True))
    assert back.record.profile == sim.record.profile
    assert back.stats is sim.stats
    assert back.output_names == sim.output_names


def test_offsets_are_those_of_the_unsigned_grid():
    unsigned, signed = (quantized("residual", p)[0] for p in ("onnxruntime_int8", "litert_int8"))
    for sim, shift in ((unsigned, 0), (signed, 128)):
        for entry in keras_encodings(sim)["activation_encodings"]:
            grid = sim.quantizers()[entry["name"]].encoding
            assert entry["offset"] == [-(int(grid.zero_point) + shift)]
            assert -255 <= entry["offset"][0] <= 0
        kernels = keras_encodings(sim)["param_encodings"]
        assert {o for entry in kernels for o in entry["offset"]} == {-128}
        assert {entry["enc_type"] for entry in kernels} == {"PER_CHANNEL"}
        assert all(entry["is_sym"] and entry["bw"] == 8 for entry in kernels)


def test_other_bits_from_a_file_change_grid_and_plan(residual, tmp_path):
    sim, x = residual
    document = keras_encodings(sim)
    entry = document["param_encodings"][0]
    entry.update(bw=4, offset=[-8] * len(entry["offset"]), scale=[s * 17 for s in entry["scale"]])
    loaded = load_encodings(sim, written(document, tmp_path / "grids.json"))
    layer, _, param = entry["name"].rpartition("/")
    assert loaded.quantized_layers()[layer].quantizers[param].encoding.spec.bits == 4
    changed = loaded.record.plan.specs.keys() & {
        ref for ref, spec in loaded.record.plan.specs.items() if spec.bits == 4
    }
    assert [str(ref) for ref in changed] == [entry["name"]]
    assert not np.array_equal(outputs(loaded, x)[0], outputs(sim, x)[0])


def test_unknown_and_missing_tensors_are_listed_or_ignored(residual, tmp_path):
    sim, x = residual
    document = keras_encodings(sim)
    gone = document["activation_encodings"].pop(0)["name"]
    document["param_encodings"][0]["name"] = "nowhere/kernel"
    path = written(document, tmp_path / "grids.json")
    with pytest.raises(EncodingsError, match=f"nowhere/kernel.*{gone}"):
        load_encodings(sim, path)
    loaded = load_encodings(sim, path, strict=False)
    np.testing.assert_array_equal(outputs(loaded, x)[0], outputs(sim, x)[0])


def changed(**changes):
    def change(document):
        document["activation_encodings"][0].update(changes)

    return change


DAMAGES = {
    "version as a number": lambda d: d.update(version=1.0),
    "other version": lambda d: d.update(version="0.6.1"),
    "later version": lambda d: d.update(version="3.0.0"),
    "no section": lambda d: d.pop("param_encodings"),
    "section is an object": lambda d: d.update(param_encodings={}),
    "entry is a number": lambda d: d["param_encodings"].append(3),
    "name twice": lambda d: d["param_encodings"].append(d["param_encodings"][0]),
    "no name": changed(name=None),
    "float type": changed(dtype="FLOAT"),
    "bits as text": changed(bw="8"),
    "bits too many": changed(bw=32),
    "no scale": changed(scale=[]),
    "scale is a number": changed(scale=0.5),
    "scale is text": changed(scale=["0.5"]),
    "zero scale": changed(scale=[0.0]),
    "negative scale": changed(scale=[-0.5]),
    "NaN": changed(scale=[float("nan")]),
    "infinity": changed(scale=[float("inf")]),
    "beyond float32": changed(scale=[1e300]),
    "beyond float64": changed(scale=[10**400]),
    "below float32": changed(scale=[1e-60]),
    "two scales": changed(scale=[0.5, 0.5], offset=[0, 0]),
    "two offsets": changed(offset=[0, 0]),
    "positive offset": changed(offset=[3]),
    "offset below the grid": changed(offset=[-256]),
    "fractional offset": changed(offset=[-1.5]),
    "true as offset": changed(offset=[True]),
    "asymmetric kernel": lambda d: d["param_encodings"][0].update(
        offset=[-100] * len(d["param_encodings"][0]["offset"])
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_one_clear_error(damage, residual, tmp_path):
    sim, _ = residual
    document = keras_encodings(sim)
    DAMAGES[damage](document)
    with pytest.raises(EncodingsError):
        load_encodings(sim, written(document, tmp_path / "grids.json"))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "[" * 100_000, "\x00", '{"version": 1.0}'])
def test_a_file_that_is_no_encodings_document_is_one_clear_error(text, residual, tmp_path):
    with pytest.raises(EncodingsError):
        load_encodings(residual[0], written(text, tmp_path / "grids.json"))


def test_missing_and_huge_files_are_refused(residual, tmp_path):
    with pytest.raises(EncodingsError, match="Cannot read"):
        load_encodings(residual[0], tmp_path / "none.json")
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(200_000_001)
    with pytest.raises(EncodingsError, match="larger than"):
        load_encodings(residual[0], tmp_path / "huge.json")


def simulated(model, document):
    """Return the float model with the grids of a document, as a reader of both files sees it.

    Knows only the two files and the definition `real = scale * (integer + offset)`.
    """
    model = onnx.ModelProto.FromString(model.SerializeToString())
    graph = model.graph
    grids = {e["name"]: e for e in entries(document)}
    for constant in graph.initializer:
        if constant.name in grids:
            grid, value = grids[constant.name], numpy_helper.to_array(constant)
            shape = channel_shape(graph, constant.name, len(grid["scale"]), value)
            scale, offset = (np.reshape(grid[k], shape) for k in ("scale", "offset"))
            q = np.clip(np.rint(value / scale) - offset, 0, 2 ** grid["bw"] - 1)
            rounded = ((q + offset) * scale).astype(np.float32)
            constant.CopyFrom(numpy_helper.from_array(rounded, constant.name))
    outside = {value.name for value in graph.output}
    for name, grid in grids.items():
        if name in {c.name for c in graph.initializer}:
            continue
        scale, point = np.float32(grid["scale"][0]), np.uint8(-grid["offset"][0])
        graph.initializer.append(numpy_helper.from_array(np.asarray(scale), f"{name}|s"))
        graph.initializer.append(numpy_helper.from_array(np.asarray(point), f"{name}|z"))
        raw = f"{name}|raw" if name in outside else name
        result = name if name in outside else f"{name}|dq"
        for node in graph.node:
            for names, old, new in ((node.output, name, raw), (node.input, name, result)):
                names[:] = [new if n == old else n for n in names]
        grid_names = [f"{name}|s", f"{name}|z"]
        graph.node.extend(
            [
                helper.make_node("QuantizeLinear", [raw, *grid_names], [f"{name}|q"]),
                helper.make_node("DequantizeLinear", [f"{name}|q", *grid_names], [result]),
            ]
        )
    return model


def channel_shape(graph, name, channels, value):
    """Return the shape in which the scales of a weight meet it."""
    if channels == 1:
        return (1,) * value.ndim
    node = next(n for n in graph.node if name in n.input)
    axis = {"Conv": 0, "ConvTranspose": 1}.get(node.op_type, value.ndim - 1)
    return [channels if a == axis else 1 for a in range(value.ndim)]


@pytest.mark.parametrize("hazard", ["residual", "transposed", "moves", "unsorted_inputs"])
def test_the_aimet_folder_alone_gives_the_sims_numbers(hazard, tmp_path):
    sim, x = quantized(hazard)
    folder = write_aimet_folder(sim, tmp_path, "net")
    assert sorted(p.name for p in folder.iterdir()) == ["net.encodings", "net.onnx"]
    assert folder == tmp_path / "net.aimet"
    document = json.loads((folder / "net.encodings").read_text())
    model = simulated(onnx.load(folder / "net.onnx"), document)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    got = session.run(sim.output_names, x if isinstance(x, dict) else {sim.input_names[0]: x})
    # The reader keeps biases float, which moves a few values by a step.
    for value, wanted in zip(got, outputs(sim, x), strict=True):
        step = np.min(np.diff(np.unique(wanted)))
        assert np.abs(value - wanted).max() <= 1.01 * step
        assert np.mean(np.abs(value - wanted) > 0.01 * step) < 0.03


@tf.function
def closed(t):
    return tf.math.softplus(t) * tf.sin(t)


def island():
    x = tf_keras.Input((6,))
    y = L.Dense(4, name="before")(x)
    y = L.Lambda(lambda t: closed(t), name="island")(y)
    return train_like(tf_keras.Model(x, L.Dense(2, name="after")(y)))


@pytest.mark.parametrize("hazard", ["residual", "fixed_meets_free", "island", "prelu", "conv1d"])
def test_every_float_activation_has_an_encoding_or_a_reason(hazard):
    if hazard == "island":
        model = island()
        sim = eq.quantize(model, inputs_for(model), profile="onnxruntime_int8", progress=False)
    else:
        sim, _ = quantized(hazard, "onnxruntime_int8")
    model, names = to_onnx_float(sim)
    document = onnx_encodings(sim, model, names)
    absent = document["keras_edgeq"]["absent"]
    encoded = {entry["name"] for entry in entries(document)}
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = [*inferred.input, *inferred.value_info, *inferred.output]
    floats = {v.name for v in values if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    assert floats <= encoded | set(absent)
    assert not encoded & set(absent)
    reasons = {"residual": "fused inside re_lu", "island": "inside float layer island"}
    assert any(why.startswith(reasons.get(hazard, "")) for why in absent.values())
