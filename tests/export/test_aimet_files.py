"""Files as AIMET writes them: other names, other spellings, grids that no sim has."""

import json

import numpy as np
import pytest
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import EncodingsError
from keras_edgeq.sim.freeze import all_quantizers
from tests.models import train_like

L = tf_keras.layers
SCALES = [0.25, 0.5, 0.125]


@pytest.fixture(scope="module")
def sim():
    x = tf_keras.Input((4, 4, 2), name="image")
    y = L.Conv2D(3, 3, activation="tanh", name="conv2d_1")(x)
    y = L.Dense(2, activation="softmax", name="scores")(L.Flatten(name="flat")(y))
    model = train_like(tf_keras.Model(x, y))
    data = np.random.default_rng(0).normal(size=(8, 4, 4, 2)).astype(np.float32)
    return eq.quantize(model, data, "qnn_w8a8", progress=False)


def load(sim, document, tmp_path, **options):
    path = tmp_path / "model.encodings"
    path.write_text(json.dumps(document))
    return eq.load_encodings(sim, path, **options)


def grid(sim, name):
    encoding = all_quantizers(sim)[name].encoding
    return encoding.spec.bits, encoding.scale.ravel().tolist(), encoding.zero_point.ravel().tolist()


def old(bits, scale, offset, symmetric="False", **more):
    low, high = scale * offset, scale * (2**bits - 1 + offset)
    fields = {"bitwidth": bits, "is_symmetric": symmetric, "max": high, "min": low}
    return {**fields, "dtype": "int", "offset": offset, "scale": scale, **more}


def keras_file():
    """Return what the Keras exporter makes: tensor names, text booleans, offsets as floats."""
    kernel = [old(4, scale, -8.0, "True") for scale in SCALES]
    return {
        "version": "0.6.1",
        "activation_encodings": {
            "image:0": [old(8, 0.5, -144)],
            "conv2d_1/BiasAdd:0": [old(8, 0.25, -128.0)],
            "conv2d_1/Tanh:0": [old(8, 0.0078125, -127)],
            "scores/BiasAdd:0": [old(8, 0.5, -100)],
            "scores/Softmax:0": [old(8, 0.00390625, 0)],
        },
        "param_encodings": {
            "conv2d_1/kernel:0": kernel,
            "scores/kernel:0": [old(8, scale, -127, "True") for scale in SCALES[:2]],
            "conv2d_1/bias:0": [old(32, 1e-4, -(2**31), "True")],
        },
        "quantizer_args": {"activation_bitwidth": 8, "is_symmetric": True, "dtype": "int"},
        "excluded_layers": [],
    }


def test_a_file_of_the_keras_exporter_loads(sim, tmp_path):
    loaded = load(sim, keras_file(), tmp_path)
    signed = all_quantizers(loaded)["image"].encoding.spec.signed
    shift = -128 if signed else 0
    assert grid(loaded, "image") == (8, [0.5], [144 + shift])
    assert grid(loaded, "conv2d_1") == (8, [0.25], [128 + shift])
    assert grid(loaded, "conv2d_1/tanh") == (8, [0.0078125], [127 + shift])
    assert grid(loaded, "scores") == (8, [0.5], [100 + shift])
    assert grid(loaded, "scores/softmax") == (8, [0.00390625], [shift])
    assert grid(loaded, "conv2d_1/kernel") == (4, SCALES, [0, 0, 0])
    assert grid(loaded, "scores/kernel") == (8, SCALES[:2], [0, 0])


def older(document, version, missing):
    document["version"] = version
    for section in ("activation_encodings", "param_encodings"):
        for channels in document[section].values():
            for channel in channels:
                for field in missing:
                    channel.pop(field)
    return document


@pytest.mark.parametrize(
    ("version", "missing"), [("0.4.0", ["dtype"]), ("0.5.0", []), ("0.6.1", ["min", "max"])]
)
def test_older_files_have_fewer_fields(version, missing, sim, tmp_path):
    document = older(keras_file(), version, missing)
    del document["quantizer_args"]
    wanted, loaded = load(sim, keras_file(), tmp_path), load(sim, document, tmp_path)
    for name in all_quantizers(sim):
        assert grid(loaded, name) == grid(wanted, name)


def test_json_booleans_are_read_like_text(sim, tmp_path):
    text = json.dumps(keras_file()).replace('"True"', "true").replace('"False"', "false")
    loaded = load(sim, json.loads(text), tmp_path)
    assert grid(loaded, "conv2d_1/kernel") == (4, SCALES, [0, 0, 0])


def test_parameters_alone_as_adaround_writes_them(sim, tmp_path):
    document = {"conv2d_1/kernel:0": [old(4, scale, -8, True) for scale in SCALES]}
    loaded = load(sim, document, tmp_path, strict=False, freeze=True)
    assert grid(loaded, "conv2d_1/kernel") == (4, SCALES, [0, 0, 0])
    assert loaded.record.frozen == {"conv2d_1/kernel"}
    assert grid(loaded, "image") == grid(sim, "image")


def torch_file():
    def entry(name, bits, scale, offset, symmetric=False):
        kind = "PER_CHANNEL" if len(scale) > 1 else "PER_TENSOR"
        fields = {"bw": bits, "dtype": "INT", "enc_type": kind, "is_sym": symmetric}
        return {**fields, "name": name, "offset": offset, "scale": scale}

    return {
        "version": "1.0.0",
        "producer": {"package": "aimet-torch", "version": "2.42.0"},
        "activation_encodings": [
            entry("input", 8, [0.5], [-144]),
            entry("backbone.stem.0.conv", 8, [0.25], [-128]),
            entry("backbone.stem.1", 8, [0.0078125], [-127]),
            entry("head", 8, [0.5], [-100]),
            entry("out", 8, [0.00390625], [0]),
        ],
        "param_encodings": [
            entry("backbone.stem.0.conv.weight", 8, SCALES, [-128] * 3, True),
            entry("head.weight", 8, SCALES[:2], [-128] * 2, True),
        ],
        "quantizer_args": {"is_symmetric": "True", "per_channel_quantization": "False"},
        "excluded_layers": [],
    }


NAMES = {
    "input": "image",
    "backbone.stem.0.conv": "conv2d_1",
    "backbone.stem.1": "conv2d_1/tanh",
    "head": "scores",
    "out": "scores/softmax",
    "backbone.stem.0.conv.weight": "conv2d_1/kernel",
    "head.weight": "scores/kernel",
}


def test_a_file_of_another_framework_loads_by_a_name_map(sim, tmp_path):
    loaded = load(sim, torch_file(), tmp_path, names=NAMES)
    assert grid(loaded, "conv2d_1/kernel") == (8, SCALES, [0, 0, 0])
    assert grid(loaded, "conv2d_1")[1] == [0.25]
    with pytest.raises(EncodingsError, match=r"backbone.stem.0.conv.weight.*names="):
        load(sim, torch_file(), tmp_path)


def test_a_name_map_that_leads_nowhere_is_refused(sim, tmp_path):
    with pytest.raises(EncodingsError, match="nowhere"):
        load(sim, torch_file(), tmp_path, names={**NAMES, "head": "nowhere"})
    with pytest.raises(EncodingsError, match=r"'head' and 'out'.*both 'scores/softmax'"):
        load(sim, torch_file(), tmp_path, names={**NAMES, "head": "scores/softmax"})


def onnx_style():
    return {
        "version": "2.0.0",
        "producer": {"package": "aimet-onnx"},
        "encodings": [
            {"name": "image", "output_dtype": "uint8", "y_scale": 0.5, "y_zero_point": 144},
            {"name": "conv2d_1", "output_dtype": "int8", "y_scale": 0.25},
            {"name": "conv2d_1/tanh", "output_dtype": "uint8", "y_scale": 0.5, "y_zero_point": 1},
            {"name": "scores", "output_dtype": "uint16", "y_scale": 0.5, "y_zero_point": 9},
            {"name": "scores/softmax", "output_dtype": "uint8", "y_scale": 0.00390625},
            {"name": "conv2d_1/kernel", "output_dtype": "int4", "y_scale": SCALES, "axis": 3},
            {"name": "conv2d_1/bias", "output_dtype": "int32", "y_scale": 1e-5},
            {"name": "scores/kernel", "output_dtype": "int8", "y_scale": SCALES[:2], "axis": 1},
        ],
    }


def test_zero_points_of_version_2_are_on_the_grid_of_their_type(sim, tmp_path):
    loaded = load(sim, onnx_style(), tmp_path)
    for name, bits, scale, unsigned in (
        ("image", 8, 0.5, 144),
        ("conv2d_1", 8, 0.25, 128),
        ("scores", 16, 0.5, 9),
        ("scores/softmax", 8, 0.00390625, 0),
    ):
        signed = all_quantizers(loaded)[name].encoding.spec.signed
        point = unsigned - (2 ** (bits - 1) if signed else 0)
        assert grid(loaded, name) == (bits, [scale], [point])
    assert grid(loaded, "conv2d_1/kernel") == (4, SCALES, [0, 0, 0])


def change_first(document, section, **fields):
    document[section][0].update(fields)
    return document


LPBQ = {"enc_type": "LPBQ", "compressed_bw": 4, "per_block_int_scale": [1, 2]}
REFUSED = {
    "LPBQ": (change_first(torch_file(), "param_encodings", **LPBQ), "conv.weight.*LPBQ.*block"),
    "per block": (
        change_first(torch_file(), "param_encodings", enc_type="PER_BLOCK", block_size=16),
        "conv.weight.*block",
    ),
    "vector": (change_first(torch_file(), "param_encodings", enc_type="VECTOR"), "conv.weight"),
    "half a step": (
        change_first(torch_file(), "activation_encodings", zero_point_shift=[0.5]),
        "input.*zero_point_shift",
    ),
    "bfloat": (change_first(torch_file(), "activation_encodings", dtype="BFLOAT"), "input.*dtype"),
    "a float tensor": (
        change_first(torch_file(), "activation_encodings", dtype="FLOAT", bw=16),
        "input.*float16.*int8",
    ),
    "block size": (change_first(onnx_style(), "encodings", block_size=4), "image.*block"),
    "nested scale": (change_first(onnx_style(), "encodings", y_scale=[[0.5]]), "image.*block"),
    "LPBQ 2.1": (change_first(onnx_style(), "encodings", y_scale={"x": [1]}), "image.*block"),
    "float8": (
        change_first(onnx_style(), "encodings", output_dtype="float8e4m3fn"),
        "image.*float8e4m3fn",
    ),
    "mixed versions": (change_first(onnx_style(), "encodings", bw=8), "image.*another version"),
    "point out of range": (
        change_first(onnx_style(), "encodings", y_zero_point=256),
        r"image.*\[0, 255\]",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_sim_has_is_refused_by_name(case, sim, tmp_path):
    document, message = REFUSED[case]
    with pytest.raises(EncodingsError, match=message):
        load(sim, document, tmp_path, names=NAMES)


OLD_DAMAGES = {
    "positive offset": {"offset": 3},
    "fractional offset": {"offset": -7.5},
    "text": {"scale": "0.5"},
    "no offset": {"offset": None},
    "bits": {"bitwidth": 8.0},
    "boolean": {"is_symmetric": "yes"},
    "dtype": {"dtype": "bool"},
    "float of other bits": {"dtype": "float", "bitwidth": 8},
}


@pytest.mark.parametrize("damage", OLD_DAMAGES)
def test_a_damaged_0_6_1_entry_is_named(damage, sim, tmp_path):
    document = keras_file()
    document["activation_encodings"]["image:0"][0].update(OLD_DAMAGES[damage])
    with pytest.raises(EncodingsError, match="image:0"):
        load(sim, document, tmp_path)


def test_channels_that_disagree_are_refused(sim, tmp_path):
    document = keras_file()
    document["param_encodings"]["conv2d_1/kernel:0"][1]["bitwidth"] = 8
    with pytest.raises(EncodingsError, match=r"conv2d_1/kernel:0.*differ in bitwidth"):
        load(sim, document, tmp_path)


def test_a_name_that_stands_twice_in_one_object_is_refused(sim, tmp_path):
    path = tmp_path / "twice.json"
    path.write_text('{"version": "0.6.1", "param_encodings": {"a": [], "a": []}}')
    with pytest.raises(EncodingsError, match="'a' appears twice"):
        eq.load_encodings(sim, path)
