"""What no file can hold is said at `quantize`, by the layer's name and with the way out."""

import re

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import UnsupportedModelError
from keras_edgeq.prepare import prepare
from tests.harness import check_transform
from tests.models import inputs_for, train_like

L = tf_keras.layers


def image(layer):
    x = tf_keras.Input((8, 8, 3))
    return tf_keras.Model(x, L.Conv2D(2, 3)(layer(x)))


def sequence(layer):
    x = tf_keras.Input((5, 3), batch_size=2)
    return tf_keras.Model(x, L.Dense(2)(layer(x)))


def keys(layer, dtype="int64", width=3):
    x = tf_keras.Input((width,), dtype=dtype)
    return tf_keras.Model(x, L.Dense(2)(tf.cast(layer(x), tf.float32)))


def resize(**options):
    return lambda x: tf.image.resize(x, [4, 4], **options)


V1 = tf.compat.v1.image
STATEFUL = "is stateful.*stateful=False"
LOOKUP = "Leave it in front of the model"
METHOD = "Resize the images in front of the model"
REFUSED = {
    "LSTM": (lambda: sequence(L.LSTM(4, stateful=True, name="bad")), STATEFUL),
    "GRU": (lambda: sequence(L.GRU(4, stateful=True, name="bad")), STATEFUL),
    "SimpleRNN": (lambda: sequence(L.SimpleRNN(4, stateful=True, name="bad")), STATEFUL),
    "RNN": (lambda: sequence(L.RNN(L.LSTMCell(4), stateful=True, name="bad")), STATEFUL),
    "Bidirectional": (
        lambda: sequence(L.Bidirectional(L.LSTM(4, stateful=True), name="bad")), STATEFUL,
    ),
    "StringLookup": (
        lambda: keys(L.StringLookup(vocabulary=["a"], name="bad"), "string"), LOOKUP,
    ),
    "IntegerLookup": (lambda: keys(L.IntegerLookup(vocabulary=[1], name="bad")), LOOKUP),
    "TextVectorization": (
        lambda: keys(
            L.TextVectorization(vocabulary=["a"], output_sequence_length=4, name="bad"), "string", 1
        ), LOOKUP,
    ),
    "Hashing": (lambda: keys(L.Hashing(4, name="bad")), LOOKUP),
    "Discretization": (
        lambda: keys(L.Discretization([0.0], output_mode="multi_hot", name="bad"), "float32"),
        LOOKUP,
    ),
    "RandomCrop": (lambda: image(L.RandomCrop(6, 6, name="bad")), "crop_to_aspect_ratio=True"),
    "Resizing by area": (lambda: image(L.Resizing(4, 4, "area", name="bad")), METHOD),
    "Resizing by bicubic": (lambda: image(L.Resizing(4, 4, "bicubic", name="bad")), METHOD),
    "UpSampling2D by lanczos3": (
        lambda: image(L.UpSampling2D(2, interpolation="lanczos3", name="bad")), METHOD,
    ),
    "image.resize by area": (lambda: image(resize(method="area")), METHOD),
    "image.resize smoothed": (lambda: image(resize(antialias=True)), METHOD),
    "resize_bicubic": (lambda: image(lambda x: V1.resize_bicubic(x, [4, 4])), METHOD),
    "resize_images by number": (
        lambda: image(lambda x: V1.resize_images(x, [4, 4], method=3)), METHOD,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_layer_that_no_file_holds_is_refused_by_name(name):
    make, words = REFUSED[name]
    with pytest.raises(UnsupportedModelError, match=words) as caught:
        prepare(make())
    assert re.search(r"'(bad|[\w.]*resize\w*)'", str(caught.value))


def test_a_refused_layer_is_found_inside_of_a_nested_model():
    inner = tf_keras.Sequential([tf_keras.Input((8, 8, 3)), L.RandomCrop(6, 6, name="crop")])
    with pytest.raises(UnsupportedModelError, match="'crop'"):
        prepare(image(inner))


TAKEN = {
    "bilinear": resize(),
    "nearest": resize(method="nearest"),
    "nearest smoothed": resize(method="nearest", antialias=True),
    "corners": lambda x: V1.resize_bilinear(x, [4, 4], align_corners=True),
    "pad": lambda x: tf.image.resize_with_crop_or_pad(x, 6, 6),
    "Resizing": L.Resizing(4, 4, crop_to_aspect_ratio=True),
}


@pytest.mark.parametrize("name", TAKEN)
def test_other_ways_to_resize_are_taken(name):
    prepare(image(TAKEN[name]))


class NoConfig(L.Layer):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, inputs):
        return inputs * self.factor if tf.reduce_sum(inputs) > 0.0 else inputs


def test_a_layer_whose_configuration_keras_knows_by_itself_is_taken():
    inner = image(NoConfig(2.0))
    x = tf_keras.Input((8, 8, 3))
    for model in (inner, tf_keras.Model(x, inner(NoConfig(3.0)(x)))):
        check_transform(prepare, model, inputs_for(model), save=False)


@pytest.mark.parametrize("where", ["alone", "nested"])
def test_a_layer_without_a_configuration_is_one_clear_error(where):
    message = r"no_config\w*' \(NoConfig\).*get_config.*followed: .*line .*a condition on"
    layer = NoConfig(np.array([2.0, 3.0, 4.0], np.float32))
    inner = image(layer) if where == "nested" else None
    with pytest.raises(UnsupportedModelError, match=message):
        prepare(image(layer) if inner is None else tf_keras.Model(inner.input, inner(inner.input)))


AUGMENTATIONS = (
    L.RandomBrightness(0.1),
    L.RandomContrast(0.1),
    L.RandomFlip(),
    L.RandomRotation(0.1),
    L.RandomTranslation(0.1, 0.1),
    L.RandomZoom(0.1),
)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_random_augmentation_is_no_float_layer(dtype):
    x = tf_keras.Input((8, 8, 3), dtype=dtype)
    y = tf_keras.Sequential(AUGMENTATIONS, name="augment")(x)
    model = train_like(tf_keras.Model(x, L.Conv2D(2, 3)(y)))
    data = np.random.default_rng(0).integers(0, 255, (16, 8, 8, 3)).astype(dtype)
    sim = eq.quantize(model, data, progress=False)
    assert not [name for name in sim.record.plan.floats if "random" in name and "cast" not in name]
    np.testing.assert_array_equal(sim.predict(data, verbose=0), sim(data, training=False))


def test_noise_is_added_in_real_units_while_a_sim_trains():
    x = tf_keras.Input((64,))
    y = L.GaussianNoise(10.0)(L.Dense(64, name="dense")(x))
    model = train_like(tf_keras.Model(x, L.Dense(2)(L.Reshape((64,))(y))))
    data = np.random.default_rng(0).normal(size=(32, 64)).astype(np.float32)
    sim = eq.quantize(model, data, progress=False)
    noise = tf_keras.Model(sim.inputs, sim.get_layer("gaussian_noise").output)
    added = noise(data, training=True) - noise(data, training=False)
    assert 9.0 < float(tf.math.reduce_std(added)) < 11.0
