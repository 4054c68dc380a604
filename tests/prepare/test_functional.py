"""Models that compute with code of the user's: rebuilt, or refused with the place in that code."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import UnsupportedModelError
from keras_edgeq.prepare.functional import as_functional
from tests.harness import FLOAT_NOISE, assert_close, assert_same_state, outputs, snapshot
from tests.models import train_like

L = tf_keras.layers


def data(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


class Residual(L.Layer):
    def __init__(self, filters, **options):
        super().__init__(**options)
        self.one = L.Conv2D(filters, 3, padding="same", name="one")
        self.norm = L.BatchNormalization(name="norm")
        self.other = L.Conv2D(filters, 1, name="other")
        self.drop = L.Dropout(0.5, name="drop")

    def call(self, x, training=None):
        y = tf.nn.relu(self.norm(self.one(x), training=training))
        return tf.nn.relu(self.drop(y, training=training) + self.other(x))


class Projection(L.Layer):
    def __init__(self, units, **options):
        super().__init__(**options)
        self.units = units

    def build(self, shape):
        self.w = self.add_weight(name="w", shape=(shape[-1], self.units))
        self.b = self.add_weight(name="b", shape=(self.units,))

    def call(self, x):
        return tf.matmul(x, self.w) + self.b


class Network(tf_keras.Model):
    """Layers of its own, which call each other."""

    def __init__(self):
        super().__init__(name="network")
        self.blocks = [Residual(4, name="first"), Residual(4, name="second")]
        self.pool = L.GlobalAveragePooling2D(name="pool")
        self.out = Projection(3, name="out")

    def call(self, x, training=False):
        for block in self.blocks:
            x = block(x, training=training)
        return self.out(self.pool(x))


class Pair(tf_keras.Model):
    """Two inputs in one list or tuple, two outputs, shared layers."""

    def __init__(self):
        super().__init__(name="pair")
        self.a, self.b = L.Dense(4, name="a"), L.Dense(4, name="b")

    def call(self, inputs):
        one, other = inputs
        return self.a(one) + self.b(other), self.a(other)


class Named(tf_keras.Model):
    """Dictionaries in and out."""

    def __init__(self):
        super().__init__(name="named")
        self.a = L.Dense(4, name="a")

    def call(self, inputs):
        return {"sum": self.a(inputs["right"]) + inputs["left"], "right": self.a(inputs["right"])}


class Arguments(tf_keras.Model):
    """Several arguments, one of them by name, and one that is no tensor."""

    def __init__(self):
        super().__init__(name="arguments")
        self.a = L.Dense(4, name="a")

    def call(self, left, right=None, scale=2.0):
        return self.a(left) * scale + right


class Outer(tf_keras.Model):
    """A subclassed model, a functional one and a Sequential inside; its call is a tf.function."""

    def __init__(self):
        super().__init__(name="outer")
        self.network = Network()
        x = tf_keras.Input((3,))
        self.middle = tf_keras.Model(x, L.Dense(4, name="dense")(x), name="middle")
        self.last = tf_keras.Sequential([L.Dense(2, name="dense")], name="last")

    @tf.function
    def call(self, x):
        return self.last(self.middle(self.network(x)))


class Doubled(tf_keras.Model):
    """Functional, with another call."""

    def call(self, inputs, training=None, mask=None):
        return 2.0 * super().call(inputs)


def doubled():
    x = tf_keras.Input((5,), name="x")
    return Doubled(inputs=x, outputs=L.Dense(2, name="d")(x), name="doubled")


IMAGES, LEFT, RIGHT = data(6, 8, 8, 3), data(6, 4), data(6, 4, seed=1)
# How a model is made, what it is first called on, and the names of its inputs as a functional one.
MODELS = {
    "layers of its own": (Network, (IMAGES,), {}, ["input_1"]),
    "models inside": (Outer, (IMAGES,), {}, ["input_1"]),
    "a list": (Pair, ([LEFT, RIGHT],), {}, ["input_1", "input_2"]),
    "a tuple": (Pair, ((LEFT, RIGHT),), {}, ["input_1", "input_2"]),
    "a dictionary": (Named, ({"left": LEFT, "right": RIGHT},), {}, ["left", "right"]),
    "arguments": (Arguments, (LEFT, RIGHT), {}, ["left", "right"]),
    "arguments by name": (Arguments, (LEFT,), {"right": RIGHT}, ["left", "right"]),
    "another call": (doubled, (data(6, 5),), {}, ["x"]),
}


@pytest.mark.parametrize("case", MODELS)
def test_a_subclassed_model_is_rebuilt_and_not_changed(case):
    make, args, kwargs, names = MODELS[case]
    model = make()
    model(*args, **kwargs)
    train_like(model)
    wanted = [t.numpy() for t in tf.nest.flatten(model(*args, **kwargs))]
    before, flat = snapshot(model), tf.nest.flatten((args, kwargs))
    made = as_functional(model)
    assert_same_state(before, snapshot(model))
    assert (made.name, made.input_names) == (model.name, names)
    assert not any(isinstance(layer, tf_keras.Model) for layer in made.layers)
    given = flat[0] if len(flat) == 1 else dict(zip(names, flat, strict=True))
    assert_close(wanted, outputs(made, given))
    trained = [w.name for w in made.trainable_weights]
    assert len(trained) == len(model.trainable_weights)


def test_layers_keep_their_names_behind_those_they_are_in():
    model = Outer()
    model(IMAGES)
    names = {layer.name for layer in as_functional(model).layers}
    inside = {"network/first/one", "network/second/drop", "network/pool", "network/out/matmul"}
    assert inside | {"middle/dense", "last/dense"} <= names
    assert names == {layer.name for layer in as_functional(model).layers}  # no global numbers


def test_dropout_and_batch_norms_inside_still_train():
    model = Network()
    model(IMAGES)
    made = as_functional(model)
    one, other = made(IMAGES, training=True), made(IMAGES, training=True)
    assert not np.allclose(one, other)
    norm = made.get_layer("first/norm")
    assert np.any(norm.moving_mean.numpy())


def test_a_model_that_was_only_built_is_rebuilt():
    model = Pair()
    model.build([(None, 4), (None, 4)])
    made = as_functional(model)
    assert_close(outputs(model, [LEFT, RIGHT]), outputs(made, [LEFT, RIGHT]))
    assert made.input_names == ["inputs_1", "inputs_2"]


def test_a_functional_model_comes_back_as_it_is():
    x = tf_keras.Input((4,))
    model = tf_keras.Model(x, L.Dense(2)(x))
    assert as_functional(model) is model


@pytest.mark.parametrize("dtype", ["float16", "float64", "bfloat16"])
def test_inputs_of_other_real_types_become_float32(dtype):
    x = tf_keras.Input((4,), dtype=dtype, name="x")
    model = train_like(tf_keras.Model(x, L.Dense(2)(tf.nn.relu(L.Dense(3)(x)))))
    made = as_functional(model)
    assert made.inputs[0].dtype == tf.float32
    sim = eq.quantize(model, data(32, 4), progress=False)
    wanted, got = np.float32(model(LEFT)), sim(LEFT).numpy()
    assert np.abs(wanted - got).max() < 0.1 * np.abs(wanted).max()


def test_inputs_of_other_types_that_operations_need_are_refused_by_name():
    x = tf_keras.Input((4,), dtype="float64", name="x")
    model = tf_keras.Model(x, L.Dense(2)(tf.matmul(x, tf.ones((4, 3), tf.float64))))
    with pytest.raises(UnsupportedModelError, match=r"Input 'x' of .* is float64"):
        eq.describe(model)


class Scattered(tf_keras.Model):
    """Sizes that only code knows: images cut into patches, and a table of their positions."""

    def __init__(self):
        super().__init__(name="scattered")
        self.project = L.Dense(4, name="project")
        self.block = Positions(name="block")

    def call(self, x):
        batch = tf.shape(x)[0]
        patches = tf.image.extract_patches(x, [1, 4, 4, 1], [1, 4, 4, 1], [1, 1, 1, 1], "VALID")
        return self.block(self.project(tf.reshape(patches, [batch, -1, 48])))


class Positions(L.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.place, self.mix = L.Embedding(4, 4, name="place"), L.Dense(4, name="mix")

    def call(self, x):
        return self.mix(x + self.place(tf.range(4)))


@pytest.mark.filterwarnings("ignore:Variables of:keras_edgeq.errors.QuantizationWarning")
def test_layers_whose_sizes_only_code_knows_are_opened():
    model = Scattered()
    model(IMAGES)
    made = as_functional(model)
    assert_close(outputs(model, IMAGES), outputs(made, IMAGES))
    assert type(made.get_layer("block/mix")) is L.Dense


class Tied(tf_keras.Model):
    """A table that is looked up, and multiplied with at the end, as language models have."""

    def __init__(self):
        super().__init__(name="tied")
        self.table, self.dense = L.Embedding(10, 4, name="table"), L.Dense(4, name="dense")

    def call(self, ids):
        return tf.matmul(self.dense(self.table(ids)), self.table.embeddings, transpose_b=True)


def test_tied_weights_come_apart_with_a_word():
    model = Tied()
    ids = np.random.default_rng(0).integers(0, 10, (4, 5)).astype(np.int32)
    model(ids)
    with pytest.warns(eq.QuantizationWarning, match=r"code of tied .*tied weights"):
        made = as_functional(model)
    assert_close(outputs(model, ids), outputs(made, ids))


def test_ragged_inputs_are_refused():
    class Ragged(tf_keras.Model):
        def call(self, x):
            return x.to_tensor(shape=(None, 4))

    model = Ragged(name="ragged")
    model(tf.ragged.constant([[1.0], [1.0, 2.0]]))
    with pytest.raises(UnsupportedModelError, match="ragged or sparse"):
        eq.describe(model)


def test_a_mixed_policy_stays():
    tf_keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = Pair()
        model([LEFT, RIGHT])
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    made = as_functional(model)
    assert made.get_layer("a").dtype_policy.name == "mixed_float16"
    assert made.inputs[0].dtype == tf.float32
    assert eq.quantize(model, [LEFT, RIGHT], progress=False).quantized_layers()


def test_a_model_of_a_saved_model_says_what_it_needs(tmp_path):
    model = Network()
    model(IMAGES)
    model.save(tmp_path / "model")
    loaded = tf_keras.models.load_model(tmp_path / "model", compile=False)
    with pytest.raises(UnsupportedModelError, match="no code of its classes"):
        as_functional(loaded)


def test_a_subclassed_model_inside_of_a_functional_one_is_opened():
    one, other = tf_keras.Input((4,), name="one"), tf_keras.Input((4,), name="other")
    model = tf_keras.Model([one, other], Pair()([one, other])[0])
    sim = eq.quantize(model, {"one": LEFT, "other": RIGHT}, progress=False)
    assert {"pair/a", "pair/b"} <= sim.quantized_layers().keys()


@pytest.mark.filterwarnings("ignore:absorb_bias changed nothing")
@pytest.mark.parametrize(
    "function", [eq.equalize, eq.absorb_bias, eq.fold_batch_norms, eq.describe]
)
def test_functions_that_take_a_float_model_take_a_subclassed_one(function):
    model = train_like_of(Network)
    made = function(model)
    if function is eq.describe:
        assert {row.computes for row in made.rows if row.op == "Conv2D"} == {"integer"}
    else:
        assert_close(outputs(model, IMAGES), outputs(made, IMAGES), 10 * FLOAT_NOISE)


def train_like_of(kind):
    model = kind()
    model(IMAGES)
    return train_like(model)


def test_a_sim_of_a_subclassed_model_is_near_it_and_learns_its_layers():
    model = train_like_of(Network)
    sim = eq.quantize(model, IMAGES, progress=False)
    wanted, got = model(IMAGES).numpy(), sim(IMAGES).numpy()
    assert 10 * np.log10(np.sum(wanted**2) / np.sum((wanted - got) ** 2)) > 20.0
    names = {weight.name for weight in sim.trainable_weights}
    assert any(name.endswith("out/matmul/kernel:0") for name in names)


def method(call):
    """Return a model whose call is a function, called once."""

    class Model(tf_keras.Model):
        def __init__(self):
            super().__init__(name="mine")
            self.dense, self.count = L.Dense(3, name="dense"), tf.Variable(1.0, name="count")
            self.calls = 0

    Model.call = call
    model = Model()
    model(np.zeros((2, 3), np.float32))
    return model


def condition(self, x):
    y = self.dense(x)
    if tf.reduce_sum(y) > 0.0:
        y = -y
    return y


def loop(self, x):
    y = self.dense(x)
    for row in x:
        y = y + row
    return y


def in_numpy(self, x):
    return self.dense(np.tanh(x))


def to_number(self, x):
    return self.dense(x) * float(tf.reduce_sum(x))


def size(self, x):
    return tf.reshape(self.dense(x), [x.shape[0] * 3])


def layers_in_call(self, x):
    return L.Dense(3)(x)


def assigns(self, x):
    self.count.assign_add(1.0)
    return self.dense(x)


def random(self, x):
    return self.dense(x) + tf.random.normal([3])


def state(self, x):
    self.calls += 1
    return self.dense(x) * self.calls


def nothing(self, x):
    return self.dense(x), None


def branch(self, x):
    return tf.cond(tf.reduce_sum(x) > 0.0, lambda: x, lambda: -x)


REFUSED = {
    condition: r"test_functional\.py, line \d+, in condition: `if tf.reduce_sum.*condition on",
    loop: r"test_functional\.py, line \d+, in loop: `for row in x:`: a Python loop over",
    in_numpy: r"in in_numpy: .*a NumPy function on a symbolic tensor",
    to_number: r"in to_number: .*a number of Python made of a tensor",
    size: r"in size: .*use tf\.shape\(x\)",
    layers_in_call: r"not among its own layers: make it once, in __init__",
    assigns: r"assigns to its variable 'count'",
    random: "depends on more than its inputs",
    state: "depends on more than its inputs",
    nothing: "Found: None",
    branch: r"in branch: .*tf\.cond",
}


@pytest.mark.parametrize("call", REFUSED, ids=lambda call: call.__name__)
def test_what_cannot_be_followed_is_refused_with_the_place_and_the_reason(call):
    model = method(call)
    before = [weight.numpy() for weight in model.weights]
    with pytest.raises(UnsupportedModelError, match=f"'mine'.*subclassed.*{REFUSED[call]}"):
        eq.quantize(model, data(4, 3), progress=False)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_a_model_that_was_never_called_is_refused_with_what_to_do():
    with pytest.raises(UnsupportedModelError, match=r"'network' \(Network\).*Call it once"):
        eq.describe(Network())
