"""Models whose files once were refused, refused to run or said something else, kind by kind.

Each is held on its real runtimes: the sim beside the float model, and the file beside the sim.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import ExportError
from keras_edgeq.numerics.metrics import sqnr_db
from tests.models import train_like
from tests.short import short

L, Input, Model = tf_keras.layers, tf_keras.Input, tf_keras.Model
SAMPLES = 32


@tf_keras.saving.register_keras_serializable("tests")
class Times(L.Layer):
    """A layer of the user's that computes with a constant."""

    def __init__(self, factor=1 / 6, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, inputs):
        return inputs * self.factor

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


def between_convolutions(function):
    x = Input((8, 8, 3))
    y = function(L.Conv2D(4, 3, padding="same", name="first")(x))
    return Model(x, L.Conv2D(3, 3, name="last")(y))


def normal(model, samples=SAMPLES):
    rng = np.random.default_rng(0)
    return [rng.normal(size=(samples, *s.shape[1:])).astype(np.float32) for s in model.inputs]


def sim_of(model, data=None, profile="litert_int8", **options):
    """Return a model's sim, its data, and the least signal-to-noise ratio among its outputs."""
    model = train_like(model)
    data = normal(model) if data is None else data
    sim = eq.quantize(model, data, profile, progress=False, **options)
    x = data if len(data) > 1 else data[0]
    pairs = zip(tf.nest.flatten(model(x)), tf.nest.flatten(sim(x)), strict=True)
    return sim, data, min(sqnr_db(a, b) for a, b in pairs)


def check_files(folder, model, formats=("tflite",), least_db=30.0, identical=0.97, **options):
    """Check a sim beside its model, and each file beside the sim on its first runtime."""
    sim, data, db = sim_of(model, **options)
    assert db > least_db
    report = eq.export(sim, folder, list(formats), verify=data, progress=False)
    firsts = list({run.artifact: run for run in reversed(report.runs)}.values())
    assert len(firsts) == len(formats)
    for run in firsts:
        assert run.first_difference is None or run.first_difference.cause == "kernel"
        if run.identical is None:
            largest = float(np.abs(sim(data if len(data) > 1 else data[0])).max())
            assert run.max_abs_difference < 1e-4 * largest
        else:
            assert run.identical >= identical
    return sim


HARD_SWISH = {
    "(x * relu6) * c": lambda x: x * tf.nn.relu6(x + 3.0) * (1 / 6),
    "x * (relu6 * c)": lambda x: x * (tf.nn.relu6(x + 3.0) * (1 / 6)),
    "(relu6 * x) / 6": lambda x: tf.divide(tf.nn.relu6(3.0 + x) * x, 6.0),
    "c * x * relu6": lambda x: (1 / 6) * x * tf.nn.relu6(3.0 + x),
    "layers": lambda x: tf.multiply(x=1 / 6, y=L.Multiply()([L.ReLU(6.0)(x + 3.0), x])),
    "own layer": lambda x: Times()(x * tf.nn.relu6(x + 3.0)),
    "hard sigmoid": lambda x: tf.nn.relu6(x + 3.0) * (1 / 6),
    "twice": lambda x: 0.5 * (2.0 * x) * 3.0,
}


@pytest.mark.parametrize("name", short(HARD_SWISH, "(x * relu6) * c", "layers", "twice"))
def test_what_a_converter_would_fuse_keeps_its_quantizers(name, tmp_path):
    check_files(tmp_path, between_convolutions(HARD_SWISH[name]))


def test_wide_integers_keep_the_quantizers_of_a_hard_swish(tmp_path):
    model = between_convolutions(HARD_SWISH["(x * relu6) * c"])
    check_files(tmp_path, model, profile="litert_int16x8", identical=0.5)


BESIDE_WEIGHTS = {
    "times": lambda x: x * 2.0,
    "plus": lambda x: x + 2.0,
    "per channel": lambda x: x * np.float32([1.0, 2.0, 3.0, 4.0]),
    "minus, then a batch norm": lambda x: L.BatchNormalization()(x - 1.0),
    "own layer": lambda x: Times(3.0)(L.Conv2D(4, 1)(x)),
    "transposed": lambda x: L.Conv2DTranspose(4, 3)(x) * 2.0,
    "activation": lambda x: tf.nn.relu(x) * 2.0,
    "dense": lambda x: L.Dense(4)(x) * 2.0 + 1.0,
}


@pytest.mark.parametrize("name", short(BESIDE_WEIGHTS, *list(BESIDE_WEIGHTS)[:2]))
def test_constants_beside_weights_in_half_precision_stay_beside_them(name, tmp_path):
    model = between_convolutions(BESIDE_WEIGHTS[name])
    check_files(tmp_path, model, profile="litert_fp16", least_db=60.0)


def test_an_activation_is_fused_into_weights_in_half_precision(tmp_path):
    sim = check_files(
        tmp_path, between_convolutions(L.ReLU()), profile="litert_fp16", least_db=60.0
    )
    from keras_edgeq.export.tflite.convert import to_tflite
    from keras_edgeq.runtime.tflite_file import TfliteGraph

    names = [op.name for op in TfliteGraph(to_tflite(sim).content).ops]
    assert names.count("CONV_2D") == 2
    assert "RELU" not in names


NORMALIZATIONS = {
    "two groups": lambda x: L.GroupNormalization(2)(x),
    "all channels": lambda x: L.GroupNormalization(-1)(x),
    "another axis": lambda x: L.GroupNormalization(2, axis=1)(x),
    "neither scale nor center": lambda x: L.GroupNormalization(2, scale=False, center=False)(x),
    "five axes": lambda x: tf.reshape(
        tf.abs(x)[..., None] / (1.0 + tf.abs(x)[..., None, :]), [-1, 8, 8, 16]
    ),
}


@pytest.mark.parametrize("name", short(NORMALIZATIONS, "two groups"))
def test_what_is_brought_to_one_shape_runs_everywhere(name, tmp_path):
    formats = ("tflite",) if name == "five axes" else ("tflite", "onnx")
    check_files(tmp_path, between_convolutions(NORMALIZATIONS[name]), formats)


def test_a_group_normalization_of_any_size_runs(tmp_path):
    x = Input((None, None, 3))
    model = Model(x, L.Conv2D(3, 1)(L.GroupNormalization(2)(L.Conv2D(4, 3)(x))))
    data = [np.random.default_rng(0).normal(size=(SAMPLES, 8, 8, 3)).astype(np.float32)]
    check_files(tmp_path, model, data=data)


RESIZES = {
    "another axis": L.Softmax(axis=1),
    "cropped": L.Resizing(6, 5, crop_to_aspect_ratio=True),
    "corners": lambda x: tf.compat.v1.image.resize_bilinear(x, [13, 11], align_corners=True),
    "nearest corners": lambda x: tf.compat.v1.image.resize_nearest_neighbor(
        x, [13, 11], align_corners=True
    ),
    "short kernel": L.Conv2DTranspose(4, 2, strides=3),
    "output padding": L.Conv2DTranspose(4, 3, strides=2, output_padding=1),
}


@pytest.mark.parametrize("name", short(RESIZES, *list(RESIZES)[:3]))
def test_a_file_resizes_and_compares_as_the_sim(name, tmp_path):
    check_files(tmp_path, between_convolutions(RESIZES[name]), ("tflite", "onnx"))


@pytest.mark.parametrize("sizes", short([(11, 13), (16, 16), (5, 3)], (11, 13)))
def test_wide_integers_are_resized_in_float(sizes, tmp_path):
    model = between_convolutions(L.Resizing(*sizes))
    check_files(tmp_path, model, profile="litert_int16x8", identical=0.5)


@pytest.mark.parametrize("asked", [{}, {"scaled": "W4A8"}])
def test_constants_in_front_of_four_bits_are_rounded_as_the_file_does(asked, tmp_path):
    x = Input((8, 8, 3))
    model = Model(x, L.Conv2D(4, 3)(L.Rescaling(1 / 127.5, -1.0, name="scaled")(x)))
    data = [np.random.default_rng(0).uniform(0, 255, (SAMPLES, 8, 8, 3)).astype(np.float32)]
    sim = check_files(
        tmp_path, model, data=data, profile="litert_w4a8", precision=asked, least_db=15.0
    )
    kernel = next(ref for ref in sim.record.plan.specs if str(ref) == "scaled/depthwise_kernel")
    assert sim.record.plan.specs[kernel].bits == (4 if asked else 8)


def test_category_encodings_run(tmp_path):
    x = Input((3,), dtype="int64")
    model = Model(x, L.Dense(2)(L.CategoryEncoding(5, output_mode="count")(x)))
    data = [np.random.default_rng(0).integers(0, 5, (SAMPLES, 3))]
    check_files(tmp_path, model, ("tflite", "onnx"), data=data)


def test_an_operation_that_a_format_does_not_have_is_named_by_its_layer(tmp_path):
    model = between_convolutions(lambda x: L.Reshape((4, 4, 2))(
        L.MaxPooling3D(name="pool")(L.Reshape((8, 8, 4, 1))(x))))  # fmt: skip
    sim, _, _ = sim_of(model)
    with pytest.raises(ExportError, match=r"layer 'pool' \(MaxPool3D\)"):
        eq.export(sim, tmp_path, ["tflite"], verify=False, progress=False)


DYING = {
    "conv": lambda x: L.ReLU(6.0)(L.Conv2D(4, 3, name="tiny")(x)),
    "depthwise": lambda x: L.ReLU(6.0)(L.DepthwiseConv2D(3, name="tiny")(x)),
    "sum": lambda x: L.ReLU(6.0)(
        L.Add()([L.Conv2D(4, 1, name="tiny")(x), L.Conv2D(4, 1, name="small")(x)])
    ),
}


@pytest.mark.parametrize("profile", short(["litert_int8", "litert_int16x8"], "litert_int8"))
@pytest.mark.parametrize("name", DYING)
def test_a_relu6_over_a_tiny_range_runs(name, profile, tmp_path):
    x = Input((6, 6, 3))
    model = Model(x, L.Dense(2)(L.Flatten()(DYING[name](x))))
    for layer in model.layers:
        if layer.name in ("tiny", "small"):
            layer.set_weights([w * np.float32(1e-10) for w in layer.get_weights()])
    sim = eq.quantize(model, normal(model)[0], profile, progress=False)
    report = eq.export(sim, tmp_path, "tflite", progress=False)
    assert [run.verdict for run in report.runs] == ["same", "same"]


def test_a_second_grid_of_one_tensor_is_not_reached_through_the_first(tmp_path):
    tf_keras.utils.set_random_seed(0)
    ids = Input((6,), dtype="int32")
    embedding = L.Embedding(50, 8)
    wide = L.Dense(8, kernel_initializer="ones", name="wide")(embedding(ids))
    y = L.Concatenate()([embedding(ids), wide])
    model = Model(ids, [L.Dense(3, name="one")(embedding(ids)), L.Dense(3, name="other")(y)])
    data = np.random.default_rng(0).integers(0, 50, (SAMPLES, 6)).astype(np.int32)
    sim = eq.quantize(model, data, progress=False)
    report = eq.export(sim, tmp_path, "tflite", progress=False)
    assert report.runs[0].verdict == "same"
    assert report.runs[0].identical > 0.999


def _split_for_two(y):
    """One half of a tensor, read as it is and on the grid of a maximum."""
    _, half = tf.split(tf.sigmoid(y), 2, axis=-1)
    return tf.maximum(half * 3.0, half), half + 0.25


def _slice_for_two(y):
    """Likewise a slice, and a layer with weights behind it."""
    some = tf.tanh(y)[:, 1:5]
    return tf.minimum(some * 0.3, some), L.Dense(3)(some)


SECOND_GRIDS = {"split": _split_for_two, "slice": _slice_for_two}


@pytest.mark.parametrize("name", SECOND_GRIDS)
def test_the_grid_of_one_reader_is_not_that_of_all(name, tmp_path):
    x = Input((8,))
    check_files(tmp_path, Model(x, SECOND_GRIDS[name](L.Dense(6)(x))))


PADDED = {
    "tf.pad": lambda x: L.Conv2D(5, 2, dilation_rate=2, padding="same")(
        tf.pad(x, [[0, 0], [1, 1], [0, 2], [0, 0]])
    ),
    "layer": lambda x: L.Conv2D(5, 3, dilation_rate=3, padding="same")(L.ZeroPadding2D(1)(x)),
    "without a dilation": lambda x: L.Conv2D(5, 2, padding="same")(L.ZeroPadding2D(1)(x)),
    "valid": lambda x: L.Conv2D(5, 2, dilation_rate=2)(L.ZeroPadding2D(1)(x)),
}


@pytest.mark.parametrize("name", short(PADDED, "tf.pad"))
def test_a_padding_and_that_of_a_convolution_are_both_written(name, tmp_path):
    x = Input((9, 8, 4))
    check_files(tmp_path, Model(x, PADDED[name](x)), ["tflite", "onnx"], identical=0.999)


SHORT = {"a point": (1, 2, "same"), "valid": (1, 3, "valid"), "one axis": ((1, 3), 2, "same")}


@pytest.mark.parametrize("name", short(SHORT, "a point"))
def test_a_kernel_shorter_than_its_stride_keeps_its_bias_for_unknown_sizes(name, tmp_path):
    options = SHORT[name]
    x = L.Input((None, None, 4))
    y = L.Conv2DTranspose(4, *options, bias_initializer="ones")(x)
    data = np.random.default_rng(0).normal(size=(16, 7, 7, 4)).astype(np.float32)
    sim = eq.quantize(tf_keras.Model(x, y), data, progress=False)
    report = eq.export(sim, tmp_path, ["onnx", "tflite"], verify=data, progress=False)
    assert {run.verdict for run in report.runs} <= {"same", "kernel"}
    assert sim.record.fidelity.outputs[0].sqnr_db > 35.0


def test_the_condition_of_a_selection_is_no_input_of_the_bias_behind_it(tmp_path):
    x, other = L.Input((6,)), L.Input((6,))
    y = tf.where(3.0 * tf.tanh(other) < 0.3, tf.tanh(x), 0.0)
    model = train_like(tf_keras.Model([x, other], L.Dense(3)(y)))
    data = [np.random.default_rng(seed).normal(size=(64, 6)).astype(np.float32) for seed in (0, 1)]
    sim = eq.quantize(model, data, progress=False)
    report = eq.export(sim, tmp_path, ["onnx", "tflite"], verify=data, progress=False)
    assert {run.verdict for run in report.runs} <= {"same", "kernel"}
