"""Layers made of layers behind masks: opened with the masks that Keras gives the layers inside."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.prepare import prepare
from tests.mask_blocks import IDS, STEPS, WIDTH, blocks, padded
from tests.short import short

L = tf_keras.layers
FROZEN = "ignore:Variables of:keras_edgeq.errors.QuantizationWarning"
pytestmark = pytest.mark.filterwarnings(FROZEN)
Block, Passing, Adding = blocks(tf_keras)


class Reading(Passing):
    def call(self, x, mask=None):
        kept = None if mask is None else tf.cast(mask[:, None, :], tf.int32)
        x = self.first(x + self.attention(x, x, attention_mask=kept, use_causal_mask=True))
        return self.second(x + self.wide(x))


class Hung(Block):
    def call(self, x):
        mask = getattr(x, "_keras_mask", None)
        kept = None if mask is None else mask[:, None, :]
        x = self.first(x + self.attention(x, x, attention_mask=kept))
        return self.second(x + self.wide(x))


class Twice(Passing):
    def __init__(self, **options):
        super().__init__(**options)
        self.inner = Reading(name="inner")

    def call(self, x):
        return self.inner(super().call(x))


class Positions(L.Layer):
    def __init__(self, mask_zero=False, **options):
        super().__init__(**options)
        self.token = L.Embedding(IDS, WIDTH, mask_zero=mask_zero)
        self.place = L.Embedding(STEPS, WIDTH)

    def call(self, x):
        return self.token(x) + self.place(tf.range(tf.shape(x)[-1]))


class Masked(Positions):
    def compute_mask(self, inputs, mask=None):
        return tf.not_equal(inputs, 0)


class Whole(tf_keras.Model):
    def __init__(self):
        super().__init__(name="whole")
        self.tokens, self.block = Masked(name="tokens"), Passing(name="block")
        self.pool, self.head = L.GlobalAveragePooling1D(), L.Dense(3)

    def call(self, x):
        return self.head(self.pool(self.block(self.tokens(x))))


class Closed(Adding):
    """Cannot be followed, and its last layer hands the mask on."""

    def build(self, shape):
        self.wide.build(shape)

    def call(self, x):
        return self.two([x, tf.map_fn(lambda one: 2.0 * one, x)])


class Told(Closed):
    def __init__(self, **options):
        super().__init__(**options)
        self.supports_masking = True


class Attending(Told):
    """Cannot be followed, and its attention finds the mask of what it reads."""

    def call(self, x):
        return x + self.attention(x, tf.map_fn(lambda one: 2.0 * one, x))


class Given(Attending):
    def call(self, x, mask=None):
        x, kept = tf.identity(x), None if mask is None else mask[:, :, None]
        y = tf.map_fn(lambda one: 2.0 * one, x)
        return x + self.attention(x, y, attention_mask=kept)


def moved(model):
    """Return the model with weights that tell masked and unmasked positions apart."""
    rng = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(weight + 0.3 * rng.normal(size=weight.shape))
    return model


def check(model):
    prepared, ids = prepare(model), padded()
    np.testing.assert_allclose(prepared(ids), model(ids, training=False), atol=1e-4)
    return prepared


def table():
    return L.Embedding(IDS, WIDTH, mask_zero=True)


@pytest.mark.parametrize("front", short([Masked, table], Masked))
@pytest.mark.parametrize(
    "block", short([Block, Passing, Reading, Adding, Hung, Twice], Hung, Twice)
)
def test_blocks_are_opened_with_the_masks_of_their_input(front, block):
    ids = tf_keras.Input((STEPS,), dtype="int32")
    x = L.GlobalAveragePooling1D()(block(name="block")(front()(ids)))
    prepared = check(moved(tf_keras.Model(ids, x)))
    assert not {type(layer) for layer in prepared.layers} & {block, Masked, L.MultiHeadAttention}


@pytest.mark.parametrize("mask_zero", short([False, True], True))
def test_positions_that_are_made_of_a_known_size_keep_their_numbers(mask_zero):
    ids = tf_keras.Input((STEPS,), dtype="int32")
    model = moved(tf_keras.Model(ids, Positions(mask_zero, name="at")(ids)))
    with pytest.warns(eq.QuantizationWarning, match=r"Variables of at/embedding.* do not train"):
        check(model)


@pytest.mark.slow
def test_a_mask_that_the_last_layer_inside_carries_reaches_a_recurrent_layer():
    ids = tf_keras.Input((STEPS,), dtype="int32")
    x = Adding()(table()(ids))
    check(moved(tf_keras.Model(ids, L.LSTM(4)(x))))


def test_a_subclassed_model_of_blocks_with_masks_is_quantized():
    model, ids = Whole(), padded()
    model(ids)
    sim = eq.quantize(moved(model), ids, progress=False)
    wanted, got = model(ids).numpy(), sim(ids).numpy()
    assert np.max(np.abs(wanted - got)) < 0.1 * np.max(np.abs(wanted))


def read_by(reader, block):
    ids = tf_keras.Input((STEPS,), dtype="int32")
    return moved(tf_keras.Model(ids, reader(L.Dense(4)(block(name="own")(table()(ids))))))


@pytest.mark.parametrize("reader", short([L.LSTM(4), L.GlobalAveragePooling1D()]))
def test_a_mask_that_a_layer_makes_inside_that_cannot_be_followed_is_refused(reader):
    with pytest.raises(eq.errors.UnsupportedModelError, match=f"'own' .Closed.*{reader.name!r}"):
        prepare(read_by(reader, Closed))


@pytest.mark.parametrize("block", short([Told, Given], Told))
def test_the_ways_out_of_masks_inside_of_closed_layers(block):
    model = read_by(L.GlobalAveragePooling1D(), block)
    prepared = check(model)
    assert block in {type(layer) for layer in prepared.layers}
    sim = eq.quantize(model, padded(), progress=False)
    wanted, got = model(padded()).numpy(), sim(padded()).numpy()
    assert np.max(np.abs(wanted - got)) < 0.1 * np.max(np.abs(wanted))


def test_a_mask_that_nothing_reads_may_be_lost():
    check(read_by(L.Dense(2), Closed))


def test_a_closed_layer_that_computes_with_the_mask_on_its_input_is_refused():
    with pytest.raises(eq.errors.UnsupportedModelError, match=r"'own' .Attending.*tf.identity"):
        prepare(read_by(L.Dense(2), Attending))
