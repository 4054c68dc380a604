"""A model of Keras 3 becomes the `tf_keras` model that computes the same."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import SimMismatchError, UnsupportedModelError
from keras_edgeq.keras3 import check
from keras_edgeq.keras3.convert import Conversion

keras = pytest.importorskip("keras", minversion="3.0")
K, ops = keras.layers, keras.ops


def like_trained(model, seed=0):
    """Give a model weights as after training."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        shape, end = tuple(weight.shape), weight.path.rpartition("/")[2]
        if end in ("gamma", "moving_variance"):
            weight.assign(rng.uniform(0.5, 1.5, shape))
        elif len(shape) < 2:
            weight.assign(rng.normal(0.0, 0.3, shape))
        else:
            weight.assign(rng.normal(0.0, 1.0 / np.sqrt(np.prod(shape[:-1])), shape))
    return model


def images(model, count=8, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.uniform(-1.0, 1.0, (count, *x.shape[1:])).astype("float32") for x in model.inputs]


def transfer():
    """A nested base behind augmentation, as a transfer learning guide has it."""
    x = keras.Input((12, 12, 3))
    y = K.BatchNormalization()(K.Conv2D(8, 3, use_bias=False)(x))
    base = keras.Model(x, K.ReLU(6.0)(y), name="base")
    image = keras.Input((12, 12, 3), name="image")
    y = K.RandomRotation(0.1)(K.RandomFlip("horizontal")(image))
    y = K.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0])(y)
    y = K.Dropout(0.3)(K.GlobalAveragePooling2D()(base(y)))
    return keras.Model(image, K.Dense(4, activation="softmax", name="probs")(y))


def several():
    """Two inputs and a dict of outputs, a shared layer, and calculations on tensors."""
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    dense = K.Dense(5, activation="gelu", name="shared")
    y = ops.concatenate([dense(a), dense(b) * 0.5], axis=-1)
    y = ops.maximum(y, 0.1) - ops.mean(y, axis=-1, keepdims=True)
    return keras.Model({"a": a, "b": b}, {"one": K.Dense(2, name="one")(y), "two": y[:, 2:5]})


def activations():
    x = keras.Input((8,))
    names = (
        *("relu", "silu", "gelu", "hard_sigmoid", "hard_silu", "leaky_relu", "relu6", "elu"),
        *("selu", "softplus", "softsign", "tanh", "exponential", "mish", "log_softmax"),
        "log_sigmoid",
    )
    return keras.Model(x, [K.Dense(3, activation=n, name=n)(x) for n in names])


def sequences():
    x = keras.Input((7, 4))
    y = K.LSTM(5, return_sequences=True)(x)
    y = K.Bidirectional(K.GRU(3, return_sequences=True))(y)
    y = K.MultiHeadAttention(2, 4)(y, y)
    y = K.TimeDistributed(K.Dense(4))(K.LayerNormalization()(y))
    return keras.Model(x, K.Conv1D(3, 3, padding="causal", activation="tanh")(y))


def masked():
    x = keras.Input((6,), dtype="int32")
    y = K.LSTM(3)(K.Embedding(5, 4, mask_zero=True)(x))
    return keras.Model(x, y)


def many_layers():
    x = keras.Input((12, 12, 4))
    y = K.SeparableConv2D(6, 3, activation="relu")(K.ZeroPadding2D(1)(x))
    y = K.Conv2DTranspose(4, 3, strides=2, padding="same")(K.MaxPooling2D()(y))
    y = K.PReLU(shared_axes=[1, 2])(K.LeakyReLU(negative_slope=0.1)(y))
    y = K.UpSampling2D(interpolation="bilinear")(K.Cropping2D(1)(y))
    z = K.AveragePooling2D(2)(K.GroupNormalization(2)(y))
    y = K.Add()([K.Conv2D(4, 1)(z), z])
    y = K.Concatenate()([y, K.Multiply()([y, z])])
    y = K.EinsumDense("abcd,de->abce", output_shape=(None, None, 5), bias_axes="e")(y)
    y = K.Reshape((-1, 5))(K.Permute((2, 1, 3))(y))
    return keras.Model(x, K.UnitNormalization()(K.GlobalMaxPooling1D()(y)))


def operations():
    x = keras.Input((4, 6, 8))
    y = ops.transpose(x, (0, 2, 1, 3))
    y = ops.reshape(ops.pad(y, ((0, 0), (1, 1), (0, 0), (0, 0))), (-1, 8, 32))
    a, b = ops.split(y, 2, axis=-1)
    y = ops.where(a > 0.0, ops.abs(b), ops.square(a)) + ops.expand_dims(ops.max(a, axis=-1), -1)
    y = ops.matmul(y, ops.swapaxes(b, 1, 2)) / 4.0
    y = ops.softmax(ops.clip(y, -2.0, 2.0), axis=-1)
    y = ops.einsum("abc,acd->abd", y, ops.flip(b, axis=1))
    y = ops.stack([ops.relu(y), ops.sigmoid(y), ops.hard_silu(y)], axis=-1)
    return keras.Model(x, ops.sum(ops.log1p(ops.exp(y)), axis=-1))


MODELS = {
    f.__name__: f
    for f in (transfer, several, activations, sequences, masked, many_layers, operations)
}


@pytest.mark.parametrize("name", MODELS)
def test_each_layer_and_the_outputs_are_those_of_the_original(name):
    model = MODELS[name]()
    if name != "masked":
        like_trained(model)
    before = [np.copy(w) for w in model.get_weights()]
    conversion = Conversion(model)
    gaps = check.check_conversion(conversion, model)
    assert max(gaps.values()) < 1e-5
    ours = eq.from_keras3(model)
    assert isinstance(ours, tf_keras.Model)
    assert ours.input_names == [t.name for t in model.inputs] or name != "several"
    if name == "masked":
        inputs = [np.array([[1, 2, 0, 0, 0, 0], [3, 4, 1, 2, 3, 0]], np.int32)]
    else:
        inputs = images(model)
    given = dict(zip("ab", inputs, strict=True)) if name == "several" else inputs[0]
    theirs = keras.tree.flatten(model(given, training=False))
    for one, other in zip(theirs, tf.nest.flatten(ours(given, training=False)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 * max(1.0, np.abs(one).max()))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_what_takes_a_float_model_takes_one_of_keras_3(tmp_path):
    model = like_trained(transfer())
    (data,) = images(model, 64)
    sim = eq.quantize(model, data, progress=False)
    gap = np.abs(sim.predict(data, verbose=0) - np.asarray(model(data, training=False)))
    assert gap.max() < 0.05
    assert eq.describe(model).rows
    for technique in (eq.equalize, eq.absorb_bias):
        made = technique(model, data, progress=False)
        np.testing.assert_allclose(
            made(data, training=False), model(data, training=False), atol=1e-4
        )
    report = eq.export(sim, tmp_path, ["tflite", "onnx"], progress=False)
    assert {run.verdict for run in report.runs} == {"same"}


def test_names_are_those_of_the_model():
    x = keras.Input((8, 8, 3), name="image")
    y = K.Conv2D(4, 3, activation="hard_silu", name="conv")(x)
    y = ops.relu(y + 1.0)
    model = keras.Model(x, K.Flatten(name="flat")(y))
    names = [layer.name for layer in eq.from_keras3(model).layers]
    assert names[:2] == ["image", "conv"]
    assert {"conv/activation", "add", "relu", "flat"} <= {n.partition("_")[0] for n in names}


def test_weights_go_back_bit_by_bit():
    model = like_trained(transfer())
    plain = eq.from_keras3(model)
    back = eq.to_keras3(plain, like=model)
    assert back is not model
    for one, other in zip(back.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    plain.set_weights([w + 0.5 for w in plain.get_weights()])
    changed = eq.to_keras3(plain, like=model)
    (data,) = images(model)
    np.testing.assert_allclose(
        plain(data, training=False), changed(data, training=False), atol=1e-5
    )
    assert np.any(changed.get_weights()[0] != model.get_weights()[0])


def test_weights_that_became_constants_are_in_the_copy_as_well():
    x = keras.Input((4,))
    adapted = K.Normalization(name="adapted")
    adapted.adapt(np.random.default_rng(0).normal(3.0, 2.0, (64, 4)).astype("float32"))
    model = like_trained(keras.Model(x, Block(name="block")(K.Dense(4)(adapted(x)))))
    adapted.finalize_state()
    back = eq.to_keras3(eq.from_keras3(model), like=model)
    for one, other in zip(back.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    (data,) = images(model)
    np.testing.assert_allclose(back(data), model(data), atol=1e-6)


def test_weights_of_other_layers_do_not_go_back():
    model = like_trained(transfer())
    other = eq.equalize(model, images(model)[0], progress=False)
    with pytest.raises(UnsupportedModelError, match="'base/conv2d"):
        eq.to_keras3(other, like=model)
    with pytest.raises(UnsupportedModelError, match="not a model of Keras 3"):
        eq.to_keras3(other, like=other)


class Block(K.Layer):
    """A layer of the user's, made of layers and operations."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = K.Dense(4, activation="relu")
        self.scale = None

    def build(self, shape):
        self.dense.build(shape)
        self.scale = self.add_weight(shape=(4,), initializer="ones", name="scale")
        super().build(shape)

    def call(self, x):
        return self.dense(x) * self.scale + 1.0


class Whole(keras.Model):
    """A subclassed model."""

    def __init__(self):
        super().__init__(name="whole")
        self.block, self.last = Block(name="block"), K.Dense(2, name="last")

    def call(self, x):
        return self.last(self.block(x))


def test_layers_and_models_of_classes_of_their_own_are_opened():
    x = keras.Input((6,))
    model = like_trained(keras.Model(x, K.Dense(3)(Block(name="block")(x))))
    (data,) = images(model)
    np.testing.assert_allclose(eq.from_keras3(model)(data), model(data), atol=1e-6)
    whole = Whole()
    whole(data)
    like_trained(whole)
    np.testing.assert_allclose(eq.from_keras3(whole)(data), whole(data), atol=1e-6)
    assert eq.quantize(whole, data, progress=False).quantized_layers()


class Pair(keras.Model):
    """Subclassed, with several inputs in one argument, and several outputs."""

    def __init__(self):
        super().__init__(name="pair")
        self.dense = K.Dense(4, name="dense")

    def call(self, inputs, training=None):
        one, other = inputs.values() if isinstance(inputs, dict) else inputs
        return {"sum": self.dense(one) + other, "own": self.dense(one)}


class Arguments(keras.Model):
    """Subclassed, with two arguments."""

    def __init__(self):
        super().__init__(name="arguments")
        self.dense = K.Dense(4, name="dense")

    def build(self, one_shape, other_shape):
        self.dense.build(one_shape)

    def call(self, one, other):
        return self.dense(one) + other


class Unnoted(keras.Model):
    """Its second argument is noted nowhere."""

    def __init__(self):
        super().__init__(name="unnoted")
        self.dense = K.Dense(4, name="dense")

    def call(self, one, other):
        return self.dense(one) + other


ONE, OTHER = np.random.default_rng(0).normal(size=(2, 8, 4)).astype(np.float32)


@pytest.mark.parametrize(
    ("make", "given", "names"),
    [
        (Pair, ([ONE, OTHER],), ["inputs_1", "inputs_2"]),
        (Pair, ((ONE, OTHER),), ["inputs_1", "inputs_2"]),
        (Pair, ({"a": ONE, "b": OTHER},), ["a", "b"]),
        (Arguments, (ONE, OTHER), ["one", "other"]),
    ],
)
def test_subclassed_models_with_several_inputs_are_opened(make, given, names):
    model = make()
    wanted = [np.asarray(part) for part in keras.tree.flatten(model(*given))]
    made = eq.from_keras3(model)
    assert made.input_names == names
    got = tf.nest.flatten(made(dict(zip(names, (ONE, OTHER), strict=True))))
    for one, other in zip(wanted, got, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-6)
    data = dict(zip(names, (ONE, OTHER), strict=True))
    assert eq.quantize(model, data, progress=False).quantized_layers()


def test_a_second_argument_without_noted_sizes_is_named():
    model = Unnoted()
    model(ONE, OTHER)
    with pytest.raises(UnsupportedModelError, match="sizes of its arguments other"):
        eq.from_keras3(model)


class Token(K.Layer):
    """Reads the size of its batch: a token in front of patches, as vision transformers have."""

    def __init__(self, **options):
        super().__init__(**options)
        self.dense = K.Dense(4, name="dense")

    def build(self, shape):
        self.token = self.add_weight(shape=(1, 1, 4), name="token")
        self.dense.build((None, None, shape[-1]))

    def call(self, x):
        sizes = ops.shape(x)
        patches = self.dense(ops.reshape(x, [sizes[0], -1, sizes[-1]]))
        return ops.concatenate([ops.tile(self.token, (sizes[0], 1, 1)), patches], axis=1)


class Merged(K.Layer):
    """Computes with the size of its batch, and joins the batch with another axis."""

    def call(self, x):
        batch = ops.shape(x)[0]
        return ops.reshape(ops.relu(ops.reshape(x, (batch * 3, 6))), (batch, 3, 6))


@pytest.mark.parametrize(
    ("layer", "shape"), [(Token(name="own"), (4, 4, 3)), (Merged(name="own"), (3, 6))]
)
def test_layers_that_read_the_size_of_their_batch_are_opened_for_any(layer, shape):
    x = keras.Input(shape)
    model = like_trained(keras.Model(x, K.Dense(2)(layer(x))))
    made = eq.from_keras3(model)
    for size in (1, 2, 5):
        (data,) = images(model, size)
        np.testing.assert_allclose(made(data), model(data), atol=1e-6)
    sim = eq.quantize(model, images(model, 16)[0], progress=False)
    assert not [name for name in sim.record.plan.floats if name.startswith("own")]


class Constant(K.Layer):
    """Two equal rows that are no samples."""

    def call(self, x):
        return ops.matmul(x, ops.tile(ops.ones((1, 2)), (2, 1))) + float(ops.shape(x)[0] > 0)


def test_what_is_right_for_one_size_of_batch_only_is_refused():
    x = keras.Input((2,))
    odd = Constant(name="odd")
    odd.compute_output_spec = lambda x: keras.KerasTensor(x.shape)
    with pytest.raises(UnsupportedModelError, match=r"size of their batch \('odd'\)"):
        eq.from_keras3(keras.Model(x, odd(x)))


def test_a_model_for_every_step_is_opened():
    x = keras.Input((6, 6, 2))
    inner = keras.Model(x, K.GlobalAveragePooling2D()(K.Conv2D(3, 3, name="conv")(x)), name="inner")
    x = keras.Input((4, 6, 6, 2))
    model = like_trained(keras.Model(x, K.Dense(2)(K.TimeDistributed(inner, name="td")(x))))
    (data,) = images(model)
    np.testing.assert_allclose(eq.from_keras3(model)(data), model(data), atol=1e-6)
    assert "td/inner/conv" in eq.quantize(model, data, progress=False).quantized_layers()


def test_activations_of_the_users_are_opened():
    def own(x):
        return ops.tanh(x) * 2.0

    x = keras.Input((6,))
    y = K.Activation(own, name="alone")(K.Dense(4, activation=own, name="inside")(x))
    model = like_trained(keras.Model(x, y))
    (data,) = images(model)
    np.testing.assert_allclose(eq.from_keras3(model)(data), model(data), atol=1e-6)
    x = keras.Input((3, 6))
    outer = keras.Model(x, K.TimeDistributed(K.Dense(4, activation=own, name="deep"))(x))
    with pytest.raises(UnsupportedModelError, match="'deep' inside of another one"):
        eq.from_keras3(outer)


class Conditional(K.Layer):
    def call(self, x):
        return x if float(ops.sum(x)) > 0.0 else -x


def test_what_cannot_be_followed_is_named():
    x = keras.Input((6,))
    with pytest.raises(UnsupportedModelError, match=r"'whole' \(Whole\) is subclassed"):
        eq.from_keras3(Whole())
    with pytest.raises(UnsupportedModelError, match="not built"):
        eq.from_keras3(keras.Sequential([K.Dense(2)]))
    odd = Conditional(name="odd")
    odd.compute_output_spec = lambda x: keras.KerasTensor(x.shape)
    with pytest.raises(UnsupportedModelError, match=r"'odd' \(Conditional\)"):
        eq.from_keras3(keras.Model(x, odd(x)))
    with pytest.raises(UnsupportedModelError, match="not a model of Keras 3"):
        eq.from_keras3(tf_keras.Sequential())


def test_half_precision_is_compared_as_such():
    x = keras.Input((8, 8, 3))
    y = K.Conv2D(8, 3, activation="relu", dtype="mixed_float16")(x)
    model = like_trained(keras.Model(x, K.Dense(4)(K.GlobalAveragePooling2D()(y))))
    (data,) = images(model, 32)
    plain = eq.from_keras3(model)
    assert plain.layers[1].dtype_policy.name == "mixed_float16"
    sim = eq.quantize(model, data, progress=False)
    assert np.abs(sim.predict(data, verbose=0) - np.asarray(model(data))).max() < 0.1


@pytest.mark.filterwarnings("ignore:Layer InputLayer:UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Keras 3 with NumPy 2
def test_what_keras_quantized_is_refused():
    model = keras.Sequential([keras.Input((8,)), K.Dense(4, name="small")])
    model.quantize("int8")
    with pytest.raises(UnsupportedModelError, match="'small' has policy 'int8"):
        eq.from_keras3(model)


def test_a_layer_that_computes_something_else_is_named(monkeypatch):
    from keras_edgeq.keras3 import activations

    monkeypatch.setitem(activations.FUNCTIONS, "hard_silu", activations.silu)
    x = keras.Input((6,))
    model = like_trained(keras.Model(x, K.Dense(4, activation="hard_silu", name="odd")(x)))
    with pytest.raises(SimMismatchError, match=r"layer 'odd' .* would make") as told:
        eq.from_keras3(model)
    assert told.value.tensor == "odd"
