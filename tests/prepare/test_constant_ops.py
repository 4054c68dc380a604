"""Operations with constants as layers: which layer, what it computes, and what trains."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import QuantizationWarning
from keras_edgeq.prepare.constant_ops import constants_to_layers
from keras_edgeq.prepare.flatten import flatten_nested
from tests.harness import assert_close, assert_same_state, outputs, snapshot

L, K = tf_keras.layers, tf_keras.backend
V1 = tf.compat.v1.nn
VECTOR, SEQUENCE, IMAGE, VOLUME, HEADS = (4,), (6, 4), (8, 8, 4), (4, 4, 4, 2), (2, 6, 4)
IDS = (5,)


def c(*shape, seed=0):
    return tf.constant(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def bn(x):
    return tf.nn.batch_normalization(x, c(5), c(5) ** 2, c(5), c(5), 1e-3)


KERNEL, WIDE = c(3, 3, 4, 5), c(3, 3, 4, 2)
PADS = [[0, 0], [1, 0], [1, 1], [0, 0]]
# Shape of the input, the function, and the classes of the layers it becomes.
CASES = {
    "conv2d": (IMAGE, lambda x: tf.nn.conv2d(x, KERNEL, 1, "SAME"), "Conv2D"),
    "conv2d and bias": (IMAGE, lambda x: tf.nn.conv2d(x, KERNEL, 2, "VALID") + c(5), "Conv2D"),
    "conv2d and bias_add": (
        IMAGE, lambda x: tf.nn.bias_add(tf.nn.conv2d(x, KERNEL, 2, "VALID"), c(5)), "Conv2D",
    ),
    "conv2d, padded": (
        IMAGE, lambda x: tf.nn.conv2d(x, KERNEL, [1, 2, 2, 1], PADS), "ZeroPadding2D Conv2D",
    ),
    "conv2d, dilated": (
        IMAGE, lambda x: V1.conv2d(x, KERNEL, 1, "SAME", dilations=[1, 2, 2, 1]), "Conv2D",
    ),
    "conv2d in groups": (
        IMAGE, lambda x: tf.nn.conv2d(x, c(3, 3, 2, 6), 1, "SAME"), "Conv2D",
    ),
    "convolution": (IMAGE, lambda x: tf.nn.convolution(x, KERNEL, 2, "SAME"), "Conv2D"),
    "backend": (IMAGE, lambda x: K.conv2d(x, KERNEL, padding="same"), "Conv2D"),
    "conv1d": (SEQUENCE, lambda x: tf.nn.conv1d(x, c(3, 4, 5), 1, "SAME") + c(5), "Conv1D"),
    "conv3d": (VOLUME, lambda x: tf.nn.conv3d(x, c(3, 3, 3, 2, 5), [1] * 5, "SAME"), "Conv3D"),
    "depthwise": (
        IMAGE, lambda x: tf.nn.depthwise_conv2d(x, WIDE, [1] * 4, "SAME") + c(8), "DepthwiseConv2D",
    ),
    "depthwise, strided": (
        IMAGE, lambda x: K.depthwise_conv2d(x, WIDE, strides=(2, 2)), "DepthwiseConv2D",
    ),
    "matmul": (VECTOR, lambda x: tf.matmul(x, c(4, 5)) + c(5), "Dense"),
    "matmul, bias first": (VECTOR, lambda x: c(5) + tf.matmul(x, c(4, 5)), "Dense"),
    "matmul, bias of one": (VECTOR, lambda x: x @ c(4, 5) + c(1), "Dense"),
    "matmul, bias in batches": (VECTOR, lambda x: x @ c(4, 5) + c(1, 5), "Dense"),
    "matmul, transposed": (VECTOR, lambda x: tf.matmul(x, c(5, 4), transpose_b=True), "Dense"),
    "matmul of sequences": (SEQUENCE, lambda x: x @ c(4, 5) + c(5), "Dense"),
    "matmul from the left": (SEQUENCE, lambda x: c(5, 6) @ x, "EinsumDense"),
    "matmul from the left, transposed": (
        SEQUENCE, lambda x: tf.matmul(c(6, 5), x, transpose_a=True), "EinsumDense",
    ),
    "matmul of heads": (HEADS, lambda x: x @ c(2, 4, 5), "EinsumDense"),
    "tensordot": (SEQUENCE, lambda x: tf.tensordot(x, c(4, 5), [[2], [0]]), "Dense"),
    "tensordot, last axes": (SEQUENCE, lambda x: tf.tensordot(x, c(6, 4, 5), 2), "EinsumDense"),
    "tensordot, inner axis": (
        SEQUENCE, lambda x: tf.tensordot(x, c(5, 6), [[1], [1]]), "EinsumDense",
    ),
    "einsum": (SEQUENCE, lambda x: tf.einsum("bni, ij -> bnj", x, c(4, 5)) + c(5), "Dense"),
    "einsum, constant first": (
        SEQUENCE, lambda x: tf.einsum("ij,bni->bnj", c(4, 5), x), "Dense",
    ),
    "einsum to heads": (
        SEQUENCE, lambda x: tf.einsum("bni,ihj->bhnj", x, c(4, 2, 5)) + c(5), "EinsumDense",
    ),
    "einsum per position": (
        SEQUENCE, lambda x: tf.einsum("bni,nij->bnj", x, c(6, 4, 5)), "EinsumDense",
    ),
    "gather": (IDS, lambda x: tf.gather(c(10, 4), x), "Embedding"),
    "lookup": (IDS, lambda x: tf.nn.embedding_lookup(c(10, 4), x), "Embedding"),
}  # fmt: skip
# What has no layer, or would change its meaning.
STAY = {
    "bias of other sizes": (SEQUENCE, lambda x: x @ c(4, 5) + c(6, 5), "Dense AddConstant"),
    "bias that widens": (VECTOR, lambda x: x @ c(4, 1) + c(5), "Dense TFOpLambda"),
    "sum that is read twice": (
        VECTOR, lambda x: (lambda y: y + (y + c(5)))(x @ c(4, 5)), "Dense TFOpLambda TFOpLambda",
    ),
    "channels first": (
        (4, 6), lambda x: tf.nn.bias_add(x, c(4), data_format="NCHW"), "TFOpLambda",
    ),
    "einsum of one": (SEQUENCE, lambda x: tf.einsum("bni->bin", x), "TFOpLambda"),
    "gather of columns": (IDS, lambda x: tf.gather(c(10, 5), x, axis=1), "TFOpLambda"),
}  # fmt: skip


def model(shape, function):
    x = tf_keras.Input(shape, dtype="int32" if shape == IDS else None, name="x")
    return tf_keras.Model(x, function(x))


def values(shape):
    rng = np.random.default_rng(1)
    if shape == IDS:
        return rng.integers(0, 5, (16, *shape)).astype(np.int32)
    return rng.normal(size=(16, *shape)).astype(np.float32)


def kinds(made):
    return " ".join(type(layer).__name__ for layer in made.layers[1:])


@pytest.mark.parametrize("case", {**CASES, **STAY})
def test_an_operation_with_constants_becomes_a_layer_that_computes_the_same(case):
    shape, function, wanted = {**CASES, **STAY}[case]
    given = model(shape, function)
    before = snapshot(given)
    made, names = constants_to_layers(given)
    assert_same_state(before, snapshot(given))
    assert kinds(made) == wanted
    assert_close(outputs(given, values(shape)), outputs(made, values(shape)))
    weighted = {layer.name for layer in made.layers if layer.weights}
    assert names == weighted
    assert not made.trainable_weights


@pytest.mark.parametrize("case", ["conv2d and bias", "depthwise", "einsum", "tensordot, last axes"])
def test_a_sim_computes_them_in_integers_and_does_not_train_constants(case):
    shape, function, _ = CASES[case]
    given = model(shape, function)
    assert {row.computes for row in eq.describe(given).rows} == {"integer"}
    sim = eq.quantize(given, values(shape), progress=False)
    assert not sim.trainable_weights
    wanted, got = given(values(shape)).numpy(), sim(values(shape)).numpy()
    assert 10 * np.log10(np.sum(wanted**2) / np.sum((wanted - got) ** 2)) > 30.0


def test_a_batch_norm_of_operations_folds_into_what_is_in_front():
    given = model(IMAGE, lambda x: bn(tf.nn.conv2d(x, KERNEL, 1, "SAME")))
    made, _ = constants_to_layers(given)
    assert kinds(made) == "Conv2D"
    assert_close(outputs(given, values(IMAGE)), outputs(made, values(IMAGE)))


def test_techniques_see_the_kernels():
    given = model(
        IMAGE, lambda x: tf.nn.conv2d(tf.nn.relu(tf.nn.conv2d(x, KERNEL, 1, "SAME") + c(5)),
                                      c(1, 1, 5, 3), 1, "VALID")
    )  # fmt: skip
    made = eq.equalize(given)
    assert_close(outputs(given, values(IMAGE)), outputs(made, values(IMAGE)))
    changed = made.layers[1].get_weights()[0]
    assert not np.allclose(changed, KERNEL)


class Own(L.Layer):
    """Weights in operations: one product, one bias, and a scale that no layer of Keras has."""

    def __init__(self, scaled=False, tied=False, **options):
        super().__init__(**options)
        self.scaled, self.tied = scaled, tied

    def build(self, shape):
        self.w = self.add_weight(name="w", shape=(shape[-1], shape[-1]))
        self.b = self.add_weight(name="b", shape=(shape[-1],), initializer="random_normal")
        self.g = self.add_weight(name="g", shape=(), initializer="ones", trainable=self.scaled)

    def call(self, x):
        y = tf.matmul(x, self.w) + self.b
        y = tf.matmul(y, self.w, transpose_b=True) if self.tied else y
        return self.g * y


def own(**options):
    x = tf_keras.Input((4,), name="x")
    return tf_keras.Model(x, Own(**options, name="own")(x))


def test_variables_that_become_weights_train_as_before(recwarn):
    made, names = constants_to_layers(flatten_nested(own()))
    assert not names
    assert [weight.shape for weight in made.trainable_weights] == [(4, 4), (4,)]
    assert not [w for w in recwarn if w.category is QuantizationWarning]


def test_variables_that_no_layer_has_become_constants_with_a_word():
    with pytest.warns(QuantizationWarning, match="Variables of own are constants"):
        made, _ = constants_to_layers(flatten_nested(own(scaled=True)))
    flat = tf.nest.flatten([(n.call_args, n.call_kwargs)
                            for layer in made.layers for n in layer.inbound_nodes])  # fmt: skip
    assert not [value for value in flat if isinstance(value, tf.Variable)]


def test_variables_of_two_layers_are_no_longer_tied_and_do_not_train():
    with pytest.warns(QuantizationWarning, match="Variables of own"):
        made, _ = constants_to_layers(flatten_nested(own(tied=True)))
    assert not made.trainable_weights
    assert_close(outputs(own_like(made), values(VECTOR)), outputs(made, values(VECTOR)))


def own_like(made):
    given = own(tied=True)
    first = next(layer for layer in made.layers if layer.weights).get_weights()
    given.set_weights([*first, np.float32(1.0)])
    return given


def test_a_layer_called_twice_is_one_layer():
    x = tf_keras.Input((4,), name="x")
    layer = Own(name="own")
    made, _ = constants_to_layers(flatten_nested(tf_keras.Model(x, layer(layer(x)))))
    assert len(made.get_layer("own/matmul").inbound_nodes) == 2


def test_a_model_without_constants_comes_back_as_it_is():
    x = tf_keras.Input((4,))
    given = tf_keras.Model(x, tf.nn.relu(L.Dense(2)(x)))
    assert constants_to_layers(given) == (given, frozenset())
