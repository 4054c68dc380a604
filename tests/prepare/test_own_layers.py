"""Layers of classes of the user's: taken as what they inherit from, registered, opened, or left."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras.src.applications import convnext, inception_resnet_v2

import keras_edgeq as eq
from keras_edgeq.errors import SimMismatchError, UnsupportedModelError
from keras_edgeq.prepare import prepare
from keras_edgeq.prepare.flatten import flatten_nested
from keras_edgeq.prepare.own_layers import base_of
from tests.harness import assert_close, outputs
from tests.models import train_like

L = tf_keras.layers
X = np.random.default_rng(0).normal(size=(8, 6, 6, 3)).astype(np.float32)


class Plain(L.Conv2D):
    pass


class Settings(L.Conv2D):
    """Another constructor, and a configuration with more in it."""

    def __init__(self, filters=4, kernel_size=3, note="none", **options):
        super().__init__(filters, kernel_size, activation="relu", **options)
        self.note = note

    def build(self, shape):
        super().build(shape)

    def get_config(self):
        return {**super().get_config(), "note": self.note}

    def describe(self):
        return self.note


class Grown(Settings):
    """A class of a class of the user's."""


class Noted:
    """A mixin without layers."""

    def note(self):
        return "noted"


class Mixed(Noted, L.DepthwiseConv2D):
    pass


class Called(L.Conv2D):
    """Computes what its base does, by code of its own."""

    def call(self, inputs):
        return super().call(inputs)


class Halved(L.Conv2D):
    def call(self, inputs):
        return 0.5 * super().call(inputs)


class Standardized(L.Conv2D):
    """Computes with another kernel than its weights."""

    def convolution_op(self, inputs, kernel):
        kernel = kernel - tf.reduce_mean(kernel, axis=[0, 1, 2], keepdims=True)
        return super().convolution_op(inputs, kernel)


class Padded(L.Conv2D):
    """Hidden in an attribute of the instance."""

    def __init__(self, filters, size, **options):
        super().__init__(filters, size, **options)
        self.convolution_op = lambda inputs, kernel: 3.0 * tf.nn.convolution(inputs, kernel)


class Squeeze(L.Layer):
    """Layers inside of layers, operations, and a loop of Python."""

    def __init__(self, channels, **options):
        super().__init__(**options)
        self.channels = channels
        self.pool = L.GlobalAveragePooling2D(keepdims=True, name="pool")
        self.gates = [L.Conv2D(4, 1, activation="relu", name="down"), Plain(channels, 1, name="up")]

    def call(self, x):
        gate = self.pool(x)
        for layer in self.gates:
            gate = layer(gate)
        return x * tf.sigmoid(gate)


def image(*layers):
    x = y = tf_keras.Input(X.shape[1:], name="x")
    for layer in layers:
        y = layer(y)
    return train_like(tf_keras.Model(x, y))


SAME = {
    Plain: (Plain(4, 3, name="mine"), L.Conv2D),
    Settings: (Settings(name="mine"), L.Conv2D),
    Grown: (Grown(5, 2, name="mine"), L.Conv2D),
    Mixed: (Mixed(3, name="mine"), L.DepthwiseConv2D),  # pyright: ignore[reportCallIssue]
}


@pytest.mark.parametrize("kind", SAME)
def test_a_class_that_overrides_nothing_is_taken_as_its_base(kind):
    layer, base = SAME[kind]
    model = image(layer)
    made = flatten_nested(model)
    assert type(made.get_layer("mine")) is base
    assert_close(outputs(model, X), outputs(made, X))
    assert type(layer) is kind  # the user's


@pytest.mark.filterwarnings("ignore:Variables of:keras_edgeq.errors.QuantizationWarning")
@pytest.mark.parametrize("layer", [Called(4, 3), Halved(4, 3), Standardized(4, 3), Padded(4, 3)])
def test_a_class_that_overrides_how_it_computes_is_not_taken_as_its_base(layer):
    assert base_of(layer) is None
    model = image(layer)
    prepared = prepare(model)
    assert_close(outputs(model, X), outputs(prepared, X))
    assert "Conv2D" in [type(part).__name__ for part in prepared.layers]  # of its operations


def test_a_layer_of_layers_is_opened_with_their_names():
    model = image(L.Conv2D(3, 1, name="conv"), Squeeze(3, name="se"))
    made = eq.quantize(model, X, progress=False)
    assert {"se/down", "se/up"} <= made.quantized_layers().keys()
    rows = {row.layer: row for row in eq.describe(model).rows}
    assert rows["se/up"].op == "Conv2D"
    assert not [row for row in rows.values() if row.computes == "float"]


def test_a_layer_that_is_called_twice_keeps_one_set_of_weights():
    x = tf_keras.Input((6, 6, 3))
    block = Squeeze(3, name="se")
    model = train_like(tf_keras.Model(x, block(block(x))))
    made = flatten_nested(model)
    assert len(made.get_layer("se/down").inbound_nodes) == 2
    assert len(made.weights) == len(model.weights)
    assert_close(outputs(model, X), outputs(made, X))


def test_a_layer_that_is_called_on_other_sizes_keeps_one_set_of_weights():
    x = tf_keras.Input((6, 6, 3))
    block = Squeeze(3, name="se")
    small = block(L.AveragePooling2D(2)(x))
    model = train_like(tf_keras.Model(x, [block(x), small]))
    made = flatten_nested(model)
    assert len(made.weights) == len(model.weights)
    assert_close(outputs(model, X), outputs(made, X))


def test_a_lambda_is_opened_into_its_operations():
    model = image(L.Conv2D(4, 3), L.Lambda(lambda x: tf.nn.relu(x) * 2.0, name="scaled"))
    assert not [row for row in eq.describe(model).rows if row.computes == "float"]


class Conditional(L.Dense):
    def call(self, inputs):
        outputs = super().call(inputs)
        if tf.reduce_sum(outputs) > 0.0:
            outputs = 2.0 * outputs
        return outputs


def test_layers_that_applications_bring_along_are_opened():
    x = tf_keras.Input((6, 6, 3))
    y = L.Conv2D(4, 3, name="conv")(x)
    z = inception_resnet_v2.CustomScaleLayer(0.17, name="scaled")([L.Conv2D(4, 1)(y), y])
    z = convnext.StochasticDepth(0.1, name="depth")(z)
    model = tf_keras.Model(x, L.Dense(2)(L.Flatten()(z)))
    assert not [row for row in eq.describe(model).rows if "no integer kernel" in row.why]
    assert_close(outputs(prepare(model), X), outputs(model, X))


def test_a_layer_that_cannot_be_followed_stays_float_with_the_reason():
    model = image(L.Conv2D(4, 3), Conditional(2, name="odd"))
    rows = {row.layer: row for row in eq.describe(model).rows}
    assert rows["odd"].computes == "float"
    assert "test_own_layers.py, line" in rows["odd"].why
    assert "a condition on the values of a tensor" in rows["odd"].why


class Drawing(L.Layer):
    def call(self, inputs):
        return inputs + tf.random.normal(tf.shape(inputs))


def test_a_layer_that_draws_random_numbers_stays_float_with_the_reason():
    rows = {row.layer: row for row in eq.describe(image(L.Conv2D(4, 3), Drawing(name="r"))).rows}
    assert rows["r"].computes == "float"
    assert "depends on more than its inputs" in rows["r"].why


class Scored(L.Dense):
    def call(self, inputs):
        return super().call(inputs)


class Lying(L.Dense):
    def call(self, inputs):
        return -super().call(inputs)


class Cold(L.Layer):
    """Inherits from nothing, and has the settings and weights of a Dense layer."""

    def __init__(self, units, use_bias=True, **options):
        super().__init__(**options)
        self.units, self.use_bias = units, use_bias

    def build(self, shape):
        self.one = self.add_weight(name="one", shape=(shape[-1], self.units))
        self.two = self.add_weight(name="two", shape=(self.units,))

    def call(self, inputs):
        return tf.py_function(lambda x: x @ self.one + self.two, [inputs], tf.float32)

    def compute_output_shape(self, shape):
        return (*shape[:-1], self.units)

    def get_config(self):
        return {**super().get_config(), "units": self.units, "use_bias": self.use_bias}


class Other(L.Layer):
    """Has no weights of a Dense layer."""

    def call(self, inputs):
        return 2.0 * inputs


def test_a_registered_class_is_taken_as_the_one_it_computes():
    eq.register_layer(Scored, like=L.Dense)
    model = image(Scored(3, activation="relu", name="score"))
    assert [row.op for row in eq.describe(model).rows] == ["Dense", "Relu"]
    assert_close(outputs(model, X), outputs(prepare(model), X))


def test_a_lie_about_a_class_is_caught():
    eq.register_layer(Lying, like=L.Dense)
    with pytest.raises(SimMismatchError, match=r"'lie' \(Lying\) is registered as Dense, but has"):
        eq.quantize(image(Lying(3, name="lie")), X, progress=False)


def test_a_class_without_the_settings_it_needs_is_refused():
    eq.register_layer(Other, like=L.Dense)
    with pytest.raises(UnsupportedModelError, match=r"\(Other\) is registered as Dense, but can"):
        eq.describe(image(L.Conv2D(3, 1), Other(name="other")))


@pytest.mark.parametrize(
    ("layer", "like", "message"),
    [
        (L.Dense, L.Dense, "a class of your own"),
        (Scored(2), L.Dense, "the class, not a layer"),
        (Scored, Plain, "class of tf_keras.layers"),
        (Scored, "Dense", "class of tf_keras.layers"),
        (Scored, L.Layer, "class of tf_keras.layers"),
    ],
)
def test_what_cannot_be_registered_is_refused_at_once(layer, like, message):
    with pytest.raises(UnsupportedModelError, match=message):
        eq.register_layer(layer, like=like)


def test_a_registered_class_need_not_inherit():
    eq.register_layer(Cold, like=L.Dense)
    x = tf_keras.Input((4,))
    model = train_like(tf_keras.Model(x, Cold(3, name="cold")(L.Dense(4)(x))))
    assert [row.op for row in eq.describe(model).rows] == ["Dense", "Dense"]
