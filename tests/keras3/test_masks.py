"""Masks of Keras 3: through models inside, layers made of layers, and masks that these make."""

import numpy as np
import pytest
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import UnsupportedModelError
from keras_edgeq.prepare import prepare
from tests.mask_blocks import IDS, STEPS, WIDTH, blocks, padded
from tests.short import short

keras = pytest.importorskip("keras", minversion="3")
L, ops = keras.layers, keras.ops
FROZEN = "ignore:Variables of:keras_edgeq.errors.QuantizationWarning"
pytestmark = [
    pytest.mark.filterwarnings(FROZEN),
    pytest.mark.filterwarnings("ignore:.*does not support masking:UserWarning"),
    pytest.mark.filterwarnings("ignore:.* was called on layer:UserWarning"),
]
Block, Passing, Adding = blocks(keras)


class Turning(Passing):
    def compute_mask(self, inputs, mask=None):
        return None if mask is None else ops.flip(mask, axis=1)


class Reading(Passing):
    """Reads the mask, and nothing else does: the mean of the positions that count."""

    def call(self, x, mask=None):
        if mask is None:
            return x + ops.mean(x, axis=1, keepdims=True)
        kept = ops.cast(mask, "float32")[:, :, None]
        counted = ops.sum(kept, axis=1, keepdims=True) + 1.0
        return x + ops.sum(x * kept, axis=1, keepdims=True) / counted


class Twice(Passing):
    def __init__(self, **options):
        super().__init__(**options)
        self.inner = Reading(name="inner")

    def call(self, x):
        return self.inner(super().call(x))


class Tokens(L.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.token, self.place = L.Embedding(IDS, WIDTH), L.Embedding(STEPS, WIDTH)

    def call(self, x):
        return self.token(x) + self.place(ops.arange(STEPS))

    def compute_mask(self, inputs, mask=None):
        return ops.not_equal(inputs, 0)


class Whole(keras.Model):
    def __init__(self):
        super().__init__(name="whole")
        self.tokens, self.block = Tokens(name="tokens"), Twice(name="block")
        self.pool, self.head = L.GlobalAveragePooling1D(), L.Dense(3)

    def call(self, x):
        return self.head(self.pool(self.block(self.tokens(x))))


def table():
    return L.Embedding(IDS, WIDTH, mask_zero=True)


def check(model):
    """Compare both on ids that are padded, with weights that tell them apart."""
    rng, ids = np.random.default_rng(1), padded()
    for weight in model.weights:
        if "float" in str(weight.dtype):
            weight.assign(weight + 0.3 * rng.normal(size=weight.shape))
    wanted = keras.ops.convert_to_numpy(model(ids, training=False))
    prepared = prepare(eq.from_keras3(model))
    np.testing.assert_allclose(prepared(ids), wanted, atol=1e-4)
    return prepared


def mean_of(make):
    ids = keras.Input((STEPS,), dtype="int32")
    return keras.Model(ids, L.GlobalAveragePooling1D()(make(ids)))


@pytest.mark.parametrize("front", short([Tokens, table], Tokens))
@pytest.mark.parametrize("block", short([Block, Passing, Turning, Reading, Adding, Twice], Turning))
def test_layers_made_of_layers_are_opened_with_the_masks_of_their_input(front, block):
    prepared = check(mean_of(lambda ids: block(name="block")(front()(ids))))
    assert "MultiHeadAttention" not in {type(layer).__name__ for layer in prepared.layers}


MODELS = {
    "masks made inside": lambda ids: Reading()(keras.Sequential([table(), Passing()])(ids)),
    "masks given": lambda ids: Reading()(keras.Sequential([Passing(), Adding()])(table()(ids))),
    "a mask of the call": lambda ids: L.LSTM(4, return_sequences=True)(
        keras.Sequential([L.Masking(7.0), L.Dense(WIDTH)])(table()(ids))
    ),
    "lost": lambda ids: keras.Sequential([L.Conv1D(WIDTH, 1)])(table()(ids)),
}


@pytest.mark.parametrize("name", short(MODELS, "masks made inside"))
def test_masks_go_into_models_and_out_of_them(name):
    check(mean_of(MODELS[name]))


@keras.saving.register_keras_serializable("tests")
class Counted(Passing):
    """Computes otherwise without a mask."""

    def build(self, shape):
        self.wide.build(shape)

    def call(self, x, mask=None):
        return self.wide(x if mask is None else x * ops.cast(mask, "float32")[:, :, None])


def called_twice(block):
    """Return a model of a layer that is called with a mask and without."""
    ids, embed = keras.Input((STEPS,), dtype="int32"), table()
    with_mask = L.GlobalAveragePooling1D()(block(embed(ids)))
    without = L.GlobalAveragePooling1D()(block(ops.tanh(embed(ids))))
    return keras.Model(ids, L.Subtract()([with_mask, without]))


def test_a_layer_that_is_called_with_a_mask_and_without_shares_its_weights():
    prepared = check(called_twice(Passing(name="block")))
    assert sum(type(layer).__name__ == "Embedding" for layer in prepared.layers) == 1


def test_weights_go_back_to_a_layer_that_is_called_with_a_mask_and_without():
    model, ids = called_twice(Counted(name="block")), padded()
    plain = eq.from_keras3(model)
    assert {"block", "block_1"} <= {layer.name for layer in plain.layers}
    plain.set_weights([weight + 0.5 for weight in plain.get_weights()])
    back = eq.to_keras3(plain, like=model)
    wanted = plain(ids, training=False).numpy()
    np.testing.assert_allclose(ops.convert_to_numpy(back(ids)), wanted, atol=1e-4)
    assert np.abs(wanted - ops.convert_to_numpy(model(ids))).max() > 0.1


def test_weights_that_came_apart_do_not_go_back():
    model = called_twice(Counted(name="block"))
    apart = tf_keras.models.clone_model(eq.from_keras3(model))
    with pytest.raises(UnsupportedModelError, match=r"'block/.* and 'block_1/.* different"):
        eq.to_keras3(apart, like=model)


def test_a_subclassed_model_of_blocks_with_masks_is_quantized():
    model, ids = Whole(), padded()
    model(ids)
    check(model)
    sim = eq.quantize(model, ids, progress=False)
    wanted = keras.ops.convert_to_numpy(model(ids))
    assert np.max(np.abs(wanted - sim(ids))) < 0.1 * np.max(np.abs(wanted))
